// The norm of each step's own share of a weight gradient, dW(t) = delta_t^T right_t over the step's m rows.
//
// By count of what it adds to a backward pass, which multiplies some 2 m G*H (H+D) times a step:
//   by pairs     |dW(t)|^2 is the sum over pairs (n, k) of (delta_n . delta_k)(right_n . right_k): m(m+1)/2
//                dot products of rows as they stand, m^2/2 (G*H + H + D) multiplications, and no dW(t).
//   by product   dW is the sum of the dW(t), so the same multiplications give both where a chunk's product
//                ends at each step: none more, but G*H (H+D) numbers are squared and added once a step,
//                from the registers that they are in (step_tile.hpp).
// Few sequences go by pairs, many (and where dW(t) itself is wanted) by product.
#pragma once

#include "kernels/dots.hpp"
#include "kernels/step_tile.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

template <class R>
class StepNorms {
public:
    // Of a call whose dW is this sum (WeightSum), at most `chunk` steps at a time, by `threads` threads.
    template <class Sum>
    BPTT_SHARED StepNorms(int, const kernels::TraceArgs<R>& trace, const Dims& dims,
                          const Sequences& sequences, const Sum& sum, Index chunk, int threads)
        : trace_(trace),
          N_(dims.N),
          sequences_(sequences),
          blocks_(sum.blocks),
          count_(sum.count),
          x_(&sum.x),
          GH_(rows_of_gradient()),
          chunk_(chunk),
          by_product_(trace.weight_hh != nullptr || cheaper_by_product()),
          tiles_(tiles_of(blocks_, count_)),
          tile_(tiles_),
          squares_(by_product_ ? tiles_ * chunk : 0),
          room_(threads * room()),
          dots_(by_product_ ? 0 : threads * pairs()) {
        list_tiles();
    }

    bool by_product() const { return by_product_; }

    // ---- by product --------------------------------------------------------------------------------------

    // In place of outer_sum: this thread's share of dW of the K rows of steps t0..t1-1, and of what each
    // step's share of it squares to.
    BPTT_SHARED void sum(const R* const* delta, Index K, Index t0, Index t1, int thread, int threads) const {
        const Range mine = share(tiles_, thread, threads);
        R* const packed = room_.data() + thread * room();
        R* const squares = packed + tiles_of_group() * most_rows() * kPack<R>;
        const Index steps = (t1 - t0) * kLanes;  // squares of a tile
        for (Index first = mine.first; first < mine.last;) {
            const Tile* const tile = &tile_[first];
            const Range group = tile->group;
            const Index count = smaller(group.last - tile->row, mine.last - first);
            const auto left = [&](Index i) { return packed + (tile[i].row - group.first) * K * kPack<R>; };
            if (first == mine.first || tile->target == tile->block->target)
                pack_tiles(delta, K, *tile->block, group, packed);
            fill<R>(squares, count * steps, R(0));
            // A panel serves some tiles while it is near.
            for (Index p = 0; p < tile->target->right->panels(); ++p)
                for (Index i = 0; i < count; ++i)
                    sum_panel(tile[i], p, left(i), K, {t0, t1}, squares + i * steps);
            for (Index i = 0; i < count; ++i) {
                sum_squares(tile[i], left(i), K, {t0, t1}, squares + i * steps, squares_of(first + i));
                if (has_bias(tile[i])) sum_bias(tile[i], left(i), {t0, t1}, squares_of(first + i));
            }
            first += count;
        }
    }

    // Once all threads have done their share: the norms of step t.
    BPTT_SHARED void note(Index t, Index t0) const {
        double sum[4] = {};
        for (Index i = 0; i < tiles_; ++i)
            for (int j = 0; j < 4; ++j) sum[j] += squares_of(i)[t - t0].sum[j];
        roots(sum, t);
    }

    // ---- by pairs ----------------------------------------------------------------------------------------

    // The norms of step t. delta: its m rows; right(b, i, r): what row r is multiplied with for that target.
    template <class Right>
    void by_pairs(Index t, const R* const* delta, Index m, Right&& right, const R** rows, int thread) const {
        double to[4] = {};
        double* const dots = dots_.data() + thread * pairs();
        for (int b = 0; b < count_; ++b) {
            const OuterBlock<R>& block = blocks_[b];
            dots_of(delta, m, block, dots);
            const double of_bias = column_squares(delta, m, block, thread);
            for (int i = 0; i < block.targets; ++i) {
                for (Index r = 0; r < m; ++r) rows[r] = right(b, i, r);
                const int which = kind(block.target[i]);
                to[which] += sum_of_dots(rows, m, block.target[i].right->columns, dots);
                to[which + 2] += of_bias;
            }
        }
        roots(to, t);
    }

private:
    // Cycles of either way beyond a plain pass, as measured: a pair's vectors, and the sums of its lanes; a
    // tile's squares and sums, and what a row of tiles ends with.
    BPTT_SHARED bool cheaper_by_product() const {
        double elements = 0, dots = 0, tiles = 0, heights = 0;
        for (int b = 0; b < count_; ++b) {
            const OuterBlock<R>& block = blocks_[b];
            elements += static_cast<double>(block.count);
            for (int i = 0; i < block.targets; ++i)
                elements += static_cast<double>(block.target[i].right->columns);
            dots += 1 + block.targets;
            tiles += static_cast<double>(block.tiles() * block.panels());
            heights += static_cast<double>(block.tiles() * block.targets);
        }
        const double N = static_cast<double>(N_), vector = Vec<R>::size;
        return N * (N + 1) / 2 * (2.8 * elements / vector + 18 * dots) > 28 * tiles + 35 * heights;
    }

    // Of a tile's rows at one step, in the norms' order: of its weight, and of all biases that come from its
    // columns of delta.
    struct Squares {
        double sum[4];
    };

    // Some rows of a target.
    struct Tile {
        const OuterBlock<R>* block;
        const OuterTarget<R>* target;
        Range group;  // tiles of the block whose columns of delta are packed together
        Index row;    // which of the block's tiles it is
        Range rows;
    };

    // A block's by group, and in a group those of its first target, then of its second.
    BPTT_SHARED void list_tiles() {
        Tile* to = tile_.data();
        for (int b = 0; b < count_; ++b) {
            const OuterBlock<R>& block = blocks_[b];
            const Index heights = block.tiles();
            for (Index t = 0; t < heights; t += tiles_of_group()) {
                const Range group{t, smaller(t + tiles_of_group(), heights)};
                for (int i = 0; i < block.targets; ++i)
                    for (Index row = group.first; row < group.last; ++row)
                        *to++ = {&block, &block.target[i], group, row, share(block.count, row, heights)};
            }
        }
    }
    // Of those with the same columns of delta the one that sums them for the bias.
    static bool has_bias(const Tile& tile) { return tile.target == tile.block->target; }

    // dW_ih (0) or dW_hh (1): the place of its norm.
    int kind(const OuterTarget<R>& target) const { return target.right == x_ ? 0 : 1; }
    // Which row of the whole dW is its first.
    Index first_row(const OuterTarget<R>& target) const {
        const R* start = target.weight;
        for (int b = 0; b < count_; ++b)
            for (int i = 0; i < blocks_[b].targets; ++i)
                if (blocks_[b].target[i].weight < start && kind(blocks_[b].target[i]) == kind(target))
                    start = blocks_[b].target[i].weight;
        return (target.weight - start) / target.stride;
    }

    static Index tiles_of(const OuterBlock<R>* blocks, int count) {
        Index sum = 0;
        for (int b = 0; b < count; ++b) sum += blocks[b].tiles() * blocks[b].targets;
        return sum;
    }

    // G*H: each block has a row for each of its columns.
    Index rows_of_gradient() const {
        Index sum = 0;
        for (int b = 0; b < count_; ++b)
            for (int i = 0; i < blocks_[b].targets; ++i) sum += kind(blocks_[b].target[i]) * blocks_[b].count;
        return sum;
    }

    Index pairs() const { return N_ * N_; }
    Index most_rows() const { return chunk_ * N_; }
    Index tiles_of_group() const { return larger<Index>(1, smaller(kColumnGroup, kDeepest / most_rows())); }
    Index room() const {
        return by_product_ ? tiles_of_group() * (most_rows() * kPack<R> + chunk_ * kLanes) : GH_;
    }
    Squares* squares_of(Index tile) const { return squares_.data() + tile * chunk_; }

    static StepTile<R> step_tile(const Tile& tile, Index p) {
        return {static_cast<int>(tile.rows.count()), tile.target->right->width(p)};
    }
    // Step t, whose rows are k and on, by itself.
    BPTT_SHARED StepTile<R> only(Index t, Index k, const Tile& tile, Index p, const R* left, Index K) const {
        StepTile<R> one = step_tile(tile, p);
        R squares[kLanes] = {};
        one.add(left + k * kPack<R>, tile.target->right->panel(p, K).from(k), sequences_, {t, t + 1},
                squares);
        return one;
    }

    // A tile's share of one panel. left: its packed columns of delta; squares: kLanes for each step.
    BPTT_SHARED void sum_panel(const Tile& tile, Index p, const R* left, Index K, Range steps,
                               R* squares) const {
        const OuterTarget<R>& target = *tile.target;
        const Index column = p * kPanel<R>;
        StepTile<R> sum = step_tile(tile, p);
        sum.add(left, target.right->panel(p, K), sequences_, steps, squares);
        sum.add_to(target.weight + tile.rows.first * target.stride + column, target.stride);

        R* const whole = kind(target) == 0 ? trace_.weight_ih : trace_.weight_hh;
        if (whole == nullptr) return;
        const Index columns = target.right->columns, row = first_row(target) + tile.rows.first;
        for (Index t = steps.first, k = 0; t < steps.last; k += sequences_.alive(t++))
            only(t, k, tile, p, left, K)
                .add_to(whole + (sequences_.place(t) * GH_ + row) * columns + column, columns);
    }

    // After all panels: the sum of each step's squares. lanes: what sum_panel added to.
    BPTT_SHARED void sum_squares(const Tile& tile, const R* left, Index K, Range steps, const R* lanes,
                                 Squares* squares) const {
        for (Index t = steps.first, k = 0; t < steps.last; k += sequences_.alive(t++), lanes += kLanes) {
            DoubleSum sum;
            sum.add(Lanes<R>(load(lanes)));
            double total = sum.total();
            if (!(total > kLeast && total < kMost)) total = squares_in_double(t, k, tile, left, K, total);
            *squares = {};
            squares++->sum[kind(*tile.target)] = total;
        }
    }

    // The bias's share of a tile's columns of delta, the same for all targets.
    BPTT_SHARED void sum_bias(const Tile& tile, const R* left, Range steps, Squares* squares) const {
        constexpr int W = Vec<R>::size;
        const OuterBlock<R>& block = *tile.block;
        R whole[kPack<R>] = {};
        for (Index t = steps.first; t < steps.last; ++t, ++squares) {
            const Index m = sequences_.alive(t);
            R sums[kPack<R>];
            DoubleSum square;
            unroll<kPack<R> / W>([&](auto i) BPTT_ALWAYS {
                const Lanes<R> sum = column_sum(left + i * W, m);
                store(sums + i * W, sum.v);
                store(whole + i * W, (Lanes<R>(load(whole + i * W)) + sum).v);
                square.add_square(sum);
            });
            const double total = square.total();
            for (int i = 0; i < block.targets; ++i) squares->sum[kind(block.target[i]) + 2] = total;
            left += m * kPack<R>;
            for (int i = 0; trace_.bias_hh != nullptr && i < block.targets; ++i) {
                R* const its = kind(block.target[i]) == 0 ? trace_.bias_ih : trace_.bias_hh;
                add(sums, tile.rows, its + sequences_.place(t) * GH_ + first_row(block.target[i]));
            }
        }
        for (int i = 0; i < block.targets; ++i)
            if (block.target[i].bias != nullptr) add(whole, tile.rows, block.target[i].bias);
    }
    BPTT_SHARED static void add(const R* sums, Range rows, R* to) {
        for (Index r = rows.first; r < rows.last; ++r) to[r] += *sums++;
    }

    // The same of step t where it is nothing that R holds; by_r: what R made of it.
    BPTT_SHARED double squares_in_double(Index t, Index k, const Tile& tile, const R* left, Index K,
                                         double by_r) const {
        // Losses are often at the last steps alone: others have no gradient.
        Lanes<R> most(R(0));
        for_each_vector<R>(Range{k * kPack<R>, (k + sequences_.alive(t)) * kPack<R>},
                           [&](int, auto get, auto)
                               BPTT_ALWAYS { most = maximum(most, absolute(get(left))); });
        if (by_r == 0 && largest_lane(most) == 0) return 0;
        double sum = 0;
        for (Index p = 0; p < tile.target->right->panels(); ++p)
            sum += only(t, k, tile, p, left, K).squares();
        return sum;
    }

    // Each pair's dot product of delta, both ways.
    BPTT_SHARED static void dots_of(const R* const* delta, Index m, const OuterBlock<R>& block,
                                    double* dots) {
        Dots<R>::of(delta, m, block.column, block.count,
                    [&](Index i, Index j, double dot) { dots[i * m + j] = i == j ? dot : 2 * dot; });
    }
    // The same of the right rows, each times delta's.
    BPTT_SHARED static double sum_of_dots(const R* const* rows, Index m, Index columns, const double* dots) {
        double sum = 0;
        Dots<R>::of(rows, m, 0, columns, [&](Index i, Index j, double dot) { sum += dots[i * m + j] * dot; });
        return sum;
    }

    BPTT_SHARED double column_squares(const R* const* delta, Index m, const OuterBlock<R>& block,
                                      int thread) const {
        R* const sums = room_.data() + thread * room();
        fill<R>(sums, block.count, R(0));
        for (Index r = 0; r < m; ++r) {
            const R* const row = delta[r] + block.column;
            for_each_vector<R>(Range{0, block.count},
                               [&](int, auto get, auto put) BPTT_ALWAYS { put(sums, get(sums) + get(row)); });
        }
        DoubleSum squares;
        for_each_vector<R>(Range{0, block.count},
                           [&](int, auto get, auto) BPTT_ALWAYS { squares.add_square(get(sums)); });
        return squares.total();
    }

    void roots(const double (&squares)[4], Index t) const {
        for (int i = 0; i < 4; ++i)
            trace_.norms[4 * sequences_.place(t) + i] = __builtin_sqrt(larger(squares[i], 0.0));
    }

    static constexpr Index kLanes = Vec<R>::size;
    // Rows times tiles that are packed at one time, more where a step alone has more rows.
    static constexpr Index kDeepest = kColumnGroup * kDepth;
    // In a sum of at least kLeast, squares that R can't hold are below rounding.
    static constexpr double kLeast = 1e-24, kMost = 1e36;

    const kernels::TraceArgs<R> trace_;
    const Index N_;
    const Sequences& sequences_;
    const OuterBlock<R>* blocks_;
    const int count_;
    const RightOperand<R>* x_;
    const Index GH_, chunk_;
    const bool by_product_;
    const Index tiles_;
    const Space<Tile> tile_;
    const Space<Squares> squares_;  // (tile, step)
    const Space<R> room_;
    const Space<double> dots_;
};

}  // namespace bptt::BPTT_SET
