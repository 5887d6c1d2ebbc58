// THE vector operations: Eigen's packets under short names, and partial loads and stores for the ends of
// rows.
#pragma once

// Eigen's square root is then the processor's: rounded correctly, and that of infinity is infinity.
#define EIGEN_FAST_MATH 0
#include <Eigen/Core>

#include "kernels/common.hpp"

namespace bptt::BPTT_SET {

namespace ei = Eigen::internal;

// Vec<R>::type holds Vec<R>::size numbers of type R, as wide as the instruction set allows.
template <class R>
struct Vec {
    using type = typename ei::packet_traits<R>::type;
    static constexpr int size = ei::unpacket_traits<type>::size;
};
template <class R>
using V = typename Vec<R>::type;

template <class R>
BPTT_INLINE V<R> load(const R* from) {
    return ei::ploadu<V<R>>(from);
}
template <class R>
BPTT_INLINE void store(R* to, V<R> v) {
    ei::pstoreu<R>(to, v);
}
template <class R>
BPTT_INLINE V<R> all(R value) {
    return ei::pset1<V<R>>(value);
}

// The address as it is, in a register. Of `rows[k] + column + i` the compiler else keeps each column + i in
// one of its own, as these are the same for all k.
template <class R>
BPTT_INLINE const R* one_address(const R* address) {
#if defined(__GNUC__)
    asm("" : "+r"(address));
#endif
    return address;
}

constexpr Index kLine = 64;  // bytes of a cache's line

// Will be read soon. The address need not be valid.
template <class R>
BPTT_INLINE void ahead(const R* address) {
    ei::prefetch(address);
}

// The same, but not as soon: into L2.
BPTT_INLINE void ahead_to_l2(const char* address) { __builtin_prefetch(address, 0, 2); }

template <class R>
BPTT_INLINE void ahead_to_write(R* address) {
    __builtin_prefetch(address, 1);
}

// The first `count` lanes, 0 < count <= size; the others are zero. No byte beyond them is touched.
#if defined(__AVX512F__)
BPTT_INLINE V<float> load_first(const float* from, int count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), from);
}
BPTT_INLINE V<double> load_first(const double* from, int count) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1u), from);
}
BPTT_INLINE void store_first(float* to, V<float> v, int count) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1u), v);
}
BPTT_INLINE void store_first(double* to, V<double> v, int count) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1u), v);
}
#elif defined(__AVX2__)
BPTT_INLINE __m256i first_lanes(float, int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
BPTT_INLINE __m256i first_lanes(double, int count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
BPTT_INLINE V<float> load_first(const float* from, int count) {
    return _mm256_maskload_ps(from, first_lanes(0.0f, count));
}
BPTT_INLINE V<double> load_first(const double* from, int count) {
    return _mm256_maskload_pd(from, first_lanes(0.0, count));
}
BPTT_INLINE void store_first(float* to, V<float> v, int count) {
    _mm256_maskstore_ps(to, first_lanes(0.0f, count), v);
}
BPTT_INLINE void store_first(double* to, V<double> v, int count) {
    _mm256_maskstore_pd(to, first_lanes(0.0, count), v);
}
#else
template <class R>
BPTT_INLINE V<R> load_first(const R* from, int count) {
    alignas(64) R lanes[Vec<R>::size] = {};
    for (int i = 0; i < count; ++i) lanes[i] = from[i];
    return load(lanes);
}
template <class R>
BPTT_INLINE void store_first(R* to, V<R> v, int count) {
    alignas(64) R lanes[Vec<R>::size];
    store(lanes, v);
    for (int i = 0; i < count; ++i) to[i] = lanes[i];
}
#endif

template <class R>
BPTT_INLINE V<R> load_lanes(const R* from, int count) {
    return count >= Vec<R>::size ? load(from) : load_first(from, count);
}
template <class R>
BPTT_INLINE void store_lanes(R* to, V<R> v, int count) {
    if (count >= Vec<R>::size)
        store(to, v);
    else
        store_first(to, v, count);
}

// Lane i of row j changes places with lane j of row i.
template <class R>
BPTT_INLINE void transpose(V<R> (&rows)[Vec<R>::size]) {
    ei::PacketBlock<V<R>, Vec<R>::size> block;
    unroll<Vec<R>::size>([&](auto i) { block.packet[i] = rows[i]; });
    ei::ptranspose(block);
    unroll<Vec<R>::size>([&](auto i) { rows[i] = block.packet[i]; });
}

#if defined(__AVX512F__)
// Eigen's takes three times as many instructions. First within quarters of 128 bits, 4 x 4 floats or 2 x 2
// doubles at a time; then the quarters as wholes.
template <>
BPTT_INLINE void transpose<float>(__m512 (&rows)[16]) {
    __m512 quarters[16];  // [4*i + j]: quarter q has column 4*q + j of rows 4*i..4*i+3
    unroll<4>([&](auto i) BPTT_ALWAYS {
        const __m512d low = _mm512_castps_pd(_mm512_unpacklo_ps(rows[4 * i], rows[4 * i + 1])),
                      low_2 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[4 * i + 2], rows[4 * i + 3])),
                      high = _mm512_castps_pd(_mm512_unpackhi_ps(rows[4 * i], rows[4 * i + 1])),
                      high_2 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[4 * i + 2], rows[4 * i + 3]));
        quarters[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, low_2));
        quarters[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, low_2));
        quarters[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, high_2));
        quarters[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, high_2));
    });
    unroll<4>([&](auto j) BPTT_ALWAYS {
        const __m512 a = quarters[j], b = quarters[4 + j], c = quarters[8 + j], d = quarters[12 + j];
        const __m512 even = _mm512_shuffle_f32x4(a, b, 0x88), even_2 = _mm512_shuffle_f32x4(c, d, 0x88),
                     odd = _mm512_shuffle_f32x4(a, b, 0xdd), odd_2 = _mm512_shuffle_f32x4(c, d, 0xdd);
        rows[j] = _mm512_shuffle_f32x4(even, even_2, 0x88);
        rows[4 + j] = _mm512_shuffle_f32x4(odd, odd_2, 0x88);
        rows[8 + j] = _mm512_shuffle_f32x4(even, even_2, 0xdd);
        rows[12 + j] = _mm512_shuffle_f32x4(odd, odd_2, 0xdd);
    });
}
template <>
BPTT_INLINE void transpose<double>(__m512d (&rows)[8]) {
    __m512d quarters[8];  // [2*i + j]: quarter q has column 2*q + j of rows 2*i and 2*i+1
    unroll<4>([&](auto i) BPTT_ALWAYS {
        quarters[2 * i] = _mm512_unpacklo_pd(rows[2 * i], rows[2 * i + 1]);
        quarters[2 * i + 1] = _mm512_unpackhi_pd(rows[2 * i], rows[2 * i + 1]);
    });
    unroll<2>([&](auto j) BPTT_ALWAYS {
        const __m512d a = quarters[j], b = quarters[2 + j], c = quarters[4 + j], d = quarters[6 + j];
        const __m512d even = _mm512_shuffle_f64x2(a, b, 0x88), even_2 = _mm512_shuffle_f64x2(c, d, 0x88),
                      odd = _mm512_shuffle_f64x2(a, b, 0xdd), odd_2 = _mm512_shuffle_f64x2(c, d, 0xdd);
        rows[j] = _mm512_shuffle_f64x2(even, even_2, 0x88);
        rows[2 + j] = _mm512_shuffle_f64x2(odd, odd_2, 0x88);
        rows[4 + j] = _mm512_shuffle_f64x2(even, even_2, 0xdd);
        rows[6 + j] = _mm512_shuffle_f64x2(odd, odd_2, 0xdd);
    });
}
#endif

// sum += a*b, in the register that sum stands in: left to itself the compiler lets sums change places in an
// unrolled loop, and copies them back at its end. A macro, as a reference to sum would keep it in memory.
#if defined(__FMA__) && !defined(__AVX512F__) && defined(__GNUC__)
#define BPTT_ACCUMULATE(sum, a, b)                                                   \
    do {                                                                             \
        if constexpr (sizeof(R) == 4)                                                \
            asm("vfmadd231ps {%2, %1, %0|%0, %1, %2}" : "+x"(sum) : "x"(a), "x"(b)); \
        else                                                                         \
            asm("vfmadd231pd {%2, %1, %0|%0, %1, %2}" : "+x"(sum) : "x"(a), "x"(b)); \
    } while (false)
#else
#define BPTT_ACCUMULATE(sum, a, b) sum = ei::pmadd(a, b, sum)
#endif

// A vector with operators, so that a cell's mathematics reads as mathematics.
template <class R>
struct Lanes {
    V<R> v;

    Lanes() = default;
    BPTT_INLINE Lanes(V<R> value) : v(value) {}
    BPTT_INLINE explicit Lanes(R value) : v(all(value)) {}

    friend BPTT_INLINE Lanes operator+(Lanes a, Lanes b) { return {ei::padd(a.v, b.v)}; }
    friend BPTT_INLINE Lanes operator-(Lanes a, Lanes b) { return {ei::psub(a.v, b.v)}; }
    friend BPTT_INLINE Lanes operator*(Lanes a, Lanes b) { return {ei::pmul(a.v, b.v)}; }
    friend BPTT_INLINE Lanes operator/(Lanes a, Lanes b) { return {ei::pdiv(a.v, b.v)}; }
    friend BPTT_INLINE Lanes operator-(Lanes a) { return {ei::pnegate(a.v)}; }
};

// Whether a*b + c is rounded once.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif

// a*b + c, rounded once where the processor can.
template <class R>
BPTT_INLINE Lanes<R> fma(Lanes<R> a, Lanes<R> b, Lanes<R> c) {
    return {ei::pmadd(a.v, b.v, c.v)};
}
// c - a*b. Eigen 3.4 would spend an instruction on the sign.
template <class R>
BPTT_INLINE Lanes<R> fnma(Lanes<R> a, Lanes<R> b, Lanes<R> c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4)
        return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
    else
        return {_mm512_fnmadd_pd(a.v, b.v, c.v)};
#elif defined(__FMA__)
    if constexpr (sizeof(R) == 4)
        return {_mm256_fnmadd_ps(a.v, b.v, c.v)};
    else
        return {_mm256_fnmadd_pd(a.v, b.v, c.v)};
#else
    return {ei::pmadd(ei::pnegate(a.v), b.v, c.v)};
#endif
}
// NaN in x stays: both compare x first, as std::min and std::max do.
template <class R>
BPTT_INLINE Lanes<R> clamp(Lanes<R> x, R low, R high) {
    return {ei::pmax(ei::pmin(x.v, all(high)), all(low))};
}
template <class R>
BPTT_INLINE Lanes<R> square_root(Lanes<R> x) {
    return {ei::psqrt(x.v)};
}
template <class R>
BPTT_INLINE Lanes<R> zero_where_not_positive(Lanes<R> condition, Lanes<R> x) {
    return {ei::pand(ei::pcmp_lt(all(R(0)), condition.v), x.v)};
}
// condition > 0 ? x : y, lane by lane.
template <class R>
BPTT_INLINE Lanes<R> where_positive(Lanes<R> condition, Lanes<R> x, Lanes<R> y) {
    return {ei::pselect(ei::pcmp_lt(all(R(0)), condition.v), x.v, y.v)};
}
// The first `count` lanes of x, `rest` in the others.
template <class R>
BPTT_INLINE Lanes<R> first_or(Lanes<R> x, int count, R rest) {
    const V<R> number = ei::plset<V<R>>(R(0));
    return {ei::pselect(ei::pcmp_lt(number, all(static_cast<R>(count))), x.v, all(rest))};
}
template <class R>
BPTT_INLINE Lanes<R> maximum(Lanes<R> x, Lanes<R> y) {
    return {ei::pmax(x.v, y.v)};
}
template <class R>
BPTT_INLINE Lanes<R> absolute(Lanes<R> x) {
    return {ei::pabs(x.v)};
}
// max(x, 0), NaN stays NaN.
template <class R>
BPTT_INLINE Lanes<R> relu(Lanes<R> x) {
    return {ei::pmax(x.v, all(R(0)))};
}

// ---- across lanes ----------------------------------------------------------------------------------

template <class R>
BPTT_INLINE R largest_lane(Lanes<R> x) {
    return ei::predux_max(x.v);
}
template <class R>
BPTT_INLINE R sum_of_lanes(Lanes<R> x) {
    return ei::predux(x.v);
}

// The lower and the upper half of the lanes, in double.
BPTT_INLINE void widen(V<float> x, V<double>& lower, V<double>& upper) {
#if defined(__AVX512F__)
    lower = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
    upper = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
#elif defined(__AVX2__)
    lower = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
    upper = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
#elif defined(__SSE2__)
    lower = _mm_cvtps_pd(x);
    upper = _mm_cvtps_pd(_mm_movehl_ps(x, x));
#elif defined(__aarch64__)
    lower = vcvt_f64_f32(vget_low_f32(x));
    upper = vcvt_high_f64_f32(x);
#else
    constexpr int half = Vec<double>::size;
    static_assert(Vec<float>::size == 2 * half || Vec<float>::size == 1, "as many bytes a vector");
    float lanes[Vec<float>::size];
    double wide[2 * half] = {};
    store(lanes, x);
    for (int i = 0; i < Vec<float>::size; ++i) wide[i] = lanes[i];
    lower = load(wide);
    upper = load(wide + half);
#endif
}

// A vector of R in double: one vector, or two.
template <class R>
struct WideLanes {
    static constexpr int kParts = sizeof(R) == sizeof(double) ? 1 : 2;
    Lanes<double> part[kParts];

    WideLanes() = default;
    BPTT_INLINE explicit WideLanes(Lanes<R> x) {
        if constexpr (kParts == 1)
            part[0] = x;
        else
            widen(x.v, part[0].v, part[1].v);
    }
};

// The sum of all lanes of many vectors, in double.
class DoubleSum {
public:
    BPTT_INLINE void add(Lanes<float> x) {
        Lanes<double> lower, upper;
        widen(x.v, lower.v, upper.v);
        lower_ = lower_ + lower;
        upper_ = upper_ + upper;
    }
    BPTT_INLINE void add(Lanes<double> x) { lower_ = lower_ + x; }

    BPTT_INLINE void add_square(Lanes<float> x) {
        Lanes<double> lower, upper;
        widen(x.v, lower.v, upper.v);
        lower_ = fma(lower, lower, lower_);
        upper_ = fma(upper, upper, upper_);
    }
    BPTT_INLINE void add_square(Lanes<double> x) { lower_ = fma(x, x, lower_); }

    BPTT_INLINE double total() const { return sum_of_lanes(lower_ + upper_); }

private:
    Lanes<double> lower_{0.0}, upper_{0.0};
};

}  // namespace bptt::BPTT_SET
