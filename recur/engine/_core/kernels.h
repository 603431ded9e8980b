// What an instruction set offers: a table of functions, filled once for each by kernels.inc and chosen at run time.
//
// Matrices are packed for all instruction sets alike. Rows (outputs) are taken in panels of `vectors` times 16; within
// a panel the numbers of one input, for all its rows, lie side by side: [panel][depth][row] in float32,
// [panel][depth / 2][row][2] in bfloat16 and [panel][depth / 4][row][4] in int8. A product then streams the weights
// once, in the order in which they lie, with one broadcast input for each vector (the layout of BLIS, Van Zee & van de
// Geijn 2015, without its second level). Rows and depth are padded with zeros.
#pragma once

#include <cstddef>
#include <cstdint>

namespace recur {

constexpr int kLanes = 16;
constexpr int kThresholds = 5;  // of `above` and `weigh`
constexpr int kBlock = 1024;    // numbers that these take at most
constexpr float kNever = -1e30f;  // the score of a column that only pads: finite, so that 0 times it is 0

enum class Precision : int { float32 = 0, bfloat16 = 1, int8 = 2 };
enum class Cell : int { rnn = 0, rnn_relu = 1, lstm = 2, gru = 3 };

// A packed matrix as the kernels see it.
struct Matrix {
    Precision precision;
    int rows;     // outputs that are real
    int depth;    // inputs
    int groups;   // depth in units of 1, 2 or 4 inputs, by precision
    int vectors;  // of 16 rows in a panel: 3 or 4
    int panels;
    const void* data;
    const float* scale;  // int8: one a row, padded
    const int32_t* sums;  // int8: sum of the row's weights
};

// Room for inputs as bfloat16 or int8: `rows` times `stride` bytes, and one scale a row.
struct Scratch {
    unsigned char* bytes;
    float* scale;
};

// y[t] = from[t] + x[r] W^T for t = first[r] .. first[r + 1] - 1, or t = r where first is null. `from` may be `y`.
// Several t to one r only in int8, where the sum is exact and has the same bits wherever it starts.
struct Rows {
    int n;
    const float* const* x;
    const int* first;
    const float* const* from;
    float* const* y;
};

struct Kernels {
    const char* name;
    // The product for the columns of panels panel_begin..panel_end; y and from count from the matrix's first row. Sums
    // over the depth are made in one order whatever n is: results do not depend on what else is in the batch.
    void (*multiply)(const Matrix& w, const Rows& rows, int panel_begin, int panel_end, Scratch scratch);
    // One step of a cell for units unit_begin..unit_end (multiples of 16). `gates` has, for each 16 units, its G
    // vectors side by side; it holds the activated gates afterwards. `recurrent` (gru only) is U h + b' in the same
    // order.
    void (*cell)(Cell cell, float* gates, const float* recurrent, const float* h_in, const float* c_in, float* h_out,
                 float* c_out, int unit_begin, int unit_end);
    // x[i] = tanh, sigmoid or exp of x[i] for i < n, n a multiple of 16.
    void (*tanh)(float* x, int n);
    void (*sigmoid)(float* x, int n);
    void (*exp)(float* x, int n);
    // h = o tanh(c) for n units, a multiple of 16: the end of a layer-normalised lstm, o in its place among `gates`.
    void (*finish)(const float* gates, const float* c, float* h, int n);
    // Scores of additive attention, sum_a v[a] tanh(keys[r][a] + query[a]), for `regions` rows of keys, `stride` apart.
    // With `powers`, keys and query are exp(2 k) and exp(2 q) already: tanh(k + q) = 1 - 2 / (1 + exp(2 k) exp(2 q)).
    void (*additive)(const float* keys, int regions, int stride, const float* query, const float* v, int units,
                     bool powers, float* scores);
    // scores[r] = scale * keys[r] . query.
    void (*dots)(const float* keys, int regions, int stride, const float* query, int units, float scale, float* scores);
    // out[i] = sum_r alpha[i][r] values[r] for some rows, `width` a multiple of 16.
    void (*blend)(const float* values, int regions, int stride, const float* const* alpha, int rows, int width,
                  float* const* out);
    // softmax in place over the first n of x, which has room for the next multiple of 16.
    void (*softmax)(float* x, int n);
    // The greatest of x[0..n), the sum of exp(x - greatest) and the sum of exp(x - greatest) (x - greatest).
    // n is a multiple of 16, what pads is kNever.
    void (*spread)(const float* x, int n, float* greatest, float* total, float* moment);
    // out[i] = exp((x[i] - shift) * factor), n a multiple of 16.
    void (*powers)(const float* x, int n, float shift, float factor, float* out);
    // The greatest and the least of x[0..n), n a multiple of 16; what they are where one is NaN is not said.
    void (*extremes)(const float* x, int n, float* greatest, float* least);
    // The first place of x[0..n) that is not below `value`, n where there is none; n a multiple of 16.
    int (*place)(const float* x, int n, float value);
    // The sum of exp(x[i] - shift); n a multiple of 16.
    float (*mass)(const float* x, int n, float shift);
    // The sum of p[i], and how many there are, where x[i] > threshold, for each of kThresholds. n a multiple of 16, so
    // small (kBlock) that float32 adds it up.
    void (*above)(const float* x, const float* p, int n, const float* thresholds, float* masses, int* counts);
    // The same for p[i] = exp((x[i] - shift) * factor), which are made by it. Where an x[i] is NaN so is the last mass.
    void (*weigh)(const float* x, int n, float shift, float factor, const float* thresholds, float* p, float* masses,
                  int* counts);
    // x[i], p[i] and places[i] (base + i where places is null) where low < x[i] <= high, in order, and how many they
    // are; n a multiple of 16, room for 16 more at the ends.
    int (*pick)(const float* x, const float* p, const int* places, int base, int n, float low, float high, float* x_out,
                float* p_out, int* places_out);
    // The k greatest of x[0..n), greatest first, of equal ones the first; n a multiple of 16, n >= k >= 1.
    void (*top)(const float* x, int n, int k, int* places, float* values);
    // Whether every one of x[0..n) is finite; any n.
    bool (*finite)(const float* x, size_t n);
};

const Kernels* kernels_plain();
const Kernels* kernels_neon();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
const Kernels* kernels_avx512_vnni();
const Kernels* kernels_avx512_bf16();

}  // namespace recur
