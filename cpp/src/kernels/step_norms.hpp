// The norm of each step's own share of a weight gradient, dW(t) = delta_t^T right_t.
//
// Few sequences: |dW(t)|^2 is the sum over pairs (n, m) of (delta_n . delta_m)(right_n . right_m), two small
// products and no dW(t). Many (or where dW(t) itself is wanted): the product, and its squares.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/outer_sum.hpp"

namespace bptt::BPTT_SET {

// All dot products of some rows: the tiles of C on and above the diagonal.
template <class R>
class Gram {
public:
    explicit Gram(Index most)
        : panel_(ceil_div(most, kPanel<R>)),
          packed_(ceil_div(most, kPanel<R>) * kPanel<R> * kDepth),
          c_(most * most),
          from_(most),
          to_(most) {}

    // Of columns [column, column + depth) of rows[0..m-1]. space: kRowSpace elements.
    void fill_with(const R* const* rows, Index m, Index column, Index depth, R* space) const {
        fill<R>(c_.data(), m * m, R(0));
        Panels<R> b{packed_.data(), panel_.data(), 0, ceil_div(m, kPanel<R>)};
        for (Index p = 0; p < b.count; ++p)
            panel_[p] = {p * kPanel<R>, static_cast<int>(smaller<Index>(kPanel<R>, m - p * kPanel<R>)),
                         nullptr};
        for (Index k0 = 0; k0 < depth; k0 += kDepth) {
            b.K = smaller(kDepth, depth - k0);
            for (Index r = 0; r < m; ++r) {
                from_[r] = rows[r] + column + k0;
                to_[r] = c_.data() + r * m;
            }
            for (Index p = 0; p < b.count; ++p)
                pack_rows<R, kPanel<R>>(from_.data() + p * kPanel<R>, panel_[p].width, 0, b.K, b.at(p));
            constexpr Index group = 2 * kTallest;
            for (Index r = 0; r < m; r += group)
                product(b, r / kPanel<R>, b.count, from_.data() + r, to_.data() + r, smaller(group, m - r),
                        space, Into::sum);
        }
    }

    // The sum over all pairs of this one's and another's.
    double dot(const Gram& other, Index m) const {
        double sum = 0;
        DoubleSum above;
        for (Index i = 0; i < m; ++i) {
            const R *a = c_.data() + i * m, *b = other.c_.data() + i * m;
            sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
            for_each_vector<R>(Range{i + 1, m}, [&](int, auto get, auto) { above.add(get(a) * get(b)); });
        }
        return sum + 2 * above.total();
    }

private:
    Space<Panel<R>> panel_;
    Space<R> packed_, c_;
    Space<const R*> from_;
    Space<R*> to_;
};

template <class R>
class StepNorms {
public:
    // Of at most N rows. blocks: of the weights' gradients; space: room for a product's packed rows.
    StepNorms(const OuterBlock<R>* blocks, Index N, Index GH, Index H, Index D, R* space)
        : blocks_(blocks),
          space_(space),
          by_pairs_(cheaper_by_pairs(N, GH, H)),
          of_delta_(by_pairs_ ? N : 0),
          of_right_(by_pairs_ ? N : 0),
          sums_(GH),
          scratch_(by_pairs_ ? 0 : GH * larger(H, D)),
          right_h_(H, N),
          right_x_(D, N) {}

    // Adds a block's share of |dW(t)|^2 with its i-th target to *norm, and of |db(t)|^2 to *bias.
    // whole: where the block's rows of dW(t) are to be added, or null. A block's targets come in their order.
    void add(int block, int i, const R* const* delta, const R* const* right, Index m, double* norm,
             double* bias, R* whole) {
        const OuterBlock<R>& its = blocks_[block];
        const Index columns = its.target[i].right->columns;
        if (m == 0) return;
        if (i == 0) {
            delta_is_there_ = false;
            of_bias_ = column_squares(delta, m, its);  // the same for both targets
        }
        *bias += of_bias_;
        if (whole == nullptr && by_pairs_) {
            if (!delta_is_there_) of_delta_.fill_with(delta, m, its.column, its.count, space_);
            delta_is_there_ = true;
            of_right_.fill_with(right, m, 0, columns, space_);
            *norm += of_delta_.dot(of_right_, m);
            return;
        }
        const bool of_h = columns == right_h_.columns;
        const RightOperand<R>& operand = of_h ? right_h_ : right_x_;
        operand.pack(right, m, 0, 1);
        R* const to = whole != nullptr ? whole : scratch_.data();
        if (whole == nullptr) fill<R>(to, its.count * columns, R(0));
        const OuterBlock<R> alone{its.column, its.count, {{&operand, to, columns, nullptr}, {}}, 1};
        outer_sum(&alone, 1, delta, m, 0, 1, space_);
        *norm += squares(to, its.count * columns);
    }

private:
    // N^2 (GH + H) / 2 against N GH H products.
    static bool cheaper_by_pairs(Index N, Index GH, Index H) { return N * (GH + H) < 2 * GH * H; }

    double column_squares(const R* const* delta, Index m, const OuterBlock<R>& block) const {
        R* const sums = sums_.data();
        fill<R>(sums, block.count, R(0));
        for (Index r = 0; r < m; ++r) {
            const R* const row = delta[r] + block.column;
            for_each_vector<R>(Range{0, block.count},
                               [&](int, auto get, auto put) { put(sums, get(sums) + get(row)); });
        }
        return squares(sums, block.count);
    }

    static double squares(const R* values, Index count) {
        DoubleSum sum;
        for_each_vector<R>(Range{0, count}, [&](int, auto get, auto) { sum.add_square(get(values)); });
        return sum.total();
    }

    const OuterBlock<R>* blocks_;
    R* space_;
    const bool by_pairs_;
    const Gram<R> of_delta_, of_right_;
    const Space<R> sums_, scratch_;
    const RightOperand<R> right_h_, right_x_;
    bool delta_is_there_ = false;  // of this block
    double of_bias_ = 0;
};

}  // namespace bptt::BPTT_SET
