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
// their lines stay near. Those of longer rows are packed, and the rest that is less than a panel.
template <class R>
class RightOperand {
public:
    const Index columns;

    // beside: another operand with as many rows, in whose panel this one's rest may stand too.
    BPTT_SHARED RightOperand(Index its_columns, Index most_rows, const RightOperand* beside = nullptr)
        : columns(its_columns),
          stands_(columns * Index{sizeof(R)} <= kShortRow),
          beside_(beside != nullptr && saves_a_vector(rest(), beside->rest()) ? beside : nullptr),
          before_whole_(rest() > 0 && beside_ == nullptr ? most_rows * kPanel<R> : 0),
          data_(before_whole_ + (stands_ ? 0 : whole() * most_rows * kPanel<R>)),
          row_(stands_ && whole() > 0 ? most_rows + kAhead : 0),
          packed_row_(data_.data() != nullptr ? most_rows + kAhead : 0),
          panel_(stands_ ? 0 : whole()) {
        for (Index p = 0; !stands_ && p < whole(); ++p)
            panel_[p] = {p * kPanel<R>, p * kPanel<R>, kPanel<R>, nullptr};
        if (data_.data() == nullptr) return;
        for (Index k = 0; k < most_rows + kAhead; ++k) packed_row_[k] = data_.data() + k * kPanel<R>;
        fill<R>(data_.data(), before_whole_, R(0));
    }

    // This thread's share of what is to be done for K rows. Every thread calls it with the same ones, then
    // they meet.
    BPTT_SHARED void prepare(const R* const* rows, Index K, int thread, int threads) const {
        if (thread == 0 && stands_ && whole() > 0 && K > 0)
            for (Index k = 0; k < K + kAhead; ++k) row_[k] = rows[smaller(k, K - 1)];
        if (!stands_)
            pack_panels(rows, K, panel_.data(), share(whole(), thread, threads),
                        data_.data() + before_whole_);
        constexpr int W = Vec<R>::size;
        if (thread + 1 == threads)
            for (int first = 0; first < rest(); first += W)
                pack_rest(rows, K, first, smaller(W, rest() - first));
    }

    // How many whole panels there are, and how many columns beyond them.
    Index whole() const { return columns / kPanel<R>; }
    int rest() const { return static_cast<int>(columns % kPanel<R>); }
    Index panels() const { return ceil_div(columns, kPanel<R>); }
    int width(Index p) const { return p < whole() ? kPanel<R> : rest(); }
    // Panel p of K rows.
    Side<R> panel(Index p, Index K) const {
        if (p == whole() && beside_ != nullptr) return {beside_->packed_row_.data(), beside_->rest()};
        if (p == whole()) return {packed_row_.data(), 0};
        if (stands_) return {row_.data(), p * kPanel<R>};
        return {packed_row_.data(), before_whole_ + p * K * kPanel<R>};
    }
    // Whether the other one's rest stands behind this one's.
    bool precedes(const RightOperand& other) const { return other.beside_ == this; }

private:
    static constexpr Index kShortRow = 512;  // bytes

    static bool saves_a_vector(int a, int b) {
        const auto vectors = [](int lanes) { return ceil_div(lanes, Vec<R>::size); };
        return a > 0 && b > 0 && a + b <= kPanel<R> && vectors(a + b) < vectors(a) + vectors(b);
    }
    // `lanes` columns of the rest, which are no more than a vector.
    void pack_rest(const R* const* rows, Index K, int first, int lanes) const {
        const Index from = whole() * kPanel<R> + first;
        R* to = beside_ != nullptr ? beside_->data_.data() + beside_->rest() + first : data_.data() + first;
        for (Index k = 0; k < K; ++k, to += kPanel<R>)
            store_lanes(to, load_lanes(rows[k] + from, lanes), lanes);
    }

    const bool stands_;  // whole panels are read where they stand
    const RightOperand* const beside_;
    const Index before_whole_;  // elements of the rest's panel, which is the first one
    const Space<R> data_;
    const Space<const R*> row_, packed_row_;
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

// What one panel is multiplied for: columns of a target, or of both, one behind the other.
template <class R>
struct OuterPanel {
    struct Piece {
        const OuterTarget<R>* target;
        Index column;
        int width;
    };
    Side<R> right;
    int width;
    Piece piece[2];
    int pieces;
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
        return rests_beside() ? sum - 1 : sum;
    }
    // The whole ones of all targets, then the rests. K: rows.
    OuterPanel<R> panel(Index place, Index K) const {
        for (int i = 0; i < targets; place -= target[i++].right->whole())
            if (place < target[i].right->whole()) return of_target(i, place, K);
        if (rests_beside()) {
            const int first = target[0].right->precedes(*target[1].right) ? 0 : 1;
            OuterPanel<R> both = of_target(first, target[first].right->whole(), K);
            const OuterPanel<R> second = of_target(1 - first, target[1 - first].right->whole(), K);
            both.width += second.width;
            both.piece[both.pieces++] = second.piece[0];
            return both;
        }
        const int i = place == 0 && target[0].right->rest() > 0 ? 0 : 1;
        return of_target(i, target[i].right->whole(), K);
    }

private:
    bool rests_beside() const {
        return targets == 2 &&
               (target[0].right->precedes(*target[1].right) || target[1].right->precedes(*target[0].right));
    }
    OuterPanel<R> of_target(int i, Index p, Index K) const {
        const RightOperand<R>& right = *target[i].right;
        return {right.panel(p, K), right.width(p), {{&target[i], p * kPanel<R>, right.width(p)}, {}}, 1};
    }
};

// Tiles that a panel of the right operand serves while it is near: a line or two of each row of delta.
constexpr Index kColumnGroup = 8;

// Columns of a packed tile.
template <class R>
constexpr int kPack = static_cast<int>((kTallest + Vec<R>::size - 1) / Vec<R>::size) * Vec<R>::size;

// Packs depth rows of delta: the columns of some of the block's tiles, each tile's by themselves, [][kPack].
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

// What a thread needs to pack in.
template <class R>
struct LeftSpace {
    Space<R> packed;
    Space<const R*> row;

    // Of blocks of so many columns at most, and K rows.
    BPTT_SHARED LeftSpace(Index columns, Index K)
        : packed(kPacksLeft ? smaller<Index>(kColumnGroup, ceil_div(columns, kTallest)) * smaller(kDepth, K) *
                                  kPack<R>
                            : 0),
          row(kPacksLeft ? smaller(kDepth, K) : 0) {
        for (Index k = 0; kPacksLeft && k < smaller(kDepth, K); ++k) row[k] = packed.data() + k * kPack<R>;
    }
};

// The biases' gradients of some neighbouring vectors of a block's columns, the same for all targets; a single
// one may have fewer columns.
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
    if constexpr (vectors == 1)
        sum_of([&](const R* row, int) BPTT_ALWAYS { return load_lanes(row, lanes(0)); });
    else
        sum_of([](const R* row, int v) BPTT_ALWAYS { return load(row + v * W); });
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
    for (; v + at_once <= mine.last && (v + at_once) * Vec<R>::size <= block.count; v += at_once)
        column_sums<R, at_once>(block, v, delta, K, into);
    for (; v < mine.last; ++v) column_sums<R, 1>(block, v, delta, K, into);
}

// A tile of one panel, whose rows of dW are `rows` of the block. A panel of two targets goes by way of a tile
// of its own.
template <class R>
BPTT_INLINE void outer_tile_of(const OuterPanel<R>& panel, Range rows, Side<R> left, Side<R> right, Index K,
                               Into into) {
    const auto place = [&](const typename OuterPanel<R>::Piece& its) BPTT_ALWAYS {
        return its.target->weight + rows.first * its.target->stride + its.column;
    };
    const int M = static_cast<int>(rows.count());
    if (panel.pieces == 1)
        return outer_tile<R>(M, left, right, K, place(panel.piece[0]), panel.piece[0].target->stride,
                             panel.width, into);
    alignas(64) R tile[kTallest * kPanel<R>];
    outer_tile<R>(M, left, right, K, tile, kPanel<R>, panel.width, Into::fresh);
    const R* from = tile;
    for (const auto& its : panel.piece) {
        R* to = place(its);
        for (int r = 0; r < M; ++r, to += its.target->stride)
            for (int lane = 0; lane < its.width; lane += Vec<R>::size) {
                const int lanes = its.width - lane;
                const V<R> sum = load_lanes(from + r * kPanel<R> + lane, lanes);
                store_lanes(to + lane, into == Into::sum ? ei::padd(load_lanes(to + lane, lanes), sum) : sum,
                            lanes);
            }
        from += its.width;
    }
}

// Some tiles of one block with its panels, counted panel by panel: those that have a place in `mine`.
template <class R>
void outer_group(const OuterBlock<R>& block, Range tiles_of_group, Range mine, const R* const* delta, Index K,
                 const LeftSpace<R>& space, Into into) {
    const Index heights = block.tiles(), group = tiles_of_group.count();
    // An empty sum (K = 0) is zero.
    for (Index k0 = 0; k0 == 0 || k0 < K; k0 += kDepth, into = Into::sum) {
        const Index depth = smaller(kDepth, K - k0);
        if (kPacksLeft) pack_tiles(delta + k0, depth, block, tiles_of_group, space.packed.data());
        for (Index place = mine.first / group; place * group < mine.last; ++place) {
            const OuterPanel<R> panel = block.panel(place, K);
            const Range part{larger<Index>(mine.first - place * group, 0),
                             smaller(mine.last - place * group, group)};
            for (Index t = part.first; t < part.last; ++t) {
                const Range rows = share(block.count, tiles_of_group.first + t, heights);
                const Side<R> left = kPacksLeft ? Side<R>{space.row.data(), t * depth * kPack<R>}
                                                : Side<R>{delta + k0, block.column + rows.first};
                outer_tile_of(panel, rows, left, panel.right.from(k0), depth, into);
            }
        }
    }
}

// This thread's share of all blocks for a chunk of K rows, after the operands were prepared. into: fresh for
// the first chunk, sum for the others. space: for the widest block.
template <class R>
BPTT_SHARED void outer_sum(const OuterBlock<R>* blocks, int count, const R* const* delta, Index K, int thread,
                           int threads, const LeftSpace<R>& space, Into into) {
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
            if (part.first < part.last) outer_group(blocks[b], group, part, delta, K, space, into);
            at += size;
        }
    }
}

}  // namespace bptt::BPTT_SET
