// Some items on their way through a decoder, and the record of what was seen at every step.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "search.h"
#include "team.h"

namespace recur {

constexpr float kBarred = -std::numeric_limits<float>::infinity();

inline bool possible(float value) { return value > kNever / 2; }

// Items begin..end: their memories are read, START and the prompt are fed, and then step after step whatever rows go on.
class Session {
public:
    Session(const Decoder& decoder, const Items& items, int begin, int end, int threads);

    // Feeds one vocabulary id to each of n rows; row r goes on from row before[r] and belongs to item items[r] (counted
    // from `begin`). With `score` room.logits holds what may come next.
    void feed(int n, const int64_t* ids, const int* before, const int* items, bool score);
    const float* logits(int row) const { return room.logits.data() + static_cast<size_t>(row) * room.logit_stride; }
    float* logits(int row) { return room.logits.data() + static_cast<size_t>(row) * room.logit_stride; }
    const float* alpha(int row) const {
        return decoder.network().attends() ? room.alpha.data() + static_cast<size_t>(row) * room.alpha_stride : nullptr;
    }
    State& state() { return now_; }

    const Decoder& decoder;
    Room room;
    const int begin, count;

private:
    void step(int n, const int* before, const int* items);

    std::unique_ptr<Crew> crew_;
    State now_, next_;
    std::vector<Memory> memories_;
    std::vector<const Memory*> read_;
};

// Mean, spread and the runners-up of each row of one step, and how the rows of the next step follow from them.
struct Seen {
    int rows = 0, kept = 0;
    std::vector<float> shift, log_total, entropy;  // log p = (logit - shift) - log_total
    std::vector<int> ids;                          // [rows, kept], most probable first
    std::vector<float> values;                     // their log-probabilities
    std::vector<float> attention;                  // [rows, R]
    std::vector<int> before, tokens;               // of the rows of the next step
    std::vector<float> gained;
};

class Record {
public:
    Record(const Decoder& decoder, int regions) : decoder_(decoder), regions_(regions) {}
    // Notes the step that the session has just made; `keep` columns of each row are found, at least the runners-up.
    Seen& see(const Session& session, int rows, int keep);
    const Seen& at(int step) const { return steps_[step]; }
    Seen& last() { return steps_.back(); }
    // The sequence that ends where step number `step` saw row `row`.
    Found found(int step, int row, float end_log_prob, double length_penalty) const;

private:
    const Decoder& decoder_;
    int regions_;
    std::vector<Seen> steps_;
};

// Bars what may not follow `history` [length] in one row of logits. False: nothing was barred.
bool bar(const Rules& rules, float* logits, int words, const int* history, int length);

// work(begin, end, threads) for shares of the items, in parallel; where there are fewer items than threads, one item's
// rows get the others to help with large products.
template <class Work>
void share(int items, int threads, const Work& work) {
    const int count = std::max(1, std::min(threads, items));
    together(count, [&](int i) {
        work(static_cast<int>(static_cast<int64_t>(items) * i / count),
             static_cast<int>(static_cast<int64_t>(items) * (i + 1) / count), threads / count);
    });
}

}  // namespace recur
