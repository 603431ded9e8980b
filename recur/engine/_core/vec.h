// Sixteen floats, and the few things the kernels do with them: one AVX-512 register, two of AVX2, four of NEON, or an
// array that the compiler may vectorise as it likes. Included only by kernels.inc, once for each instruction set.
//
// Everything here has internal linkage and nothing comes from the standard library: an inline function that two files
// compile with different flags would be merged by the linker, and the wrong one would run on an older machine.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(RECUR_AVX512) || defined(RECUR_AVX2)
#include <immintrin.h>
#elif defined(RECUR_NEON)
#include <arm_neon.h>
#endif

#if defined(_MSC_VER)
#define RECUR_INLINE static __forceinline
#define RECUR_HERE
#elif defined(RECUR_SANITIZED)  // every load is checked: written out in each place, that is minutes of compilation
#define RECUR_INLINE static inline
#define RECUR_HERE
#else
#define RECUR_INLINE static inline __attribute__((always_inline))
#define RECUR_HERE __attribute__((always_inline))
#endif

namespace {

// body(Index<0>), …, body(Index<N - 1>), written out before anything else is optimised: GCC keeps an array of registers
// in registers only when every index into it is a constant by then.
template <int N>
struct Index {
    constexpr operator int() const { return N; }
};

template <int N, class Body>
RECUR_INLINE void each(const Body& body) {
    if constexpr (N > 0) {
        each<N - 1>(body);
        body(Index<N - 1>{});
    }
}

#if defined(RECUR_AVX512)

struct F16 {
    __m512 v;
};

RECUR_INLINE F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
RECUR_INLINE void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
RECUR_INLINE F16 set1(float x) { return {_mm512_set1_ps(x)}; }
RECUR_INLINE F16 add(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
RECUR_INLINE F16 sub(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
RECUR_INLINE F16 mul(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
RECUR_INLINE F16 div(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
RECUR_INLINE F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// Where b is NaN these give b: the argument that may be NaN comes second.
RECUR_INLINE F16 min(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
RECUR_INLINE F16 max(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
RECUR_INLINE F16 nearest(F16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
RECUR_INLINE F16 absolute(F16 a) { return {_mm512_abs_ps(a.v)}; }
RECUR_INLINE F16 with_sign(F16 a, F16 sign) {
    const __m512i mask = _mm512_set1_epi32(INT32_MIN);
    const __m512i bits = _mm512_and_epi32(_mm512_castps_si512(sign.v), mask);
    return {_mm512_castsi512_ps(_mm512_or_epi32(_mm512_castps_si512(a.v), bits))};
}
// The lowest bits of a number's mantissa as the exponent of another: 2^n of kRound + n, for whole n in -126..127.
RECUR_INLINE F16 power_of_two(F16 n) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(n.v), 23))}; }
RECUR_INLINE uint32_t greater(F16 a, F16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
// a + b where the bit of the lane is set, elsewhere a.
RECUR_INLINE F16 add_where(F16 a, F16 b, uint32_t bits) {
    return {_mm512_mask_add_ps(a.v, static_cast<__mmask16>(bits), a.v, b.v)};
}
RECUR_INLINE float sum(F16 a) { return _mm512_reduce_add_ps(a.v); }
RECUR_INLINE float largest(F16 a) { return _mm512_reduce_max_ps(a.v); }

#elif defined(RECUR_AVX2)

struct F16 {
    __m256 lo, hi;
};

#define RECUR_BOTH(name, op) \
    RECUR_INLINE F16 name(F16 a, F16 b) { return {op(a.lo, b.lo), op(a.hi, b.hi)}; }
RECUR_INLINE F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
RECUR_INLINE void store(float* p, F16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
RECUR_INLINE F16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
RECUR_BOTH(add, _mm256_add_ps)
RECUR_BOTH(sub, _mm256_sub_ps)
RECUR_BOTH(mul, _mm256_mul_ps)
RECUR_BOTH(div, _mm256_div_ps)
RECUR_BOTH(min, _mm256_min_ps)
RECUR_BOTH(max, _mm256_max_ps)
#undef RECUR_BOTH
RECUR_INLINE F16 fma(F16 a, F16 b, F16 c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
RECUR_INLINE F16 nearest(F16 a) {
    constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
RECUR_INLINE F16 absolute(F16 a) {
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MAX));
    return {_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
}
RECUR_INLINE F16 with_sign(F16 a, F16 sign) {
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MIN));
    return {_mm256_or_ps(a.lo, _mm256_and_ps(sign.lo, mask)), _mm256_or_ps(a.hi, _mm256_and_ps(sign.hi, mask))};
}
RECUR_INLINE __m256 power_of_two(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(n), 23));
}
RECUR_INLINE F16 power_of_two(F16 n) { return {power_of_two(n.lo), power_of_two(n.hi)}; }
RECUR_INLINE uint32_t greater(F16 a, F16 b) {
    const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ));
    const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ));
    return static_cast<uint32_t>(lo | hi << 8);
}
RECUR_INLINE float sum(F16 a) {
    const __m256 both = _mm256_add_ps(a.lo, a.hi);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
RECUR_INLINE float largest(F16 a) {
    const __m256 both = _mm256_max_ps(a.lo, a.hi);
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

#elif defined(RECUR_NEON)

struct F16 {
    float32x4_t q[4];
};

#define RECUR_FOUR(name, op)                                   \
    RECUR_INLINE F16 name(F16 a, F16 b) {                      \
        F16 r;                                                 \
        for (int i = 0; i < 4; ++i) r.q[i] = op(a.q[i], b.q[i]); \
        return r;                                              \
    }
RECUR_INLINE F16 load(const float* p) {
    return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
RECUR_INLINE void store(float* p, F16 a) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.q[i]);
}
RECUR_INLINE F16 set1(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return {{v, v, v, v}};
}
RECUR_FOUR(add, vaddq_f32)
RECUR_FOUR(sub, vsubq_f32)
RECUR_FOUR(mul, vmulq_f32)
RECUR_FOUR(div, vdivq_f32)
RECUR_FOUR(min, vminq_f32)
RECUR_FOUR(max, vmaxq_f32)
#undef RECUR_FOUR
RECUR_INLINE F16 fma(F16 a, F16 b, F16 c) {
    F16 r;
    for (int i = 0; i < 4; ++i) r.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]);
    return r;
}
RECUR_INLINE F16 nearest(F16 a) {
    F16 r;
    for (int i = 0; i < 4; ++i) r.q[i] = vrndnq_f32(a.q[i]);
    return r;
}
RECUR_INLINE F16 absolute(F16 a) {
    F16 r;
    for (int i = 0; i < 4; ++i) r.q[i] = vabsq_f32(a.q[i]);
    return r;
}
RECUR_INLINE F16 with_sign(F16 a, F16 sign) {
    F16 r;
    for (int i = 0; i < 4; ++i) r.q[i] = vbslq_f32(vdupq_n_u32(0x80000000u), sign.q[i], a.q[i]);
    return r;
}
RECUR_INLINE F16 power_of_two(F16 n) {
    F16 r;
    for (int i = 0; i < 4; ++i) r.q[i] = vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(n.q[i]), 23));
    return r;
}
RECUR_INLINE uint32_t greater(F16 a, F16 b) {
    uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32x4_t weights = {1u, 2u, 4u, 8u};
        bits |= vaddvq_u32(vandq_u32(vcgtq_f32(a.q[i], b.q[i]), weights)) << (4 * i);
    }
    return bits;
}
RECUR_INLINE float sum(F16 a) { return vaddvq_f32(vaddq_f32(vaddq_f32(a.q[0], a.q[1]), vaddq_f32(a.q[2], a.q[3]))); }
RECUR_INLINE float largest(F16 a) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.q[0], a.q[1]), vmaxq_f32(a.q[2], a.q[3])));
}

#else

struct F16 {
    float x[16];
};

#define RECUR_EACH(name, expression)                             \
    RECUR_INLINE F16 name(F16 a, F16 b) {                        \
        F16 r;                                                   \
        for (int i = 0; i < 16; ++i) r.x[i] = expression;        \
        return r;                                                \
    }
RECUR_INLINE F16 load(const float* p) {
    F16 r;
    for (int i = 0; i < 16; ++i) r.x[i] = p[i];
    return r;
}
RECUR_INLINE void store(float* p, F16 a) {
    for (int i = 0; i < 16; ++i) p[i] = a.x[i];
}
RECUR_INLINE F16 set1(float x) {
    F16 r;
    for (int i = 0; i < 16; ++i) r.x[i] = x;
    return r;
}
RECUR_EACH(add, a.x[i] + b.x[i])
RECUR_EACH(sub, a.x[i] - b.x[i])
RECUR_EACH(mul, a.x[i] * b.x[i])
RECUR_EACH(div, a.x[i] / b.x[i])
RECUR_EACH(min, a.x[i] < b.x[i] ? a.x[i] : b.x[i])
RECUR_EACH(max, a.x[i] > b.x[i] ? a.x[i] : b.x[i])
#undef RECUR_EACH
RECUR_INLINE F16 fma(F16 a, F16 b, F16 c) {
    F16 r;
    for (int i = 0; i < 16; ++i) r.x[i] = a.x[i] * b.x[i] + c.x[i];
    return r;
}
RECUR_INLINE F16 nearest(F16 a) {
    // Adding and taking off 1.5 * 2^23 rounds numbers below 2^22 to the nearest whole one.
    F16 r;
    for (int i = 0; i < 16; ++i) {
        volatile float big = a.x[i] + 12582912.0f;
        r.x[i] = big - 12582912.0f;
    }
    return r;
}
RECUR_INLINE F16 absolute(F16 a) {
    F16 r;
    for (int i = 0; i < 16; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &a.x[i], 4);
        bits &= 0x7fffffffu;
        std::memcpy(&r.x[i], &bits, 4);
    }
    return r;
}
RECUR_INLINE F16 with_sign(F16 a, F16 sign) {
    F16 r;
    for (int i = 0; i < 16; ++i) {
        uint32_t bits, other;
        std::memcpy(&bits, &a.x[i], 4);
        std::memcpy(&other, &sign.x[i], 4);
        bits |= other & 0x80000000u;
        std::memcpy(&r.x[i], &bits, 4);
    }
    return r;
}
RECUR_INLINE F16 power_of_two(F16 n) {
    F16 r;
    for (int i = 0; i < 16; ++i) {
        uint32_t bits;
        std::memcpy(&bits, &n.x[i], 4);
        bits <<= 23;
        std::memcpy(&r.x[i], &bits, 4);
    }
    return r;
}
RECUR_INLINE uint32_t greater(F16 a, F16 b) {
    uint32_t bits = 0;
    for (int i = 0; i < 16; ++i) bits |= static_cast<uint32_t>(a.x[i] > b.x[i]) << i;
    return bits;
}
RECUR_INLINE float sum(F16 a) {
    float total = 0;
    for (int i = 0; i < 16; ++i) total += a.x[i];
    return total;
}
RECUR_INLINE float largest(F16 a) {
    float most = a.x[0];
    for (int i = 1; i < 16; ++i) most = a.x[i] > most ? a.x[i] : most;
    return most;
}

#endif

#if !defined(RECUR_AVX512)
RECUR_INLINE F16 add_where(F16 a, F16 b, uint32_t bits) {
    float x[16];
    store(x, b);
    for (int i = 0; i < 16; ++i) x[i] = (bits >> i) & 1u ? x[i] : 0.0f;
    return add(a, load(x));
}
#endif

RECUR_INLINE int ones(uint32_t bits) {
#if defined(_MSC_VER)
    int count = 0;
    for (; bits; bits &= bits - 1) ++count;
    return count;
#else
    return __builtin_popcount(bits);
#endif
}

// ------------------------------------------------------------------------------------------------ exp, tanh, sigmoid
//
// exp(x) = 2^n (1 + p), n = round(x / ln 2), p = exp(r) - 1 of the rest |r| <= ln(2) / 2 as r + r^2 q(r), q of the
// fourth degree with the smallest greatest error (3e-9, by iterated weights on 4,001 points). ln 2 is subtracted in two
// parts (Cody & Waite 1980). Adding kRound rounds to a whole number, and leaves n + 127, the exponent of 2^n, in the lowest bits.
// tanh(x) = -e / (e + 2) with e = exp(-2|x|) - 1 = 2^n p + (2^n - 1), which loses nothing near zero.
// Errors over all floats, tested in tests/test_engine_native_math.py: exp 2e-7 relative, tanh 2e-7 and sigmoid 1.2e-7
// absolute.
//
// Each comes for N vectors at a time, one operation for all of them before the next: an operation waits four cycles for
// the one before, and what waits fills the processor's queue.

constexpr float kRound = 12582912.0f + 127.0f;  // 1.5 * 2^23, where numbers lie 1 apart

// scale = 2^n and rest = p of each x, which lies within -87..88.
template <int N>
RECUR_INLINE void exponents(const F16* x, F16* scale, F16* rest) {
    F16 r[N], q[N];
    each<N>([&](auto i) RECUR_HERE { scale[i] = fma(x[i], set1(1.44269504088896341f), set1(kRound)); });
    each<N>([&](auto i) RECUR_HERE { q[i] = sub(scale[i], set1(kRound)); });
    each<N>([&](auto i) RECUR_HERE { r[i] = fma(q[i], set1(-0.693359375f), x[i]); });
    each<N>([&](auto i) RECUR_HERE { r[i] = fma(q[i], set1(2.12194440e-4f), r[i]); });
    each<N>([&](auto i) RECUR_HERE { q[i] = fma(set1(0.001381422160f), r[i], set1(0.008368899114f)); });
    each<N>([&](auto i) RECUR_HERE { q[i] = fma(q[i], r[i], set1(0.04166840389f)); });
    each<N>([&](auto i) RECUR_HERE { q[i] = fma(q[i], r[i], set1(0.1666651964f)); });
    each<N>([&](auto i) RECUR_HERE { q[i] = fma(q[i], r[i], set1(0.4999999404f)); });
    each<N>([&](auto i) RECUR_HERE { q[i] = mul(q[i], r[i]); });
    each<N>([&](auto i) RECUR_HERE { rest[i] = fma(q[i], r[i], r[i]); });
    each<N>([&](auto i) RECUR_HERE { scale[i] = power_of_two(scale[i]); });
}

// Below -87 it gives exp(-87), 1.6e-38, and above 88 exp(88), 1.7e38.
template <int N>
RECUR_INLINE void exponentials(F16* x) {
    F16 scale[N], rest[N];
    each<N>([&](auto i) RECUR_HERE { x[i] = max(set1(-87.0f), min(set1(88.0f), x[i])); });
    exponents<N>(x, scale, rest);
    each<N>([&](auto i) RECUR_HERE { x[i] = fma(scale[i], rest[i], scale[i]); });
}

// a / b for b from 1 to 1e38.
RECUR_INLINE F16 ratio(F16 a, F16 b) {
#if defined(RECUR_AVX512)
    // A division of sixteen takes sixteen cycles. 14 bits and one step of Newton's method take five: 2^-27, relative.
    const __m512 rough = _mm512_rcp14_ps(b.v);
    const __m512 rest = _mm512_fnmadd_ps(b.v, rough, _mm512_set1_ps(1.0f));
    return mul(a, F16{_mm512_fmadd_ps(rough, rest, rough)});
#else
    return div(a, b);
#endif
}

// sigmoid of the first N - T, tanh of the last T: both are a ratio of exponentials, so they go together.
template <int N, int T>
RECUR_INLINE void squash(F16* x) {
    F16 power[N], scale[N], rest[N];
    each<N>([&](auto i) RECUR_HERE {
        if constexpr (i < N - T) {
            power[i] = max(set1(-87.0f), min(set1(88.0f), sub(set1(0.0f), x[i])));
        } else {
            power[i] = mul(min(set1(10.0f), absolute(x[i])), set1(-2.0f));  // tanh(10) is 1 to the last bit
        }
    });
    exponents<N>(power, scale, rest);
    each<N>([&](auto i) RECUR_HERE {
        if constexpr (i < N - T) {
            rest[i] = add(set1(1.0f), fma(scale[i], rest[i], scale[i]));
        } else {
            power[i] = fma(scale[i], rest[i], sub(scale[i], set1(1.0f)));  // exp(-2|x|) - 1
            rest[i] = add(power[i], set1(2.0f));
        }
    });
    each<N>([&](auto i) RECUR_HERE {
        if constexpr (i < N - T) {
            x[i] = ratio(set1(1.0f), rest[i]);
        } else {
            x[i] = with_sign(ratio(sub(set1(0.0f), power[i]), rest[i]), x[i]);
        }
    });
}

RECUR_INLINE F16 hyperbolic(F16 x) {
    squash<1, 1>(&x);
    return x;
}

}  // namespace
