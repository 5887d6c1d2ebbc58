// THE vector operations: Eigen's packets under short names, partial loads and stores for the ends of
// rows, and the activations.
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

// The sum of coefficient[first+i] * r^i for i < count, split in halves by Estrin: a step's pointwise pass
// waits for this. power: r, r^2, r^4, r^8.
template <int first, int count, class R>
BPTT_INLINE Lanes<R> polynomial(const R* coefficient, const Lanes<R> (&power)[4]) {
    constexpr int level = count > 8 ? 3 : count > 4 ? 2 : count > 2 ? 1 : 0;
    if constexpr (count == 1)
        return Lanes<R>(coefficient[first]);
    else
        return fma(power[level], polynomial<first + (1 << level), count - (1 << level)>(coefficient, power),
                   polynomial<first, (1 << level)>(coefficient, power));
}

// (e^r - 1 - r) / r^2 for |r| <= limit as a polynomial of `count` terms: Taylor's with several more, of which
// the highest is taken away again and again with the Chebyshev polynomial of its degree, the one that is
// smallest over the range (Lanczos 1938). That saves one term in single precision and two in double.
template <class R, int count>
struct ExpTerms {
    R coefficient[count];

    constexpr explicit ExpTerms(double limit) : coefficient() {
        constexpr int most = count + 6;
        double term[most] = {}, before[most + 1] = {}, power = limit / 2;
        for (int k = 0; k < most; ++k) term[k] = 1 / factorial<double>(k + 2);
        for (int k = 1; k < most - 1; ++k) power *= limit / 2;
        for (int degree = most - 1; degree >= count; --degree, power /= limit / 2) {
            // T_degree by its recurrence; power: (limit/2)^degree, so that 2*power is 1 over its leading
            // factor.
            double now[most + 1] = {0, 1};
            for (double& value : before) value = 0;
            before[0] = 1;
            for (int d = 1; d < degree; ++d)
                for (int k = most; k >= 0; --k) {
                    const double next = (k > 0 ? 2 * now[k - 1] : 0) - before[k];
                    before[k] = now[k];
                    now[k] = next;
                }
            double scale = term[degree] * 2 * power;
            for (int k = 0; k <= degree; ++k, scale /= limit) term[k] -= scale * now[k];
        }
        for (int k = 0; k < count; ++k) coefficient[k] = static_cast<R>(term[k]);
    }
};

// Added to a number of a smaller size, it leaves no room for a fraction: the sum is rounded to a whole one,
// and that stands in the sum's lowest bits.
template <class R>
constexpr R round_number = sizeof(R) == 4 ? R(12582912.0) : R(6755399441055744.0);

// 2^n for n = t - round_number<R>, from the bits of t: n stands in the lowest of them, and the shift brings
// it to where the exponent is. 2^n must be normal.
template <class R>
BPTT_INLINE Lanes<R> power_from_bits(Lanes<R> t) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4)
        return {_mm512_castsi512_ps(
            _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(t.v), 23), _mm512_set1_epi32(127 << 23)))};
    else
        return {_mm512_castsi512_pd(_mm512_add_epi64(_mm512_slli_epi64(_mm512_castpd_si512(t.v), 52),
                                                     _mm512_set1_epi64(std::int64_t{1023} << 52)))};
#elif defined(__AVX2__)
    if constexpr (sizeof(R) == 4)
        return {_mm256_castsi256_ps(
            _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t.v), 23), _mm256_set1_epi32(127 << 23)))};
    else
        return {_mm256_castsi256_pd(_mm256_add_epi64(_mm256_slli_epi64(_mm256_castpd_si256(t.v), 52),
                                                     _mm256_set1_epi64x(std::int64_t{1023} << 52)))};
#elif defined(__SSE2__)
    if constexpr (sizeof(R) == 4)
        return {_mm_castsi128_ps(
            _mm_add_epi32(_mm_slli_epi32(_mm_castps_si128(t.v), 23), _mm_set1_epi32(127 << 23)))};
    else
        return {_mm_castsi128_pd(_mm_add_epi64(_mm_slli_epi64(_mm_castpd_si128(t.v), 52),
                                               _mm_set1_epi64x(std::int64_t{1023} << 52)))};
#else
    return {ei::pldexp(all(R(1)), ei::psub(t.v, all(round_number<R>)))};
#endif
}

// x = n*ln 2 + r with |r| <= ln(2)/2: returns e^r - 1, within 3e-8 or 5e-17 of itself before rounding, and
// 2^n.
template <class R>
BPTT_INLINE Lanes<R> reduced_expm1(Lanes<R> x, Lanes<R>& scale) {
    constexpr bool single = sizeof(R) == 4;
    constexpr R ln2_high = single ? R(0.693359375) : R(6.93147180369123816490e-01);
    constexpr R ln2_low = single ? R(-2.12194440e-4) : R(1.90821492927058770002e-10);
    constexpr int count = single ? 5 : 10;
    constexpr ExpTerms<R, count> terms(0.34658);
    const Lanes<R> shifted = fma(x, Lanes<R>(R(1.44269504088896340736)), Lanes<R>(round_number<R>));
    const Lanes<R> n = shifted - Lanes<R>(round_number<R>);
    const Lanes<R> r = fnma(n, Lanes<R>(ln2_low), fnma(n, Lanes<R>(ln2_high), x));
    const Lanes<R> r2 = r * r, r4 = r2 * r2;
    const Lanes<R> power[] = {r, r2, r4, r4 * r4};
    scale = power_from_bits(shifted);
    return fma(r2, polynomial<0, count>(terms.coefficient, power), r);
}

// a / b for b that is normal (or NaN), within an ulp. A division of sixteen floats takes
// sixteen cycles, an estimate of the reciprocal and one Newton step a third of that.
template <class R>
BPTT_INLINE Lanes<R> quotient(Lanes<R> a, Lanes<R> b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(R) == 4) {
        const Lanes<R> reciprocal(_mm512_rcp14_ps(b.v));
        const Lanes<R> estimate = a * reciprocal;
        return fma(fnma(b, estimate, a), reciprocal, estimate);
    }
#endif
    return a / b;
}

template <class R>
BPTT_INLINE Lanes<R> exp(Lanes<R> x) {
    constexpr R low = sizeof(R) == 4 ? R(-87.3) : R(-708.3), high = sizeof(R) == 4 ? R(88.3) : R(709.0);
    Lanes<R> scale;
    const Lanes<R> p = reduced_expm1(clamp(x, low, high), scale);
    return fma(scale, p, scale);
}

// e^x - 1 for |x| <= limit, beyond which it is -1 or so large that adding 2 changes nothing.
template <class R>
constexpr R kExpm1Limit = sizeof(R) == 4 ? R(20) : R(44);

template <class R>
BPTT_INLINE Lanes<R> expm1_within_limit(Lanes<R> x) {
    Lanes<R> scale;
    const Lanes<R> p = reduced_expm1(clamp(x, -kExpm1Limit<R>, kExpm1Limit<R>), scale);
    return fma(scale, p, scale - Lanes<R>(R(1)));
}

// (e^2x - 1) / (e^2x - 1 + 2): no cancellation near zero, none far from it.
template <class R>
BPTT_INLINE Lanes<R> tanh(Lanes<R> x) {
    const Lanes<R> e = expm1_within_limit(x + x);
    return quotient(e, e + Lanes<R>(R(2)));
}

template <class R>
BPTT_INLINE Lanes<R> sigmoid(Lanes<R> x) {
    const Lanes<R> one(R(1));
    return quotient(one, one + exp(-x));
}

template <class R>
BPTT_INLINE Lanes<R> log(Lanes<R> x) {
    return {ei::plog(x.v)};
}

// log(1 + x) for 0 <= x <= 1, by 2 artanh(x / (2 + x)): its argument is at most 1/3, and the first
// missing term below half an ulp.
template <class R>
BPTT_INLINE Lanes<R> log1p_of_fraction(Lanes<R> x) {
    constexpr int terms = sizeof(R) == 4 ? 8 : 17;
    const Lanes<R> s = x / (x + Lanes<R>(R(2))), square = s * s;
    Lanes<R> p(R(1) / R(2 * terms - 1));
    unroll<terms - 1>([&](auto i) {
        constexpr int k = terms - 2 - decltype(i)::value;
        p = fma(p, square, Lanes<R>(R(1) / R(2 * k + 1)));
    });
    return (s + s) * p;
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
