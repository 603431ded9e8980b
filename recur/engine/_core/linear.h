// A weight matrix, packed once in the order in which the kernels read it (kernels.h says how).
#pragma once

#include <cmath>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace recur {

// Which row of the given matrix lies at each row of the packed one; -1 where there is none.
using Order = std::vector<int>;

// Gates of the same 16 units side by side, so that a panel holds whole units and a thread that has made a panel can
// go on to the cell without waiting for another.
inline Order gate_order(int gates, int hidden) {
    Order order(static_cast<size_t>(padded(hidden)) * gates, -1);
    for (int u = 0; u < hidden; ++u) {
        for (int g = 0; g < gates; ++g) order[(u / kLanes * gates + g) * kLanes + u % kLanes] = g * hidden + u;
    }
    return order;
}

inline Order plain_order(int rows) {
    Order order(rows);
    for (int r = 0; r < rows; ++r) order[r] = r;
    return order;
}

class Linear {
public:
    Linear() = default;

    // Columns begin..begin + depth of w, whose rows are `stride` numbers apart. int8: one scale a row, for the whole
    // row of w (`whole` numbers), so that weights which were stored that way come back exactly.
    Linear(const float* w, int stride, int begin, int depth, const Order& order, int vectors, Precision precision,
           int whole)
        : precision_(precision), rows_(static_cast<int>(order.size())), depth_(depth), vectors_(vectors) {
        const int panel = vectors * kLanes;
        const int unit = precision == Precision::float32 ? 1 : precision == Precision::bfloat16 ? 2 : 4;
        panels_ = (rows_ + panel - 1) / panel;
        groups_ = (depth + unit - 1) / unit;
        const size_t count = static_cast<size_t>(panels_) * panel;
        data_ = Buffer<unsigned char>(count * groups_ * 4, 0);
        scale_ = Buffer<float>(count, 0.0f);
        sums_ = Buffer<int32_t>(count, 0);
        for (int r = 0; r < rows_; ++r) {
            if (order[r] < 0) continue;
            const float* row = w + static_cast<size_t>(order[r]) * stride;
            unsigned char* out = data_.data() + (static_cast<size_t>(r / panel) * groups_ * panel + r % panel) * 4;
            float inverse = 0;
            if (precision == Precision::int8) {
                float most = 0;
                for (int k = 0; k < whole; ++k) most = std::fmax(most, std::fabs(row[k]));
                scale_[r] = most / 127.0f;
                inverse = most > 1e-30f ? 127.0f / most : 0.0f;
            }
            for (int k = 0; k < depth; ++k) {
                unsigned char* place = out + static_cast<size_t>(k / unit) * panel * 4 + k % unit * (4 / unit);
                store(row[begin + k], inverse, place, r);
            }
        }
    }

    // Plain rows, as many vectors in a panel as wastes least.
    static Linear plain(const float* w, int rows, int depth, Precision precision) {
        return Linear(w, depth, 0, depth, plain_order(rows), best_vectors(rows), precision, depth);
    }
    static int best_vectors(int rows) { return padded(rows, 48) < padded(rows, 64) ? 3 : 4; }

    Matrix view() const {
        return {precision_, rows_,  depth_,       groups_,      vectors_,
                panels_,    data_.data(), scale_.data(), sums_.data()};
    }
    bool present() const { return rows_ > 0; }
    bool exact() const { return precision_ == Precision::int8; }  // sums without rounding
    int depth() const { return depth_; }
    int panels() const { return panels_; }
    int vectors() const { return vectors_; }
    int columns() const { return panels_ * vectors_ * kLanes; }  // outputs with those that pad
    size_t bytes() const { return data_.size(); }
    size_t scratch() const { return precision_ == Precision::float32 ? 0 : static_cast<size_t>(groups_) * 8 * 256; }

private:
    void store(float value, float inverse, unsigned char* place, int row) {
        if (precision_ == Precision::float32) {
            std::memcpy(place, &value, 4);
        } else if (precision_ == Precision::bfloat16) {
            uint32_t bits;
            std::memcpy(&bits, &value, 4);
            const uint16_t half = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
            std::memcpy(place, &half, 2);
        } else {
            const float q = std::fmax(-127.0f, std::fmin(127.0f, std::nearbyint(value * inverse)));
            *place = static_cast<unsigned char>(static_cast<int>(q));
            sums_[row] += static_cast<int>(q);
        }
    }

    Precision precision_ = Precision::float32;
    int rows_ = 0, depth_ = 0, groups_ = 0, vectors_ = 4, panels_ = 0;
    Buffer<unsigned char> data_;
    Buffer<float> scale_;
    Buffer<int32_t> sums_;
};

}  // namespace recur
