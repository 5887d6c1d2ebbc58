// Weight gradients: dW[i][j] += sum over rows k of delta[k][i] * right[k][j], and the biases' column sums.
//
// The rows come in chunks; each chunk's sum is a chain of its own that is added to dW, so that a long
// sequence is summed in two levels. The right operands are packed once for all threads; the threads share
// the tiles of dW among them, and no element's sum is split.
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

    RightOperand(Index its_columns, Index most_rows)
        : data(ceil_div(its_columns, kPanel<R>) * most_rows * kPanel<R>),
          panel(ceil_div(its_columns, kPanel<R>)),
          columns(its_columns) {
        panels.data = data.data();
        panels.panel = panel.data();
        panels.count = ceil_div(columns, kPanel<R>);
        for (Index p = 0; p < panels.count; ++p)
            panel[p] = {p * kPanel<R>, static_cast<int>(smaller<Index>(kPanel<R>, columns - p * kPanel<R>)),
                        nullptr};
    }

    // This thread's share of the packing. Every thread calls it with the same rows, then they meet.
    void pack(const R* const* rows, Index count, int thread, int threads) const {
        const Range mine = share(panels.count, thread, threads);
        for (Index p = mine.first; p < mine.last; ++p)
            pack_columns<R, kPanel<R>>(rows, count, panel[p].column, panel[p].width,
                                       panels.data + p * count * kPanel<R>);
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

template <class R>
constexpr Index kColumnSpace = kDepth * kPack<R>;

// sums[i] += sum over k of packed[k][i], in four interleaved chains.
template <class R>
void add_column_sums(const R* packed, Index K, int M, R* sums) {
    for (int lane = 0; lane < M; lane += Vec<R>::size) {
        V<R> part[4] = {all(R(0)), all(R(0)), all(R(0)), all(R(0))};
        Index k = 0;
        for (; k + 4 <= K; k += 4)
            unroll<4>([&](auto i) { part[i] = ei::padd(part[i], load(packed + (k + i) * kPack<R> + lane)); });
        for (; k < K; ++k) part[0] = ei::padd(part[0], load(packed + k * kPack<R> + lane));
        const V<R> sum = ei::padd(ei::padd(part[0], part[1]), ei::padd(part[2], part[3]));
        store_lanes(sums + lane, ei::padd(load_lanes(sums + lane, M - lane), sum), M - lane);
    }
}

// One tile of one block: its rows of dW times panels [first, last), counted through the block's targets.
template <class R>
void outer_tile(const OuterBlock<R>& block, Range rows, Range panels, const R* const* delta, Index K,
                R* space) {
    const int M = static_cast<int>(rows.count());
    for (Index k0 = 0; k0 < K; k0 += kDepth) {
        const Index depth = smaller(kDepth, K - k0);
        pack_columns<R, kPack<R>>(delta + k0, depth, block.column + rows.first, M, space);
        Index before = 0;
        for (int i = 0; i < block.targets; ++i) {
            const OuterTarget<R>& target = block.target[i];
            Panels<R> right = target.right->panels;
            right.K = K;
            const Index first = larger<Index>(panels.first - before, 0);
            const Index last = smaller(panels.last - before, right.count);
            if (first < last) {
                R* to[kTallest];
                for (int r = 0; r < M; ++r) to[r] = target.weight + (rows.first + r) * target.stride;
                const R* packed = space;
                tiles<R, true>(M, right, first, last, k0, depth, &packed, to, Into::sum);
                if (first == 0 && target.bias != nullptr) {
                    add_column_sums(space, depth, M, target.bias + rows.first);
                }
            }
            before += right.count;
        }
    }
}

// This thread's share of all blocks for a chunk of K rows, after the operands were packed.
// space: kColumnSpace elements.
template <class R>
void outer_sum(const OuterBlock<R>* blocks, int count, const R* const* delta, Index K, int thread,
               int threads, R* space) {
    Index total = 0;
    for (int b = 0; b < count; ++b) total += blocks[b].tiles() * blocks[b].panels();
    const Range mine = share(total, thread, threads);
    Index at = 0;
    for (int b = 0; b < count; ++b) {
        const Index width = blocks[b].panels(), heights = blocks[b].tiles();
        for (Index t = 0; t < heights; ++t, at += width) {
            const Range panels{larger<Index>(mine.first - at, 0), smaller(mine.last - at, width)};
            if (panels.first >= panels.last) continue;
            outer_tile(blocks[b], share(blocks[b].count, t, heights), panels, delta, K, space);
        }
    }
}

}  // namespace bptt::BPTT_SET
