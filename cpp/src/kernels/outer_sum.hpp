// Weight gradients: dW[i][j] = sum over rows k of delta[k][i] * right[k][j], and the biases' column sums.
//
// The rows come in chunks; each chunk's sum is a chain of its own, of which the first one becomes dW (which
// need not be cleared before) and the others are added to it, so that a long sequence is summed in two
// levels. The right operands are packed once for all threads; the threads share the tiles of dW among them,
// and no element's sum is split.
#pragma once

#include "kernels/products.hpp"
#include "kernels/space.hpp"

namespace bptt::BPTT_SET {

// One right operand of a chunk.
template <class R>
struct RightOperand {
    Panels<R> panels;  // K changes from chunk to chunk; column and width are those of dW
    Space<R> data;
    Space<Panel<R>> panel;
    Index columns = 0;

    BPTT_SHARED RightOperand(Index its_columns, Index most_rows)
        : data(ceil_div(its_columns, kPanel<R>) * most_rows * kPanel<R>),
          panel(ceil_div(its_columns, kPanel<R>)),
          columns(its_columns) {
        panels.data = data.data();
        panels.panel = panel.data();
        panels.count = ceil_div(columns, kPanel<R>);
        for (Index p = 0; p < panels.count; ++p) {
            const Index column = p * kPanel<R>;
            panel[p] = {column, column, static_cast<int>(smaller<Index>(kPanel<R>, columns - column)),
                        nullptr};
        }
    }

    // This thread's share of the packing. Every thread calls it with the same rows, then they meet.
    BPTT_SHARED void pack(const R* const* rows, Index count, int thread, int threads) const {
        pack_panels(rows, count, panels.panel, share(panels.count, thread, threads), panels.data);
    }
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
        for (int i = 0; i < targets; ++i) sum += target[i].right->panels.count;
        return sum;
    }
};

// Tiles whose columns of delta are packed together: a row's columns lie in a line or two, and a panel of the
// right operand serves them all while it is near.
constexpr Index kColumnGroup = 8;
// Elements that outer_sum needs for them, of at most so many columns of K rows.
template <class R>
constexpr Index column_space(Index columns, Index K) {
    return smaller<Index>(kColumnGroup, ceil_div(columns, kTallest)) * smaller(kDepth, K) * kPack<R>;
}

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

// sums[i] = or += sum over k of packed[k][i].
template <class R>
void column_sums(const R* packed, Index K, int M, R* sums, Into into) {
    for (int lane = 0; lane < M; lane += Vec<R>::size) {
        V<R> sum = column_sum(packed + lane, K).v;
        if (into == Into::sum) sum = ei::padd(load_lanes(sums + lane, M - lane), sum);
        store_lanes(sums + lane, sum, M - lane);
    }
}

// Packs depth rows of delta: the columns of some of the block's tiles, each tile's by themselves.
template <class R>
BPTT_SHARED void pack_tiles(const R* const* delta, Index depth, const OuterBlock<R>& block, Range tiles,
                            R* space) {
    constexpr Index W = Vec<R>::size;
    Range rows[kColumnGroup];
    for (Index t = tiles.first; t < tiles.last; ++t)
        rows[t - tiles.first] = share(block.count, t, block.tiles());
    for (Index k = 0; k < depth; ++k) {
        const R* const from = delta[k] + block.column;
        for (Index t = 0; t < tiles.count(); ++t) {
            const int M = static_cast<int>(rows[t].count());
            R* const to = space + (t * depth + k) * kPack<R>;
            unroll<kPack<R> / W>([&](auto i) {
                constexpr int lane = decltype(i)::value * W;
                store(to + lane, lane < M ? load_lanes(from + rows[t].first + lane, M - lane) : all(R(0)));
            });
        }
    }
}

// Some tiles of one block with its panels, counted panel by panel through all targets: those that have a
// place in `mine`.
template <class R>
void outer_group(const OuterBlock<R>& block, Range tiles_of_group, Range mine, const R* const* delta, Index K,
                 R* space, Into into) {
    const Index heights = block.tiles(), group = tiles_of_group.count();
    // An empty sum (K = 0) is zero.
    for (Index k0 = 0; k0 == 0 || k0 < K; k0 += kDepth, into = Into::sum) {
        const Index depth = smaller(kDepth, K - k0);
        pack_tiles(delta + k0, depth, block, tiles_of_group, space);
        for (Index place = mine.first / group; place * group < mine.last; ++place) {
            const Index of_first = block.target[0].right->panels.count;
            const OuterTarget<R>& target = block.target[place < of_first ? 0 : 1];
            const Index p = place < of_first ? place : place - of_first;
            Panels<R> right = target.right->panels;
            right.K = K;
            const Range part{larger<Index>(mine.first - place * group, 0),
                             smaller(mine.last - place * group, group)};
            for (Index t = part.first; t < part.last; ++t) {
                const Range rows = share(block.count, tiles_of_group.first + t, heights);
                const int M = static_cast<int>(rows.count());
                const R* const packed = space + t * depth * kPack<R>;
                R* to[kTallest];
                for (int r = 0; r < M; ++r) to[r] = target.weight + (rows.first + r) * target.stride;
                tiles<R, true>(M, right, p, p + 1, k0, depth, &packed, to, into);
                if (p == 0 && target.bias != nullptr)
                    column_sums(packed, depth, M, target.bias + rows.first, into);
            }
        }
    }
}

// This thread's share of all blocks for a chunk of K rows, after the operands were packed. into: fresh for
// the first chunk, sum for the others. space: column_space of the widest block.
template <class R>
BPTT_SHARED void outer_sum(const OuterBlock<R>* blocks, int count, const R* const* delta, Index K, int thread,
                           int threads, R* space, Into into) {
    if (K == 0 && into == Into::sum) return;
    Index total = 0;
    for (int b = 0; b < count; ++b) total += blocks[b].tiles() * blocks[b].panels();
    const Range mine = share(total, thread, threads);
    Index at = 0;
    for (int b = 0; b < count; ++b) {
        const Index panels = blocks[b].panels(), heights = blocks[b].tiles();
        for (Index t = 0; t < heights; t += kColumnGroup) {
            const Range group{t, smaller(t + kColumnGroup, heights)};
            const Index size = group.count() * panels;
            const Range part{larger<Index>(mine.first - at, 0), smaller(mine.last - at, size)};
            if (part.first < part.last) outer_group(blocks[b], group, part, delta, K, space, into);
            at += size;
        }
    }
}

}  // namespace bptt::BPTT_SET
