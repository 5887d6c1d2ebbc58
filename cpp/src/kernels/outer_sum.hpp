// Weight gradients: dW[i][j] = sum over rows k of delta[k][i] * right[k][j], and the biases' column sums.
//
// The rows come in chunks; each chunk's sum is a chain of its own, of which the first one becomes dW (which
// need not be cleared before) and the others are added to it, so that a long sequence is summed in two
// levels. The right operands are prepared once for all threads; the threads share the tiles of dW among them,
// and no element's sum is split.
#pragma once

#include "kernels/outer_tile.hpp"
#include "kernels/space.hpp"

namespace bptt::BPTT_SET {

// One right operand of a chunk, in panels of columns. Whole panels of short rows are read where they stand:
// their lines stay near. Those of longer rows are packed, and what is less than a panel.
template <class R>
class RightOperand {
public:
    const Index columns;

    BPTT_SHARED RightOperand(Index its_columns, Index most_rows)
        : columns(its_columns),
          standing_(columns * Index{sizeof(R)} <= kShortRow ? columns / kPanel<R> : 0),
          row_(standing_ > 0 ? most_rows + kAhead : 0),
          packed_row_(standing_ < panels() ? most_rows + kAhead : 0),
          data_((panels() - standing_) * most_rows * kPanel<R>),
          panel_(panels() - standing_) {
        for (Index p = standing_; p < panels(); ++p)
            panel_[p - standing_] = {p * kPanel<R>, p * kPanel<R>, width(p), nullptr};
        if (standing_ == panels()) return;
        for (Index k = 0; k < most_rows + kAhead; ++k) packed_row_[k] = data_.data() + k * kPanel<R>;
    }

    // This thread's share of what is to be done for K rows. Every thread calls it with the same ones, then
    // they meet.
    BPTT_SHARED void prepare(const R* const* rows, Index K, int thread, int threads) const {
        if (K == 0) return;
        if (standing_ > 0 && thread == 0)
            for (Index k = 0; k < K + kAhead; ++k) row_[k] = rows[smaller(k, K - 1)];
        pack_panels(rows, K, panel_.data(), share(panels() - standing_, thread, threads), data_.data());
    }

    Index panels() const { return ceil_div(columns, kPanel<R>); }
    int width(Index p) const { return static_cast<int>(smaller<Index>(kPanel<R>, columns - p * kPanel<R>)); }
    // Panel p of K rows.
    Side<R> panel(Index p, Index K) const {
        if (p < standing_) return {row_.data(), p * kPanel<R>};
        return {packed_row_.data(), (p - standing_) * K * kPanel<R>};
    }

private:
    static constexpr Index kShortRow = 512;  // bytes

    const Index standing_;  // panels that are read where they stand: the first ones
    const Space<const R*> row_, packed_row_;
    const Space<R> data_;
    const Space<Panel<R>> panel_;
};

// dW of some neighbouring columns of delta with one right operand.
template <class R>
struct OuterTarget {
    const RightOperand<R>* right;
    R* weight;     // dW of the first column
    Index stride;  // of its rows
    R* bias;       // db of the first column, or null
};

// Neighbouring columns of delta, multiplied with up to two operands.
template <class R>
struct OuterBlock {
    Index column, count;
    OuterTarget<R> target[2];
    int targets;

    Index tiles() const { return ceil_div(count, kTallest); }
    Index panels() const {
        Index sum = 0;
        for (int i = 0; i < targets; ++i) sum += target[i].right->panels();
        return sum;
    }
};

// Tiles that a panel of the right operand serves while it is near: a line or two of each row of delta.
constexpr Index kColumnGroup = 8;

// The biases' gradients of some neighbouring vectors of a block's columns, the same for all targets.
template <class R, int vectors>
BPTT_SHARED void column_sums(const OuterBlock<R>& block, Index vector, const R* const* delta, Index K,
                             Into into) {
    constexpr int W = Vec<R>::size;
    const Index first = vector * W;
    const auto lanes = [&](int v) BPTT_ALWAYS { return static_cast<int>(block.count - first) - v * W; };
    const auto sum_of = [&](auto get) BPTT_ALWAYS {
        V<R> sum[2][vectors];  // chains: of even rows, of odd ones
        BPTT_UNROLL (v, vectors) sum[0][v] = sum[1][v] = all(R(0));
        Index k = 0;
        for (; k + 2 <= K; k += 2)
            BPTT_UNROLL (i, 2)
                BPTT_UNROLL (v, vectors)
                    sum[i][v] = ei::padd(sum[i][v], get(delta[k + i] + block.column + first, v));
        if (k < K)
            BPTT_UNROLL (v, vectors) sum[0][v] = ei::padd(sum[0][v], get(delta[k] + block.column + first, v));
        BPTT_UNROLL (v, vectors) {
            const V<R> both = ei::padd(sum[0][v], sum[1][v]);
            for (int i = 0; i < block.targets; ++i) {
                if (block.target[i].bias == nullptr) continue;
                R* const to = block.target[i].bias + first + v * W;
                store_lanes(to, into == Into::sum ? ei::padd(load_lanes(to, lanes(v)), both) : both,
                            lanes(v));
            }
        }
    };
    if (lanes(vectors - 1) >= W)
        sum_of([](const R* row, int v) BPTT_ALWAYS { return load(row + v * W); });
    else
        sum_of([&](const R* row, int v) BPTT_ALWAYS { return load_lanes(row + v * W, lanes(v)); });
}

// This thread's share of them.
template <class R>
void bias_sums(const OuterBlock<R>& block, const R* const* delta, Index K, int thread, int threads,
               Into into) {
    bool any = false;
    for (int i = 0; i < block.targets; ++i) any = any || block.target[i].bias != nullptr;
    if (!any) return;
    constexpr int at_once = 4;
    const Range mine = share(ceil_div(block.count, Vec<R>::size), thread, threads);
    Index v = mine.first;
    for (; v + at_once <= mine.last; v += at_once) column_sums<R, at_once>(block, v, delta, K, into);
    for (; v < mine.last; ++v) column_sums<R, 1>(block, v, delta, K, into);
}

// Some tiles of one block with its panels, counted panel by panel through all targets: those that have a
// place in `mine`.
template <class R>
void outer_group(const OuterBlock<R>& block, Range tiles_of_group, Range mine, const R* const* delta, Index K,
                 Into into) {
    const Index heights = block.tiles(), group = tiles_of_group.count();
    // An empty sum (K = 0) is zero.
    for (Index k0 = 0; k0 == 0 || k0 < K; k0 += kDepth, into = Into::sum) {
        const Index depth = smaller(kDepth, K - k0);
        for (Index place = mine.first / group; place * group < mine.last; ++place) {
            const Index of_first = block.target[0].right->panels();
            const OuterTarget<R>& target = block.target[place < of_first ? 0 : 1];
            const Index p = place < of_first ? place : place - of_first;
            const Side<R> right = target.right->panel(p, K).from(k0);
            const Range part{larger<Index>(mine.first - place * group, 0),
                             smaller(mine.last - place * group, group)};
            for (Index t = part.first; t < part.last; ++t) {
                const Range rows = share(block.count, tiles_of_group.first + t, heights);
                outer_tile<R>(static_cast<int>(rows.count()), {delta + k0, block.column + rows.first}, right,
                              depth, target.weight + rows.first * target.stride + p * kPanel<R>,
                              target.stride, target.right->width(p), into);
            }
        }
    }
}

// This thread's share of all blocks for a chunk of K rows, after the operands were prepared. into: fresh for
// the first chunk, sum for the others.
template <class R>
BPTT_SHARED void outer_sum(const OuterBlock<R>* blocks, int count, const R* const* delta, Index K, int thread,
                           int threads, Into into) {
    if (K == 0 && into == Into::sum) return;
    Index total = 0;
    for (int b = 0; b < count; ++b) total += blocks[b].tiles() * blocks[b].panels();
    const Range mine = share(total, thread, threads);
    Index at = 0;
    for (int b = 0; b < count; ++b) {
        bias_sums(blocks[b], delta, K, thread, threads, into);
        const Index panels = blocks[b].panels(), heights = blocks[b].tiles();
        for (Index t = 0; t < heights; t += kColumnGroup) {
            const Range group{t, smaller(t + kColumnGroup, heights)};
            const Index size = group.count() * panels;
            const Range part{larger<Index>(mine.first - at, 0), smaller(mine.last - at, size)};
            if (part.first < part.last) outer_group(blocks[b], group, part, delta, K, into);
            at += size;
        }
    }
}

}  // namespace bptt::BPTT_SET
