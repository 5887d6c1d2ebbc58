// The elementary functions, a vector at a time: exponential, hyperbolic tangent, logistic function,
// logarithm.
//
// A step's pointwise pass is a chain of these. How long one takes from its argument to its result counts as
// much there as how many instructions it has: a processor sees some hundred of them ahead, six functions.
#pragma once

#include "kernels/vector.hpp"

namespace bptt::BPTT_SET {

// The sum of coefficient[first+i] * r^i for i < count, by pairs and, where there are more, split in halves by
// Estrin: a chain that is short. power: r, r^2, r^4, r^8.
template <int first, int count, class R>
BPTT_INLINE Lanes<R> polynomial(const R* coefficient, const Lanes<R> (&power)[4]) {
    constexpr int level = count > 8 ? 3 : count > 6 ? 2 : count > 2 ? 1 : 0;
    if constexpr (count == 1)
        return Lanes<R>(coefficient[first]);
    else
        return fma(power[level], polynomial<first + (1 << level), count - (1 << level)>(coefficient, power),
                   polynomial<first, (1 << level)>(coefficient, power));
}

// (e^r - 1 - r) / r^2 for |r| <= limit as a polynomial of `count` terms: Taylor's with several more, of which
// the highest is taken away again and again with the Chebyshev polynomial of its degree, the one that is
// smallest over the range (Lanczos 1938). That saves one term in single precision and two in double.
//
// For r = factor*u it is made a polynomial in u, and multiplied by `factor`.
template <class R, int count>
struct ExpTerms {
    R coefficient[count];

    constexpr ExpTerms(double limit, int factor) : coefficient() {
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
        double scale = factor;
        for (int k = 0; k < count; ++k, scale *= factor) coefficient[k] = static_cast<R>(term[k] * scale);
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

// Of factor*x = n*ln 2 + r with |r| <= ln(2)/2: (e^r - 1) / factor, within 3e-8 or 5e-17 of itself before
// rounding, and 2^n. The factor is 1, -1 or a power of 2, and costs nothing.
template <int factor, class R>
BPTT_INLINE Lanes<R> reduced_expm1(Lanes<R> x, Lanes<R>& scale) {
    // n*ln 2 is taken away in two pieces, high and low. Where multiply-adds round once, `high` may be ln 2
    // itself, rounded. Then `low` is so little that in single precision only the first power needs it, and
    // the others need not wait for it. Else n*high has to be exact.
    constexpr bool single = sizeof(R) == 4, whole = single && kFused;
    constexpr R ln2_high = whole    ? R(0.693147182464599609375)
                           : single ? R(0.693359375)
                                    : R(6.93147180369123816490e-01);
    constexpr R ln2_low = whole    ? R(-1.904654299957767878e-9)
                          : single ? R(-2.12194440e-4)
                                   : R(1.90821492927058770002e-10);
    constexpr int count = single ? 5 : 10;
    constexpr ExpTerms<R, count> terms(0.34658, factor);
    const Lanes<R> shifted = fma(x, Lanes<R>(R(1.44269504088896340736 * factor)), Lanes<R>(round_number<R>));
    const Lanes<R> n = shifted - Lanes<R>(round_number<R>);
    const Lanes<R> rough = fnma(n, Lanes<R>(ln2_high / factor), x);
    const Lanes<R> u = fnma(n, Lanes<R>(ln2_low / factor), rough), v = whole ? rough : u;
    const Lanes<R> v2 = v * v, v4 = v2 * v2;
    const Lanes<R> power[] = {v, v2, v4, v4 * v4};
    scale = power_from_bits(shifted);
    return fma(v2, polynomial<0, count>(terms.coefficient, power), u);
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

// Where e^x is a normal number.
template <class R>
constexpr R kLowest = sizeof(R) == 4 ? R(-87.3) : R(-708.3);
template <class R>
constexpr R kHighest = sizeof(R) == 4 ? R(88.3) : R(709.0);

template <class R>
BPTT_INLINE Lanes<R> exp(Lanes<R> x) {
    Lanes<R> scale;
    const Lanes<R> p = reduced_expm1<1>(clamp(x, kLowest<R>, kHighest<R>), scale);
    return fma(scale, p, scale);
}

// Beyond it e^x - 1 is -1 or so large that adding 2 changes nothing.
template <class R>
constexpr R kExpm1Limit = sizeof(R) == 4 ? R(20) : R(44);

// e^x - 1 for |x| <= kExpm1Limit.
template <class R>
BPTT_INLINE Lanes<R> expm1_within_limit(Lanes<R> x) {
    Lanes<R> scale;
    const Lanes<R> p = reduced_expm1<1>(clamp(x, -kExpm1Limit<R>, kExpm1Limit<R>), scale);
    return fma(scale, p, scale - Lanes<R>(R(1)));
}

// With e = (e^2x - 1) / 2 it is e / (e + 1): no cancellation near zero, none far from it.
template <class R>
BPTT_INLINE Lanes<R> tanh(Lanes<R> x) {
    const Lanes<R> half(R(0.5));
    Lanes<R> scale;
    const Lanes<R> p = reduced_expm1<2>(clamp(x, -kExpm1Limit<R> / 2, kExpm1Limit<R> / 2), scale);
    const Lanes<R> e = fma(scale, p, fma(scale, half, -half));
    return quotient(e, e + Lanes<R>(R(1)));
}

// 1 / (1 + e^-x).
template <class R>
BPTT_INLINE Lanes<R> sigmoid(Lanes<R> x) {
    const Lanes<R> one(R(1));
    Lanes<R> scale;
    const Lanes<R> p = reduced_expm1<-1>(clamp(x, -kHighest<R>, -kLowest<R>), scale);
    return quotient(one, fnma(scale, p, scale + one));
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

}  // namespace bptt::BPTT_SET
