// A row of numbers as exponentials that add up, which the softmax and its loss are made of.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/elementary.hpp"

namespace bptt::BPTT_SET {

constexpr Index kSoftmaxPart = 16;  // vectors whose sum is taken in R before it goes on in double

// A row's vector from j on. The last one may be a part: its other lanes are -infinity, which changes
// neither the maximum nor the sum of exponentials.
template <class R>
BPTT_INLINE Lanes<R> row_vector(const R* x, Index j, Index V) {
    if (j + Vec<R>::size <= V) return {load(x + j)};
    const int rest = static_cast<int>(V - j);
    return first_or(Lanes<R>(load_first(x + j, rest)), rest, -static_cast<R>(__builtin_inf()));
}

template <class R>
BPTT_INLINE R row_maximum(const R* x, Index V) {
    constexpr Index W = Vec<R>::size;
    const Lanes<R> lowest(-static_cast<R>(__builtin_inf()));
    Lanes<R> part[4] = {lowest, lowest, lowest, lowest};
    Index j = 0;
    for (; j + 4 * W <= V; j += 4 * W)
        unroll<4>([&](auto i) BPTT_ALWAYS { part[i] = maximum(part[i], Lanes<R>(load(x + j + i * W))); });
    for (; j < V; j += W) part[0] = maximum(part[0], row_vector(x, j, V));
    return largest_lane(maximum(maximum(part[0], part[1]), maximum(part[2], part[3])));
}

// Below it the exponential is no normal number, and taken to be zero (exp of elementary.hpp stops at its
// smallest): a class whose logit is -infinity has no probability and no gradient.
template <class R>
constexpr R kLowestExponent = sizeof(R) == 4 ? R(-87) : R(-708);

// to[j] = exp(x[j] - shift); returns their sum.
template <class R>
BPTT_INLINE double row_exponentials(const R* x, R shift, Index V, R* to) {
    constexpr Index W = Vec<R>::size;
    const Lanes<R> by(shift), lowest(kLowestExponent<R>), zero(R(0));
    DoubleSum sum;
    for (Index j = 0; j < V;) {
        Lanes<R> part(R(0));
        for (const Index stop = smaller(j + kSoftmaxPart * W, V); j < stop; j += W) {
            // The next row: otherwise its first pass waits for memory, and this one's arithmetic is over.
            __builtin_prefetch(x + V + j);
            __builtin_prefetch(to + V + j, 1);
            const Lanes<R> exponent = row_vector(x, j, V) - by;
            const Lanes<R> e = where_positive(lowest - exponent, zero, exp(exponent));
            store_lanes(to + j, e.v, static_cast<int>(smaller(V - j, W)));
            part = part + e;
        }
        sum.add(part);
    }
    return sum.total();
}

template <class R>
BPTT_INLINE void scale_row(R* row, R factor, Index V) {
    for_each_vector<R>(Range{0, V},
                       [&](int, auto get, auto put) BPTT_ALWAYS { put(row, get(row) * Lanes<R>(factor)); });
}

}  // namespace bptt::BPTT_SET
