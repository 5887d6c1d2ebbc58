// A tile of a weight gradient: dW[i][j] = sum over rows k of left[k][i] * right[k][j].
//
// One k's values of all rows of the tile stand together, so none needs an address of its own: a tile has as
// many rows as keep their sums in registers. Both sides may be read where their rows stand.
#pragma once

#include "kernels/products.hpp"

namespace bptt::BPTT_SET {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTallest = 14;
#else
constexpr int kTallest = 6;
#endif

// A low tile would take a small part of each line of delta, again and again: its columns are packed.
constexpr bool kPacksLeft = kTallest < 8;

enum class Into {
    fresh,  // the sum becomes dW
    sum     // or is added to it
};

// K rows of one side, from element `at` of each on.
template <class R>
struct Side {
    const R* const* row;
    Index at;

    BPTT_INLINE const R* of(Index k) const { return one_address(row[k] + at); }
    BPTT_INLINE Side from(Index k) const { return {row + k, at}; }
};

// How many k it reads ahead on the right, whose rows' list goes on as far.
constexpr Index kAhead = 10;

// M rows of dW, `stride` apart, and `width` columns, in so many vectors. On the right whole vectors are read.
template <class R, int M, int wide>
BPTT_SHARED void outer_tile(Side<R> left, Side<R> right, Index K, R* to, Index stride, int width, Into into) {
    constexpr int W = Vec<R>::size;
    V<R> sum[M][wide];
    BPTT_UNROLL (i, M)
        BPTT_UNROLL (v, wide) sum[i][v] = all(R(0));
    // dW is needed at the end: its lines are asked for now.
    BPTT_UNROLL (i, M)
        BPTT_UNROLL (v, wide) ahead_to_write(to + i * stride + v * W);

    const auto rounds = [&](auto number, Index k) BPTT_ALWAYS {
        constexpr int at_once = decltype(number)::value;
        for (; k + at_once <= K; k += at_once) {
            BPTT_UNROLL (further, at_once) {
                const R *const lefts = left.of(k + further), *const its = right.of(k + further);
                V<R> rights[wide];
                BPTT_UNROLL (v, wide) rights[v] = load(its + v * W);
                BPTT_UNROLL (i, M) {
                    const V<R> one = all(lefts[i]);
                    BPTT_UNROLL (v, wide) BPTT_ACCUMULATE(sum[i][v], one, rights[v]);
                }
                if constexpr (M > kMostRows) {
                    const R* const later = right.of(k + further + kAhead);
                    BPTT_UNROLL (v, wide) ahead(later + v * W);
                }
            }
        }
        return k;
    };
    constexpr std::integral_constant<int, round_of(M, wide)> several{};
    const Index k = rounds(several, 0);
    if constexpr (several > 1) rounds(std::integral_constant<int, 1>{}, k);

    BPTT_UNROLL (v, wide) {
        const int lanes = width - v * W;
        BPTT_UNROLL (i, M) {
            R* const its = to + i * stride + v * W;
            store_lanes(its, into == Into::sum ? ei::padd(load_lanes(its, lanes), sum[i][v]) : sum[i][v],
                        lanes);
        }
    }
}

template <class R, int M = kTallest>
BPTT_INLINE void outer_tile(int rows, Side<R> left, Side<R> right, Index K, R* to, Index stride, int width,
                            Into into) {
    if constexpr (M >= 1) {
        if (rows != M)
            outer_tile<R, M - 1>(rows, left, right, K, to, stride, width, into);
        else if (width > Vec<R>::size)
            outer_tile<R, M, 2>(left, right, K, to, stride, width, into);
        else
            outer_tile<R, M, 1>(left, right, K, to, stride, width, into);
    }
}

}  // namespace bptt::BPTT_SET
