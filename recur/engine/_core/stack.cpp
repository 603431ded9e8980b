#include "stack.h"

#include <algorithm>
#include <cmath>

namespace recur {
namespace {

Buffer<float> ordered(const float* values, const Order& order, int columns) {
    Buffer<float> out(columns, 0.0f);
    for (size_t r = 0; r < order.size(); ++r) {
        if (values && order[r] >= 0) out[r] = values[order[r]];
    }
    return out;
}

Buffer<float> copied(const float* values, int n, int columns) {
    Buffer<float> out(columns, 0.0f);
    for (int i = 0; values && i < n; ++i) out[i] = values[i];
    return out;
}

constexpr double kEpsilon = 1e-5;  // torch.nn.LayerNorm's

}  // namespace

Stack::Stack(const Kernels* chosen, Cell kind, int hidden, int ways, const std::vector<LayerWeights>& layers,
             Precision precision, bool exact_first)
    : kernels(chosen), cell(kind), directions(ways), hidden_(hidden) {
    const int gates = gates_of(cell), vectors = cell == Cell::gru ? 3 : 4;
    const Order order = gate_order(gates, hidden);
    for (const LayerWeights& given : layers) {
        Layer layer;
        int whole = 0;
        for (int width : given.inputs) whole += width;
        int begin = 0;
        for (int width : given.inputs) {
            // The table of a decoder's first layer is made once a word: in float32, whatever the precision.
            const Precision here = exact_first && layers_.empty() ? Precision::float32 : precision;
            layer.inputs.emplace_back(given.ih, whole, begin, width, order, vectors, here, whole);
            begin += width;
        }
        layer.recurrent = Linear(given.hh, hidden, 0, hidden, order, vectors, precision, hidden);
        const int columns = layer.recurrent.columns();
        layer.normed = given.norm_ih != nullptr;
        if (layer.normed) {
            layer.base = Buffer<float>(columns, 0.0f);
            layer.recurrent_base = Buffer<float>(columns, 0.0f);
            layer.bias_ih = ordered(given.bias_ih, order, columns);
            layer.bias_hh = ordered(given.bias_hh, order, columns);
            layer.norm_ih = ordered(given.norm_ih, order, columns);
            layer.norm_hh = ordered(given.norm_hh, order, columns);
            layer.norm_c = copied(given.norm_c, hidden, state_columns());
            layer.norm_c_bias = copied(given.norm_c_bias, hidden, state_columns());
        } else {
            layer.base = ordered(given.bias_ih, order, columns);
            layer.recurrent_base = ordered(given.bias_hh, order, columns);
            if (cell != Cell::gru) {
                for (int i = 0; i < columns; ++i) layer.base[i] += layer.recurrent_base[i];
            }
        }
        layers_.push_back(std::move(layer));
    }
}

// Layer normalisation (Ba et al. 2016) of W x, or of U h, over all gates together; what pads is left at zero.
void Stack::normalise(float* gates, const Buffer<float>& gain, const Buffer<float>& bias) const {
    const int g = gates_of(cell), count = g * hidden_;
    double mean = 0, variance = 0;
    auto each = [&](auto&& visit) {
        for (int u = 0; u < hidden_; u += kLanes) {
            const int units = hidden_ - u < kLanes ? hidden_ - u : kLanes;
            for (int k = 0; k < g; ++k) {
                for (int i = 0; i < units; ++i) visit(g * u + k * kLanes + i);
            }
        }
    };
    each([&](int i) { mean += gates[i]; });
    mean /= count;
    each([&](int i) { variance += (gates[i] - mean) * (gates[i] - mean); });
    const float centre = static_cast<float>(mean);
    const float factor = static_cast<float>(1.0 / std::sqrt(variance / count + kEpsilon));
    each([&](int i) { gates[i] = (gates[i] - centre) * factor * gain[i] + bias[i]; });
}

void Groups::gather(const int* before, int n) {
    starts.assign(n ? static_cast<size_t>(*std::max_element(before, before + n)) + 2 : 1, 0);
    for (int r = 0; r < n; ++r) ++starts[before[r] + 1];
    first.assign(1, 0);
    for (size_t i = 1; i < starts.size(); ++i) {
        if (starts[i]) first.push_back(first.back() + starts[i]);
        starts[i] += starts[i - 1];
    }
    order.resize(n);
    for (int r = 0; r < n; ++r) order[starts[before[r]]++] = r;
}

void Stack::inputs(int layer, const std::vector<const float* const*>& x, int n, float* const* gates, int begin,
                   int end, Workspace& work) const {
    const Layer& here = layers_[layer];
    work.from.assign(static_cast<size_t>(n), here.base.data());
    const float* const* from = work.from.data();
    for (size_t piece = 0; piece < x.size(); ++piece) {
        const Linear& w = here.inputs[piece];
        kernels->multiply(w.view(), {n, x[piece], nullptr, from, gates}, begin, end, work.scratch(w.scratch()));
        from = gates;
    }
    for (int r = 0; here.normed && r < n; ++r) normalise(gates[r], here.norm_ih, here.bias_ih);
}

void Stack::advance(int layer, int n, const float* const* from, float* const* gates, const float* const* h_in,
                    const float* const* c_in, float* const* h_out, float* const* c_out, int begin, int end,
                    Workspace& work, const Groups* groups) const {
    const Layer& here = layers_[layer];
    const Linear& w = here.recurrent;
    const int width = w.vectors() * kLanes, per = width / (gates_of(cell) * kLanes) * kLanes;
    const int first = begin * per, last = end * per < padded(hidden_) ? end * per : padded(hidden_);
    const bool apart = cell == Cell::gru || here.normed;
    float* const* target = gates;
    if (apart) {
        work.second.need(static_cast<size_t>(n) * w.columns());
        work.rows.resize(n);
        for (int r = 0; r < n; ++r) {
            work.rows[r] = work.second.data() + static_cast<size_t>(r) * w.columns();
            if (from[r] != gates[r]) {
                std::memcpy(gates[r] + begin * width, from[r] + begin * width,
                            static_cast<size_t>(end - begin) * width * sizeof(float));
            }
        }
        target = work.rows.data();
        work.from.assign(static_cast<size_t>(n), here.recurrent_base.data());
        from = work.from.data();
    }
    if (groups && w.exact() && groups->count() < n) {
        work.sources.clear(), work.targets.clear(), work.starts.clear();
        for (int row : groups->order) work.targets.push_back(target[row]), work.starts.push_back(from[row]);
        for (int g = 0; g < groups->count(); ++g) work.sources.push_back(h_in[groups->order[groups->first[g]]]);
        kernels->multiply(w.view(), {groups->count(), work.sources.data(), groups->first.data(), work.starts.data(),
                          work.targets.data()}, begin, end, work.scratch(w.scratch()));
    } else {
        kernels->multiply(w.view(), {n, h_in, nullptr, from, target}, begin, end, work.scratch(w.scratch()));
    }
    for (int r = 0; r < n; ++r) {
        if (here.normed) {
            normalise(target[r], here.norm_hh, here.bias_hh);
            if (cell != Cell::gru) {
                for (int i = 0; i < w.columns(); ++i) gates[r][i] += target[r][i];
            }
        }
        kernels->cell(cell, gates[r], apart ? target[r] : nullptr, h_in[r], c_in ? c_in[r] : nullptr, h_out[r],
                      c_out ? c_out[r] : nullptr, first, last);
        if (here.normed && cell == Cell::lstm) {
            double mean = 0, variance = 0;
            for (int u = 0; u < hidden_; ++u) mean += c_out[r][u];
            mean /= hidden_;
            for (int u = 0; u < hidden_; ++u) variance += (c_out[r][u] - mean) * (c_out[r][u] - mean);
            const double factor = 1.0 / std::sqrt(variance / hidden_ + kEpsilon);
            work.second.need(static_cast<size_t>(state_columns()));
            float* c = work.second.data();  // U h of this row has been used by now
            for (int u = 0; u < hidden_; ++u) {
                c[u] = static_cast<float>((c_out[r][u] - mean) * factor) * here.norm_c[u] + here.norm_c_bias[u];
            }
            for (int u = hidden_; u < padded(hidden_); ++u) c[u] = 0.0f;
            kernels->finish(gates[r], c, h_out[r], padded(hidden_));
        }
    }
}

void Stack::plain_gates(const float* gates, float* out) const {
    const int g = gates_of(cell);
    for (int u = 0; u < hidden_; ++u) {
        for (int k = 0; k < g; ++k) out[k * hidden_ + u] = gates[(u / kLanes * g + k) * kLanes + u % kLanes];
    }
}

}  // namespace recur
