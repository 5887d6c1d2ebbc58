// A tile of dW(t) for one step after the other: each is added to dW's sum, and squared, while it is in
// registers.
//
// The tile is always whole, and its columns of delta are packed. What is beyond dW's rows or columns is a
// product with zeros, which counts only where a factor is NaN or infinite: such tiles, and those whose
// squares R can't hold, are looked at again.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/layout.hpp"
#include "kernels/outer_sum.hpp"

namespace bptt::BPTT_SET {

// The sum over k of a vector of packed[k], in four interleaved chains.
template <class R>
BPTT_INLINE Lanes<R> column_sum(const R* packed, Index K) {
    V<R> part[4] = {all(R(0)), all(R(0)), all(R(0)), all(R(0))};
    Index k = 0;
    for (; k + 4 <= K; k += 4)
        unroll<4>([&](auto i) { part[i] = ei::padd(part[i], load(packed + (k + i) * kPack<R>)); });
    for (; k < K; ++k) part[0] = ei::padd(part[0], load(packed + k * kPack<R>));
    return {ei::padd(ei::padd(part[0], part[1]), ei::padd(part[2], part[3]))};
}

template <class R>
class StepTile {
public:
    // Of M rows of dW and `width` columns.
    StepTile(int M, int width) : M_(M), width_(width) { fill<R>(sum_, kTallest * kPanel<R>, R(0)); }

    // Adds steps of m(t) rows: left [][kPack]. squares: a vector for each step, to whose lanes those of its
    // squares are added.
    void add(const R* left, Side<R> right, const Sequences& sequences, Range steps, R* squares) {
        constexpr int W = Vec<R>::size;
        const auto whole = [](const R* from, int v) BPTT_ALWAYS { return load(from + v * W); };
        const auto part = [width = width_](const R* from, int v)
                              BPTT_ALWAYS { return load_lanes(from + v * W, width - v * W); };
        if (width_ == 2 * W)
            add_vectors<2>(left, right, whole, sequences, steps, squares);
        else if (width_ > W)
            add_vectors<2>(left, right, part, sequences, steps, squares);
        else
            add_vectors<1>(left, right, part, sequences, steps, squares);
    }

    // Adds the sum of all steps to a matrix, of which `to` is the tile's first row.
    BPTT_SHARED void add_to(R* to, Index stride) const {
        const R* from = sum_;
        for (int r = 0; r < M_; ++r, from += kPanel<R>, to += stride)
            for_each_vector<R>(Range{0, width_},
                               [&](int, auto get, auto put) BPTT_ALWAYS { put(to, get(to) + get(from)); });
    }

    // The sum of its squares.
    BPTT_SHARED double squares() const {
        DoubleSum sum;
        const R* from = sum_;
        for (int r = 0; r < M_; ++r, from += kPanel<R>)
            for_each_vector<R>(Range{0, width_},
                               [&](int, auto get, auto) BPTT_ALWAYS { sum.add_square(get(from)); });
        return sum.total();
    }

private:
    // get: a vector of a row on the right.
    template <int wide, class Get>
    BPTT_SHARED void add_vectors(const R* left, Side<R> right, Get get, const Sequences& sequences,
                                 Range steps, R* squares) {
        constexpr int W = Vec<R>::size;
        const auto each = [](auto&& body) BPTT_ALWAYS {
            unroll<kTallest>([&](auto i)
                                 BPTT_ALWAYS { unroll<wide>([&](auto v) BPTT_ALWAYS { body(i, v); }); });
        };
        for (Index t = steps.first; t < steps.last; ++t, squares += W) {
            V<R> sum[kTallest][wide];
            each([&](auto i, auto v) BPTT_ALWAYS { sum[i][v] = all(R(0)); });
            for (Index k = sequences.alive(t); k > 0; --k, left += kPack<R>, right = right.from(1)) {
                V<R> rights[wide];
                unroll<wide>([&](auto v) BPTT_ALWAYS { rights[v] = get(right.of(0), v); });
                unroll<kTallest>([&](auto i) BPTT_ALWAYS {
                    const V<R> one = all(left[i]);
                    unroll<wide>([&](auto v)
                                     BPTT_ALWAYS { sum[i][v] = ei::pmadd(one, rights[v], sum[i][v]); });
                });
            }
            V<R> square[4];  // chains: what comes next waits for them
            each([&](auto i, auto v) BPTT_ALWAYS {
                R* const to = sum_ + i * kPanel<R> + v * W;
                store(to, ei::padd(load(to), sum[i][v]));
                constexpr int at = i * wide + v;
                V<R>& its = square[at % 4];
                if constexpr (at < 4)
                    its = ei::pmul(sum[i][v], sum[i][v]);
                else
                    its = ei::pmadd(sum[i][v], sum[i][v], its);
            });
            const V<R> total = ei::padd(ei::padd(square[0], square[1]), ei::padd(square[2], square[3]));
            store(squares, ei::padd(load(squares), total));
        }
    }

    alignas(64) R sum_[kTallest * kPanel<R>];
    const int M_, width_;
};

}  // namespace bptt::BPTT_SET
