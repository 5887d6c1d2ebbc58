// The norm of each step's own share of a weight gradient, dW(t) = delta_t^T right_t over the step's m rows.
//
// By count of what it adds to a backward pass, which multiplies some 2 m G*H (H+D) times a step:
//   by pairs     |dW(t)|^2 is the sum over pairs (n, k) of (delta_n . delta_k)(right_n . right_k): m(m+1)/2
//                dot products of rows as they stand, m^2/2 (G*H + H + D) multiplications, and no dW(t).
//   by product   dW is the sum of the dW(t), so the same multiplications give both where a chunk's product
//                ends at each step: none more, but G*H (H+D) numbers are squared and added once a step.
// Few sequences go by pairs, many (and where dW(t) itself is wanted) by product.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/layout.hpp"
#include "kernels/outer_sum.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

// result(i, j, a_i . a_j) for all j <= i < m, in double: the square of a small gradient is no float.
// rows: their elements [column, column + depth).
template <class R>
class Dots {
public:
    template <class Result>
    static void of(const R* const* rows, Index m, Index column, Index depth, Result&& result) {
        Index i = 0;
        for (; i + 4 <= m; i += 4) of_rows<4>(rows, i, {column, column + depth}, result);
        for (; i < m; ++i) of_rows<1>(rows, i, {column, column + depth}, result);
    }

private:
    // A vector of R in double: one vector, or two.
    static constexpr int kParts = sizeof(R) == sizeof(double) ? 1 : 2;
    struct Wide {
        Lanes<double> part[kParts];
        Wide() = default;
        BPTT_INLINE explicit Wide(Lanes<R> x) {
            if constexpr (kParts == 1)
                part[0] = x;
            else
                widen(x.v, part[0].v, part[1].v);
        }
    };

    template <int height, class Result>
    static void of_rows(const R* const* rows, Index i, Range columns, Result& result) {
        Index j = 0;
        for (; j + 2 <= i + height; j += 2) block<height, 2>(rows, i, j, columns, result);
        if (j < i + height) block<height, 1>(rows, i, j, columns, result);
    }

    template <int height, int width, class Result>
    static void block(const R* const* rows, Index i, Index j, Range columns, Result& result) {
        Lanes<double> sum[height][width];
        unroll<height>([&](auto a) { unroll<width>([&](auto b) { sum[a][b] = Lanes<double>(0.0); }); });
        for_each_vector<R>(columns, [&](int, auto get, auto) BPTT_ALWAYS {
            Wide right[width];
            unroll<width>([&](auto b) BPTT_ALWAYS { right[b] = Wide(get(rows[j + b])); });
            unroll<height>([&](auto a) BPTT_ALWAYS {
                const Wide left(get(rows[i + a]));
                unroll<width>([&](auto b) BPTT_ALWAYS {
                    unroll<kParts>([&](auto p) BPTT_ALWAYS {
                        sum[a][b] = fma(left.part[p], right[b].part[p], sum[a][b]);
                    });
                });
            });
        });
        unroll<height>([&](auto a) {
            unroll<width>([&](auto b) {
                if (j + b <= i + a) result(i + a, j + b, sum_of_lanes(sum[a][b]));
            });
        });
    }
};

template <class R>
class StepNorms {
public:
    // Of a call whose dW is made of these blocks; x: the operand that packs the input. At most `chunk` steps
    // at a time, by `threads` threads.
    BPTT_SHARED StepNorms(int, const kernels::TraceArgs<R>& trace, const Dims& dims,
                          const OuterBlock<R>* blocks, int count, const RightOperand<R>* x, Index chunk,
                          int threads)
        : trace_(trace),
          N_(dims.N),
          blocks_(blocks),
          count_(count),
          x_(x),
          GH_(rows_of_gradient()),
          width_(ceil_div(larger(dims.H, dims.D), kPanel<R>) * kPanel<R>),
          by_product_(trace.weight_hh != nullptr || cheaper_by_product()),
          tiles_(tiles_of(blocks, count)),
          tile_(tiles_),
          panel_(width_ / kPanel<R>),
          zeros_(kPanel<R>),
          squares_(by_product_ ? 2 * chunk * tiles_ : 0),
          room_(threads * room()),
          dots_(by_product_ ? 0 : threads * pairs()) {
        fill<R>(zeros_.data(), kPanel<R>, R(0));
        for (Index p = 0; p < width_ / kPanel<R>; ++p) panel_[p] = {p * kPanel<R>, kPanel<R>, zeros_.data()};
        list_tiles();
    }

    bool by_product() const { return by_product_; }

    // ---- by product --------------------------------------------------------------------------------------

    // In place of outer_sum: this thread's share of the chunk's dW, and of what each step's share of it
    // squares to. rows(t): how many of delta's rows are step t's. space: kColumnSpace elements.
    template <class RowsOf>
    void sum(const R* const* delta, Index K, Index t0, Index t1, RowsOf&& rows, int thread, int threads,
             R* space) const {
        const Range mine = share(tiles_, thread, threads);
        // A step's right rows serve some tiles while they are near, and the tiles' dW waits for the next.
        for (Index first = mine.first; first < mine.last; first += kTilesTogether) {
            const Index last = smaller(first + kTilesTogether, mine.last);
            Index k = 0;
            for (Index t = t0; t < t1; k += rows(t++))
                for (Index at = first; at < last; ++at)
                    step(tile_[at], delta, {k, k + rows(t)}, K, t,
                         squares_.data() + 2 * ((t - t0) * tiles_ + at), thread, space);
        }
    }

    // Once all threads have done their share: the norms of step t.
    BPTT_SHARED void note(Index t, Index t0) const {
        const double* from = squares_.data() + 2 * (t - t0) * tiles_;
        double* const to = trace_.norms + 4 * t;
        for (Index at = 0; at < tiles_; ++at, from += 2) {
            to[tile_[at].kind] += from[0];
            to[tile_[at].kind + 2] += from[1];
        }
        roots(to);
    }

    // ---- by pairs ----------------------------------------------------------------------------------------

    // The norms of step t. delta: its m rows; right(b, i, r): what row r is multiplied with for that target.
    template <class Right>
    void by_pairs(Index t, const R* const* delta, Index m, Right&& right, const R** rows, int thread) const {
        double* const to = trace_.norms + 4 * t;
        double* const dots = dots_.data() + thread * pairs();
        for (int b = 0; b < count_; ++b) {
            const OuterBlock<R>& block = blocks_[b];
            dots_of(delta, m, block, dots);
            const double of_bias = column_squares(delta, m, block, thread);
            for (int i = 0; i < block.targets; ++i) {
                for (Index r = 0; r < m; ++r) rows[r] = right(b, i, r);
                to[kind(b, i)] += sum_of_dots(rows, m, block.target[i].right->columns, dots);
                to[kind(b, i) + 2] += of_bias;
            }
        }
        roots(to);
    }

    // Whether a block's target is dW_ih (0) or dW_hh (1): the place of its norm.
    int kind(int b, int i) const { return blocks_[b].target[i].right == x_ ? 0 : 1; }

private:
    static constexpr Index kTilesTogether = 4;

    // Cycles of either way beyond a plain pass, as measured: a pair's vectors, and the sums of its lanes; a
    // tile's call, and the squares and sums of its vectors.
    BPTT_SHARED bool cheaper_by_product() const {
        double elements = 0, dots = 0, tiles = 0, squares = 0;
        for (int b = 0; b < count_; ++b) {
            const auto rows = static_cast<double>(blocks_[b].count);
            elements += rows;
            dots += 1 + blocks_[b].targets;
            tiles += static_cast<double>(blocks_[b].tiles() * blocks_[b].targets);
            for (int i = 0; i < blocks_[b].targets; ++i) {
                const auto columns = static_cast<double>(blocks_[b].target[i].right->columns);
                elements += columns;
                squares += rows * columns;
            }
        }
        const double N = static_cast<double>(N_), vector = Vec<R>::size;
        return N * (N + 1) / 2 * (2.8 * elements / vector + 12 * dots) > 250 * tiles + 3.5 * squares / vector;
    }

    // Some rows of a target, and what is the same for them at every step.
    struct Tile {
        const OuterBlock<R>* block;
        const OuterTarget<R>* target;
        Range rows;
        Index first;  // of its rows in the whole dW
        int kind;
    };

    // Those of a block's first target, then of its second, then the next block's.
    BPTT_SHARED void list_tiles() {
        const R* whole[2] = {};  // row 0 of dW_ih and of dW_hh
        for (int b = 0; b < count_; ++b)
            for (int i = 0; i < blocks_[b].targets; ++i) {
                const R*& start = whole[kind(b, i)];
                const R* const its = blocks_[b].target[i].weight;
                if (start == nullptr || its < start) start = its;
            }
        Tile* to = tile_.data();
        for (int b = 0; b < count_; ++b) {
            const OuterBlock<R>& block = blocks_[b];
            for (int i = 0; i < block.targets; ++i) {
                const int which = kind(b, i);
                const Index first = (block.target[i].weight - whole[which]) / block.target[i].stride;
                for (Index tile = 0; tile < block.tiles(); ++tile) {
                    const Range rows = share(block.count, tile, block.tiles());
                    *to++ = {&block, &block.target[i], rows, first + rows.first, which};
                }
            }
        }
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
            for (int i = 0; i < blocks_[b].targets; ++i) sum += kind(b, i) * blocks_[b].count;
        return sum;
    }

    Index pairs() const { return N_ * N_; }
    Index room() const { return by_product_ ? kTallest * width_ : GH_; }

    // Adds to dW what step t's rows k of delta give to a tile, and writes down its squares and the bias's.
    BPTT_SHARED void step(const Tile& tile, const R* const* delta, Range k, Index K, Index t, double* squares,
                          int thread, R* space) const {
        const OuterTarget<R>& target = *tile.target;
        const int M = static_cast<int>(tile.rows.count());
        const bool of_x = tile.kind == 0;
        const Index columns = target.right->columns;
        R sums[kPack<R>] = {};
        R* to[kTallest];
        for (int r = 0; r < M; ++r) to[r] = room_.data() + thread * room() + r * width_;
        const Panels<R> right{target.right->panels.data + k.first * kPanel<R>, panel_.data(), K,
                              target.right->panels.count};
        for (Index k0 = k.first; k0 == k.first || k0 < k.last; k0 += kDepth) {
            const Index depth = smaller(kDepth, k.last - k0);
            pack_columns<R, kPack<R>>(delta + k0, depth, tile.block->column + tile.rows.first, M, space);
            const R* packed = space;
            tiles<R, true>(M, right, 0, right.count, k0 - k.first, depth, &packed, to, Into::chain);
            add_column_sums(space, depth, M, sums);
        }

        R* const weight = target.weight + tile.rows.first * target.stride;
        R* whole = of_x ? trace_.weight_ih : trace_.weight_hh;
        if (whole != nullptr) {
            whole += (t * GH_ + tile.first) * columns;
            for (int r = 0; r < M; ++r)
                for (Index j = 0; j < columns; ++j) whole[r * columns + j] = to[r][j];
        }
        squares[0] = add(to, M, columns, weight, target.stride);

        R* const bias = of_x ? trace_.bias_ih : trace_.bias_hh;
        squares[1] = 0;
        for (int r = 0; r < M; ++r) {
            if (target.bias != nullptr) target.bias[tile.rows.first + r] += sums[r];
            if (bias != nullptr) bias[t * GH_ + tile.first + r] = sums[r];
            squares[1] += static_cast<double>(sums[r]) * static_cast<double>(sums[r]);
        }
    }

    // Adds M rows to dW and returns the sum of their squares.
    BPTT_SHARED static double add(R* const* rows, int M, Index columns, R* weight, Index stride) {
        double sum = 0;
        int r = 0;
        for (; r + 2 <= M; r += 2) sum += add_rows<2>(rows + r, columns, weight + r * stride, stride);
        if (r < M) sum += add_rows<1>(rows + r, columns, weight + r * stride, stride);
        return sum;
    }

    // A row's squares are summed in R, and again in double where they are too small or too large for it.
    template <int height>
    static double add_rows(R* const* rows, Index columns, R* weight, Index stride) {
        Lanes<R> part[height];
        unroll<height>([&](auto r) BPTT_ALWAYS { part[r] = Lanes<R>(R(0)); });
        for_each_vector<R>(Range{0, columns}, [&](int, auto get, auto put) BPTT_ALWAYS {
            unroll<height>([&](auto r) BPTT_ALWAYS {
                const Lanes<R> value = get(rows[r]);
                R* const to = weight + r * stride;
                put(to, get(to) + value);
                part[r] = fma(value, value, part[r]);
            });
        });
        double sum = 0;
        unroll<height>([&](auto r) BPTT_ALWAYS {
            const double squares = static_cast<double>(sum_of_lanes(part[r]));
            sum += squares > kLeast && squares < kMost ? squares : squares_in_double(rows[r], columns);
        });
        return sum;
    }

    // In a sum of at least kLeast, squares that R can't hold are below rounding.
    static constexpr double kLeast = 1e-24, kMost = 1e36;

    static double squares_in_double(const R* row, Index columns) {
        DoubleSum sum;
        for_each_vector<R>(Range{0, columns},
                           [&](int, auto get, auto) BPTT_ALWAYS { sum.add_square(get(row)); });
        return sum.total();
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
        return squares_in_double(sums, block.count);
    }

    static void roots(double* norms) {
        for (int i = 0; i < 4; ++i) norms[i] = __builtin_sqrt(larger(norms[i], 0.0));
    }

    const kernels::TraceArgs<R> trace_;
    const Index N_;
    const OuterBlock<R>* blocks_;
    const int count_;
    const RightOperand<R>* x_;
    const Index GH_;
    const Index width_;  // of a tile's rows: all columns, in whole panels
    const bool by_product_;
    const Index tiles_;
    const Space<Tile> tile_;
    const Space<Panel<R>> panel_;  // of such a tile, each from zero
    const Space<R> zeros_;
    const Space<double> squares_;  // (step, tile, 2): of the weight's and the bias's share
    const Space<R> room_;
    const Space<double> dots_;
};

}  // namespace bptt::BPTT_SET
