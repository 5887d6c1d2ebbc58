// What every kernel file starts from: the namespace of the instruction set and forced inlining.
//
// These files are compiled once for each set. Everything in them lives in the namespace of its set
// (BPTT_SET, a compiler definition), so that no function of one set can stand in for another's at link
// time. For the same reason they use nothing from the standard library that is not a type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "bptt/types.hpp"

#if defined(_MSC_VER)
#define BPTT_INLINE __forceinline
#define BPTT_SHARED __declspec(noinline)
#else
#define BPTT_INLINE inline __attribute__((always_inline))
#define BPTT_SHARED __attribute__((noinline))
#endif
// BPTT_SHARED: a function stays one. What is called once a step or less is not copied into all cells' loops.

// For lambdas within the tile: a call there would send the accumulators to memory.
#define BPTT_ALWAYS __attribute__((always_inline))

// A loop of few rounds, whose number is known when it is compiled: all of them are written out, so that an
// array whose elements they name stands in registers. It costs the compiler a third of what unroll() does,
// which is for rounds that need their number as a type.
#if defined(__clang__)
#define BPTT_UNROLL(i, count) _Pragma("clang loop unroll(full)") for (int i = 0; i < (count); ++i)
#elif defined(__GNUC__)
#define BPTT_UNROLL(i, count) _Pragma("GCC unroll 32") for (int i = 0; i < (count); ++i)
#else
#define BPTT_UNROLL(i, count) for (int i = 0; i < (count); ++i)
#endif

namespace bptt::BPTT_SET {

template <class A>
BPTT_INLINE constexpr A smaller(A a, A b) {
    return b < a ? b : a;
}
template <class A>
BPTT_INLINE constexpr A larger(A a, A b) {
    return a < b ? b : a;
}
BPTT_INLINE constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// [first, last): what share `part` of `parts` is of `count` things.
struct Range {
    Index first, last;
    BPTT_INLINE Index count() const { return last - first; }
};
BPTT_INLINE Range share(Index count, Index part, Index parts) {
    if (parts == 1) return {0, count};  // a step asks often, and a division takes as long as five products
    return {count * part / parts, count * (part + 1) / parts};
}

// body(i) for i = 0..count-1, each a compile-time constant.
template <int count, int first = 0, class Body>
BPTT_INLINE void unroll(Body&& body) {
    if constexpr (first < count) {
        body(std::integral_constant<int, first>{});
        unroll<count, first + 1>(body);
    }
}

template <class R>
constexpr R factorial(int k) {
    R product = 1;
    for (int i = 2; i <= k; ++i) product *= R(i);
    return product;
}

}  // namespace bptt::BPTT_SET
