// From a decoder to whole sequences: beam search, greedy search, sampling, and plain generation. Semantics are those of
// `engine/search.py`, which is the slow twin; tokens here are columns of the decoder's words.
#pragma once

#include <cstdint>
#include <vector>

#include "decoder.h"

namespace recur {

constexpr int kRunnersUp = 5;

// What the items are: features [B, R, F] (or none), prompt [B, P] of vocabulary ids, states to go on from (or none).
struct Items {
    int batch = 0, regions = 0, prompt = 0;
    const float* features = nullptr;
    const int64_t* memory_lengths = nullptr;  // [B]
    const int64_t* tokens = nullptr;
    const float *h = nullptr, *c = nullptr;  // [L, B, H]
};

struct Rules {
    int end = 0, min_length = 0, max_length = 0, no_repeat_ngram = 0;
    std::vector<int> forbidden, no_end_after;
};

struct Beam {
    int width = 5, n_best = 1;
    double length_penalty = 0;
};

struct Sampling {
    int samples = 1;
    double temperature = 0;  // 0: the most probable token
    int top_k = 0;
    double top_p = 1;
    const double* draws = nullptr;  // [B, samples, max_length + 1] in [0, 1)
};

struct Found {
    std::vector<int> tokens;         // [T]
    std::vector<float> log_probs;    // [T]
    float end_log_prob = 0;
    double log_prob = 0, score = 0;
    std::vector<int> others;         // [T, A]
    std::vector<float> other_probs;  // [T, A]
    std::vector<float> entropies;    // [T + 1]
    std::vector<float> attention;    // [T, R]
};

using Results = std::vector<std::vector<Found>>;  // of each item

Results beam_search(const Decoder& decoder, const Items& items, const Rules& rules, const Beam& beam, int threads);
Results roll(const Decoder& decoder, const Items& items, const Rules& rules, const Sampling& sampling, int threads);

// Exactly `length` tokens an item, [B, length] as columns; the state after the last of them but one, which is where to
// go on with the last as prompt, is left in h and c [L, B, H].
void generate(const Decoder& decoder, const Items& items, int length, const Sampling& sampling, int64_t* tokens,
              float* log_probs, float* h, float* c, int threads);

// Teacher forcing: logits [B, T, W], attention [B, T, R] and the trace [L, B, T, ·], null where not wanted.
struct Reading {
    float *logits, *attention, *h, *c, *trace_h, *trace_c, *trace_gates;
};
void read(const Decoder& decoder, const Items& items, const Reading& out, int threads);

// The place in `values` [n] that `draw` in [0, 1) falls on, where the probabilities are softmax(values / temperature),
// cut to the top_k and then to the nucleus top_p. Values at or below kNever / 2 cannot come. `count` of the n are real.
int drawn(const Kernels& kernels, Room& room, const float* values, int n, int count, const Sampling& sampling,
          double draw);

// The place of the greatest of `values`, or with a temperature the one drawn, and its log-probability in
// softmax(values). Errors: domain_error for values that are not finite.
struct Choice {
    int place;
    float log_prob;
};
Choice chosen(const Kernels& kernels, Room& room, const float* values, int n, int count, const Sampling& sampling,
              double draw);

}  // namespace recur
