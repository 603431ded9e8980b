// Layers of recurrent cells on packed weights, and one step of them for any number of rows.
#pragma once

#include <memory>
#include <vector>

#include "linear.h"

namespace recur {

inline int gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

// Weights of one layer and direction as they are given; null where the network has none.
struct LayerWeights {
    const float *ih, *hh, *bias_ih, *bias_hh;
    const float *norm_ih, *norm_hh, *norm_c, *norm_c_bias;
    std::vector<int> inputs;  // widths of the pieces that the input is made of
};

struct Layer {
    std::vector<Linear> inputs;  // one for each piece
    Linear recurrent;
    Buffer<float> base;            // what a step's gates start from before the input comes: biases, in gate order
    Buffer<float> recurrent_base;  // the same for U h, where that is kept apart (gru, layer norm)
    Buffer<float> norm_ih, norm_hh, norm_c, norm_c_bias, bias_ih, bias_hh;
    bool normed = false;
};

// What one thread needs while it computes; it grows to what is asked of it.
struct Workspace {
    Buffer<unsigned char> bytes;
    Buffer<float> scale;
    Buffer<float> second;  // U h where it is kept apart
    std::vector<float*> rows, targets;
    std::vector<const float*> sources, from, starts;

    Scratch scratch(size_t size) {
        bytes.need(size + 64);
        return {bytes.data(), nullptr};
    }
};

// Rows that go on from one state, together: group g is rows order[first[g]] .. order[first[g + 1] - 1]. Their U h is
// the same product, made once where its sum is exact.
struct Groups {
    std::vector<int> first, order, starts;  // starts: for gather alone
    void gather(const int* before, int n);
    int count() const { return static_cast<int>(first.size()) - 1; }
};

class Stack {
public:
    // `layers` has directions entries for each layer, forward first.
    Stack(const Kernels* kernels, Cell cell, int hidden, int directions, const std::vector<LayerWeights>& layers,
          Precision precision, bool exact_first);
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;

    // gates[r] = biases + W x[r] for a part of the panels; pieces of x come one after the other in `x`.
    void inputs(int layer, const std::vector<const float* const*>& x, int n, float* const* gates, int begin, int end,
                Workspace& work) const;
    // The rest of a step: from[r], which may be gates[r], is what `inputs` makes; gates[r] becomes the activated gates,
    // h_out[r] and c_out[r] the state. c only for the lstm. `groups`, or null: rows with the same h_in.
    void advance(int layer, int n, const float* const* from, float* const* gates, const float* const* h_in,
                 const float* const* c_in, float* const* h_out, float* const* c_out, int begin, int end,
                 Workspace& work, const Groups* groups = nullptr) const;

    int panels() const { return layers_[0].recurrent.panels(); }
    int gate_columns() const { return layers_[0].recurrent.columns(); }  // with those that pad
    int state_columns() const { return padded(hidden_, 64); }
    // Puts gates as the kernels have them into PyTorch's order, [G * H].
    void plain_gates(const float* gates, float* out) const;

    const Kernels* kernels;
    const Cell cell;
    const int directions;
    int hidden() const { return hidden_; }
    int layers() const { return static_cast<int>(layers_.size()) / directions; }
    bool normed() const { return layers_[0].normed; }
    const Layer& layer(int i) const { return layers_[i]; }

private:
    void normalise(float* gates, const Buffer<float>& gain, const Buffer<float>& bias) const;
    int hidden_;
    std::vector<Layer> layers_;
};

struct ScanCall {
    const float* x;  // [B, T, D]
    int batch, time, inputs;
    const int64_t* lengths;         // [B]
    const unsigned char* resets;    // [B, T] or null
    float* h;                       // [L * directions, B, H], in and out
    float* c;                       // the same for the lstm, or null
    float* out;                     // [B, T, directions * H]
    float* trace_h;                 // [L * directions, B, T, H] or null
    float* trace_c;
    float* trace_gates;             // [.., G * H]
    int threads;
};

void scan(const Stack& stack, const ScanCall& call);

}  // namespace recur
