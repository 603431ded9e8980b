// A token decoder: embedding, layers, attention over a memory, head; and one step of it for any number of rows.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "stack.h"
#include "team.h"

namespace recur {

// Weights as they are given; null where the network has none. M is the width of the memory.
struct NetworkWeights {
    int vocabulary, embedding;           // V, E
    int features, memory, attention;     // F, M, A; 0 without attention (and F without anything that reads features)
    int output;                          // width of the tanh layer before the head, 0 without one
    const float* table;                  // [V, E]
    const float *start, *start_bias;     // [E, F], [E]
    const float *project, *project_bias; // [M, F], [M]; null: the features are the memory
    const float* key;                    // [A, M]
    const float *query, *query_bias;     // [A, H], [A]
    const float* score;                  // [A]; null: dot product
    const float *out, *out_bias;         // [O, H + M], [O]
};

// What attention reads of one item: R rows of values and of keys.
struct Memory {
    Buffer<float> values, keys, powers;  // powers: exp(2 keys), empty where they would overflow or are not needed
    int regions = 0, value_stride = 0, key_stride = 0;
};

// h and c of every layer for some rows.
class State {
public:
    State() = default;
    State(int layers, int columns, bool cells) : layers_(layers), columns_(columns), cells_(cells) {}
    void need(int rows) {
        if (rows <= capacity_) return;
        capacity_ = rows + rows / 2;
        h_ = Buffer<float>(static_cast<size_t>(layers_) * capacity_ * columns_, 0.0f);
        if (cells_) c_ = Buffer<float>(static_cast<size_t>(layers_) * capacity_ * columns_, 0.0f);
    }
    float* h(int layer, int row) { return h_.data() + (static_cast<size_t>(layer) * capacity_ + row) * columns_; }
    float* c(int layer, int row) { return c_.data() + (static_cast<size_t>(layer) * capacity_ + row) * columns_; }

private:
    int layers_ = 0, columns_ = 0, capacity_ = 0;
    bool cells_ = false;
    Buffer<float> h_, c_;
};

// Everything that one thread computes in. `logits` and `alpha` are what the last step gave.
struct Room {
    Workspace work;
    Crew* crew = nullptr;  // shares the panels of large matrices, where there is one
    std::vector<Workspace> helpers;
    Buffer<float> gates, context, query, output, logits, alpha;
    std::vector<float*> gate_rows, h_out, c_out, targets;
    std::vector<const float*> first;  // what the first layer's gates start from: a token's row, or gate_rows
    std::vector<const float*> h_in, c_in, below, contexts, alphas, tops;
    Groups groups;
    int logit_stride = 0, alpha_stride = 0;
    bool keep_gates = false;  // of every layer, for who wants to see them
    Buffer<float> kept_gates;

    // job(workspace, begin, end) on 0..parts: on shares of it where there is a crew and it is worth it.
    template <class Job>
    void share(bool worth, int parts, const Job& job) {
        if (crew && worth) {
            crew->share(parts, [&](int thread, int begin, int end) {
                if (begin < end) job(thread ? helpers[thread - 1] : work, begin, end);
            });
        } else {
            job(work, 0, parts);
        }
    }
};

class Network {
public:
    Network(std::shared_ptr<const Stack> stack, const NetworkWeights& weights, Precision precision);

    State state() const;
    // What attention will read of features [length, F].
    void read(const float* features, int length, Memory& memory, Workspace& work) const;
    // The gates that START gives the first layer for n items with features [regions, F].
    void start(int n, const float* const* features, const int* regions, float* const* gates, Workspace& work) const;
    // The same for a token, made on its first use.
    const float* token(int64_t id) const;
    // One step of n rows. room.first is what the first layer reads of each; row r goes on from row before[r] of `from`
    // and its state is row r of `to`. memory[r] is null without attention.
    void step(int n, const int* before, State& from, State& to, const Memory* const* memory, Room& room) const;
    void gates(int n, Room& room) const;  // room for the first layer's gates of n rows

    const Stack& stack() const { return *stack_; }
    bool starts() const { return start_.present(); }
    bool attends() const { return attention_ > 0; }
    int vocabulary() const { return vocabulary_; }
    int features() const { return features_; }
    size_t bytes() const;  // of the weights that every step reads
    int memory_width() const { return memory_; }
    int top_width() const { return output_ ? output_ : stack_->hidden() + (attends() ? memory_ : 0); }
    const Linear& out() const { return out_; }

private:
    void attend(int n, const float* const* h, const Memory* const* memory, Room& room) const;

    std::shared_ptr<const Stack> stack_;
    int vocabulary_, embedding_, features_, memory_, attention_, output_;
    Buffer<float> table_;
    Linear start_, project_, key_, query_, out_, out_context_;
    Buffer<float> start_bias_, project_bias_, query_bias_, score_, out_bias_;
    float dot_scale_ = 1.0f;
    bool additive_ = false;

    // Rows of W_ih e + b for the tokens seen so far. A pointer is stored after its row is complete.
    mutable std::unique_ptr<std::atomic<const float*>[]> rows_;
    mutable std::mutex making_;
    mutable std::vector<Buffer<float>> made_;
    mutable size_t made_in_last_ = 0;
    mutable Workspace making_work_;

    friend class Decoder;
};

class Decoder {
public:
    // `words` are the ids that may be written; head [W, top] and bias [W] (or null) are already only theirs.
    Decoder(std::shared_ptr<const Network> network, const std::vector<int64_t>& words, const float* head,
            const float* bias, Precision precision);

    // Logits [n, stride] of the next token from the state after a step.
    void score(int n, State& state, Room& room) const;

    const Network& network() const { return *network_; }
    std::shared_ptr<const Network> shared() const { return network_; }
    int words() const { return static_cast<int>(words_.size()); }
    size_t bytes() const { return network_->bytes() + head_.bytes() + head_context_.bytes(); }
    int64_t id(int word) const { return words_[word]; }

private:
    std::shared_ptr<const Network> network_;
    std::vector<int64_t> words_;
    Linear head_, head_context_;
    Buffer<float> bias_;
};

}  // namespace recur
