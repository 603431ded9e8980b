// Every instruction set of this processor against the plain kernels, on random inputs of odd sizes. A program of its own
// so that it can be built for another processor and run by an emulator (tests/test_engine_native_arm.py).
// Prints one line an instruction set; exit status 1 where anything differs by more than its tolerance.
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "cpu.h"
#include "linear.h"

using namespace recur;

namespace {

std::mt19937 random_bits(1);
int failures = 0;

Buffer<float> numbers(size_t n, float spread = 1.0f) {
    std::normal_distribution<float> normal(0.0f, spread);
    Buffer<float> out(n + 64);
    for (size_t i = 0; i < n + 64; ++i) out[i] = normal(random_bits);
    return out;
}

Buffer<float> copy(const Buffer<float>& x) {
    Buffer<float> out(x.size());
    for (size_t i = 0; i < x.size(); ++i) out[i] = x[i];
    return out;
}

void close(const char* what, const float* a, const float* b, int n, float tolerance) {
    for (int i = 0; i < n; ++i) {
        if (std::fabs(a[i] - b[i]) <= tolerance * (1 + std::fabs(b[i]))) continue;
        std::printf("%s: place %d of %d is %.9g, expected %.9g\n", what, i, n, a[i], b[i]);
        ++failures;
        return;
    }
}

void same(const char* what, const int* a, const int* b, int n) {
    for (int i = 0; i < n; ++i) {
        if (a[i] == b[i]) continue;
        std::printf("%s: place %d of %d is %d, expected %d\n", what, i, n, a[i], b[i]);
        ++failures;
        return;
    }
}

void products(const Kernels& k, const Kernels& plain) {
    for (Precision precision : {Precision::float32, Precision::bfloat16, Precision::int8}) {
        for (int n : {1, 2, 3, 5, 8, 17}) {
            for (int depth : {1, 7, 16, 129}) {
                for (int rows : {1, 48, 65, 130}) {
                    const auto weights = numbers(static_cast<size_t>(rows) * depth), x = numbers(n * depth);
                    const Linear linear = Linear::plain(weights.data(), rows, depth, precision);
                    const int columns = linear.columns();
                    const auto start = numbers(static_cast<size_t>(n) * columns);
                    auto a = copy(start), b = copy(start);
                    std::vector<const float*> in(n), from_a(n), from_b(n);
                    std::vector<float*> out_a(n), out_b(n);
                    for (int i = 0; i < n; ++i) {
                        in[i] = x.data() + static_cast<size_t>(i) * depth;
                        from_a[i] = out_a[i] = a.data() + static_cast<size_t>(i) * columns;
                        from_b[i] = out_b[i] = b.data() + static_cast<size_t>(i) * columns;
                    }
                    Buffer<unsigned char> bytes(linear.scratch() * 4 + 4096);
                    Buffer<float> scale(512);
                    const Matrix w = linear.view();
                    k.multiply(w, {n, in.data(), nullptr, from_a.data(), out_a.data()}, 0, w.panels,
                               {bytes.data(), scale.data()});
                    plain.multiply(w, {n, in.data(), nullptr, from_b.data(), out_b.data()}, 0, w.panels,
                                   {bytes.data(), scale.data()});
                    for (int i = 0; i < n; ++i) close("multiply", out_a[i], out_b[i], rows, 2e-5f);
                }
            }
        }
    }
}

void cells(const Kernels& k, const Kernels& plain) {
    for (Cell cell : {Cell::rnn, Cell::rnn_relu, Cell::lstm, Cell::gru}) {
        const int gates = cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
        for (int units : {16, 48, 144}) {
            const auto before = numbers(static_cast<size_t>(gates) * units, 3), h = numbers(units), c = numbers(units);
            const auto recurrent = numbers(static_cast<size_t>(gates) * units);
            auto a = copy(before), b = copy(before);
            Buffer<float> ha(units, 0.0f), hb(units, 0.0f), ca(units, 0.0f), cb(units, 0.0f);
            k.cell(cell, a.data(), recurrent.data(), h.data(), c.data(), ha.data(), ca.data(), 0, units);
            plain.cell(cell, b.data(), recurrent.data(), h.data(), c.data(), hb.data(), cb.data(), 0, units);
            close("cell, h", ha.data(), hb.data(), units, 1e-6f);
            close("cell, c", ca.data(), cb.data(), units, 1e-6f);
            close("cell, gates", a.data(), b.data(), gates * units, 1e-6f);
            if (cell != Cell::lstm) continue;
            k.finish(a.data(), c.data(), ha.data(), units);
            plain.finish(b.data(), c.data(), hb.data(), units);
            close("finish", ha.data(), hb.data(), units, 1e-6f);
        }
    }
}

void curves(const Kernels& k, const Kernels& plain) {
    for (int n : {16, 160, 1024}) {
        const auto x = numbers(n, 4);
        for (const auto& [what, one, two] : {std::tuple{"tanh", k.tanh, plain.tanh},
                                             std::tuple{"sigmoid", k.sigmoid, plain.sigmoid},
                                             std::tuple{"exp", k.exp, plain.exp}}) {
            auto a = copy(x), b = copy(x);
            one(a.data(), n);
            two(b.data(), n);
            close(what, a.data(), b.data(), n, 1e-6f);
        }
        auto a = copy(x), b = copy(x);
        k.powers(x.data(), n, 0.5f, 0.7f, a.data());
        plain.powers(x.data(), n, 0.5f, 0.7f, b.data());
        close("powers", a.data(), b.data(), n, 1e-6f);
        for (int part : {1, n - 3, n}) {
            auto p = copy(x), q = copy(x);
            k.softmax(p.data(), part);
            plain.softmax(q.data(), part);
            close("softmax", p.data(), q.data(), part, 1e-6f);
        }
        float s[3], t[3];
        k.spread(x.data(), n, s, s + 1, s + 2);
        plain.spread(x.data(), n, t, t + 1, t + 2);
        close("spread", s, t, 3, 1e-5f);
        k.extremes(x.data(), n, s, s + 1);
        plain.extremes(x.data(), n, t, t + 1);
        close("extremes", s, t, 2, 0.0f);
        s[0] = k.mass(x.data(), n, 1.0f);
        t[0] = plain.mass(x.data(), n, 1.0f);
        close("mass", s, t, 1, 1e-5f);
    }
}

void attention(const Kernels& k, const Kernels& plain) {
    for (int regions : {1, 5, 49, 64}) {
        for (int units : {16, 96, 128}) {
            const auto keys = numbers(static_cast<size_t>(regions) * units), query = numbers(units), v = numbers(units);
            Buffer<float> a(padded(regions) + 16, 0.0f), b(padded(regions) + 16, 0.0f);
            for (bool powers : {false, true}) {
                auto p = copy(keys), q = copy(query);
                if (powers) {
                    plain.exp(p.data(), regions * units);
                    plain.exp(q.data(), units);
                }
                k.additive(p.data(), regions, units, q.data(), v.data(), units, powers, a.data());
                plain.additive(p.data(), regions, units, q.data(), v.data(), units, powers, b.data());
                close("additive", a.data(), b.data(), regions, 1e-5f);
            }
            k.dots(keys.data(), regions, units, query.data(), units, 0.3f, a.data());
            plain.dots(keys.data(), regions, units, query.data(), units, 0.3f, b.data());
            close("dots", a.data(), b.data(), regions, 1e-5f);
            for (int rows : {1, 3, 5}) {
                const auto alpha = numbers(static_cast<size_t>(rows) * 80);
                auto out_a = numbers(static_cast<size_t>(rows) * units), out_b = copy(out_a);
                std::vector<const float*> weights(rows);
                std::vector<float*> one(rows), two(rows);
                for (int r = 0; r < rows; ++r) {
                    weights[r] = alpha.data() + r * 80;
                    one[r] = out_a.data() + r * units;
                    two[r] = out_b.data() + r * units;
                }
                k.blend(keys.data(), regions, units, weights.data(), rows, units, one.data());
                plain.blend(keys.data(), regions, units, weights.data(), rows, units, two.data());
                close("blend", out_a.data(), out_b.data(), rows * units, 1e-5f);
            }
        }
    }
}

void search(const Kernels& k, const Kernels& plain) {
    for (int n : {16, 80, 1024}) {
        auto x = numbers(n, 2);
        x[n / 3] = x[n / 2];  // equal ones
        const float thresholds[kThresholds] = {-2.0f, -0.5f, 0.0f, 0.7f, 9.0f};
        float masses[2][kThresholds];
        int counts[2][kThresholds], ids[2][1100], found[2];
        auto p = copy(x), q = copy(x);
        k.weigh(x.data(), n, 1.0f, 0.8f, thresholds, p.data(), masses[0], counts[0]);
        plain.weigh(x.data(), n, 1.0f, 0.8f, thresholds, q.data(), masses[1], counts[1]);
        close("weigh", p.data(), q.data(), n, 1e-6f);
        close("weigh, masses", masses[0], masses[1], kThresholds, 1e-5f);
        same("weigh, counts", counts[0], counts[1], kThresholds);
        k.above(x.data(), q.data(), n, thresholds, masses[0], counts[0]);
        plain.above(x.data(), q.data(), n, thresholds, masses[1], counts[1]);
        close("above, masses", masses[0], masses[1], kThresholds, 1e-5f);
        same("above, counts", counts[0], counts[1], kThresholds);
        auto xa = numbers(n), xb = copy(xa), pa = numbers(n), pb = copy(pa);
        found[0] = k.pick(x.data(), q.data(), nullptr, 7, n, -0.5f, 0.7f, xa.data(), pa.data(), ids[0]);
        found[1] = plain.pick(x.data(), q.data(), nullptr, 7, n, -0.5f, 0.7f, xb.data(), pb.data(), ids[1]);
        same("pick", found, found + 1, 1);
        same("pick, places", ids[0], ids[1], found[1]);
        close("pick, x", xa.data(), xb.data(), found[1], 0.0f);
        close("pick, p", pa.data(), pb.data(), found[1], 0.0f);
        for (int many : {1, 6, 16}) {
            k.top(x.data(), n, many, ids[0], xa.data());
            plain.top(x.data(), n, many, ids[1], xb.data());
            same("top", ids[0], ids[1], many);
            close("top, values", xa.data(), xb.data(), many, 0.0f);
        }
        for (float value : {-9.0f, 1.5f, 99.0f}) {
            found[0] = k.place(x.data(), n, value);
            found[1] = plain.place(x.data(), n, value);
            same("place", found, found + 1, 1);
        }
        for (int part : {1, n - 1, n}) {
            const float kept = x[part - 1];
            for (float value : {kept, INFINITY, -INFINITY, NAN}) {
                x[part - 1] = value;
                found[0] = k.finite(x.data(), part);
                found[1] = std::isfinite(value);
                same("finite", found, found + 1, 1);
            }
            x[part - 1] = kept;
        }
    }
}

}  // namespace

int main() {
    const Kernels& plain = *find_kernels("plain");
    for (const Kernels* each : usable_kernels()) {
        if (each == &plain) continue;
        const int before = failures;
        products(*each, plain);
        cells(*each, plain);
        curves(*each, plain);
        attention(*each, plain);
        search(*each, plain);
        std::printf("%s: %s\n", each->name, failures == before ? "as plain" : "differs");
    }
    return failures > 0;
}
