// dx: delta times W_ih, in products of its own, or in one with dh.
//
// dh is delta times W_hh. Where the two matrices side by side are fewer vectors than each for itself, a step
// makes both in one product: its rows are dh and dx one behind the other, and dh stays there from step to
// step.
#pragma once

#include "kernels/backward_step.hpp"

namespace bptt::BPTT_SET {

template <class R>
BPTT_INLINE void copy(R* to, const R* from, Index count) {
    for_each_vector<R>(Range{0, count}, [&](int, auto get, auto put) BPTT_ALWAYS { put(to, get(from)); });
}

// Whether one row of delta goes with both matrices, number by number, and nothing else goes into dh.
template <class Cell>
constexpr bool may_join() {
    for (int g = 0; g < Cell::gates; ++g)
        if (Cell::ih_column[g] != g || Cell::hh_column[g] != g) return false;
    return Cell::phases == 1 && !Cell::passes_h;
}

template <class R>
class InputGradient {
public:
    // wanted: else there is nothing in it; may_join: the cell; whole: dh's rows are made as wholes; K: W_ih's
    // rows.
    BPTT_SHARED InputGradient(bool wanted, bool may_join, bool whole, Index K, const Dims& dims)
        : H_(dims.H),
          D_(dims.D),
          apart_(apart<R>(vectors(H_ + D_) * Vec<R>::size)),
          wanted_(wanted),
          joins_(wanted && may_join && pays(K, dims)),
          joint_(joins_ && whole),
          weights_(wanted ? column_run({0, joint_ ? H_ + D_ : D_}) : Runs{}, K),
          rows_(joint_ || (joins_ && detail::spends_most_memory()) ? dims.N * apart_ : 0) {}

    BPTT_INLINE bool wanted() const { return wanted_; }
    BPTT_INLINE bool joint() const { return joint_; }
    // W_hh is needed by itself, or its room.
    bool leaves_hh() const { return !joint_ || detail::spends_most_memory(); }
    // W_ih's panels, or where it is joint those of both matrices.
    const Panels<R>& panels() const { return weights_.panels(); }

    // Packs a share. rows: W_ih's in the order of delta's columns.
    BPTT_SHARED void pack(const R* const* rows, const R* weight_hh, int part, int parts) const {
        if (!wanted_) return;
        if (joint_)
            weights_.pack_each(
                [&](Index k, Index column, Index count, R* to) {
                    const Index of_hh = larger<Index>(0, smaller(count, H_ - column));
                    fill<R>(to, kPanel<R>, R(0));
                    copy(to, weight_hh + k * H_ + column, of_hh);
                    copy(to + of_hh, rows[k] + column + of_hh - H_, count - of_hh);
                },
                part, parts);
        else
            weights_.pack_straight(rows, part, parts);
        weights_.start_from_zero(part, parts);
    }

    // Of the joint products, each sequence's row; what it begins with, and where its numbers go.
    BPTT_INLINE RowsOf<R> rows() const { return {rows_.data(), apart_}; }
    BPTT_SHARED void take_dh(const Rows& whose, const R* dh) const {
        for (Index i = 0; i < whose.count(); ++i) copy(rows()[whose.at(i)], dh + whose.at(i) * H_, H_);
    }
    BPTT_SHARED void give_dh(const Rows& whose, R* dh) const {
        for (Index i = 0; i < whose.count(); ++i) copy<R>(dh + whose.at(i) * H_, rows()[whose.at(i)], H_);
    }
    BPTT_SHARED void give_dx(Index n, R* dx) const { copy<R>(dx, rows()[n] + H_, D_); }

private:
    static constexpr Index vectors(Index columns) { return ceil_div(columns, Vec<R>::size); }

    // W_ih is then read in every step. That takes nothing while both are in the nearest cache, or where dx is
    // in panels that dh has anyway; from L2 one or two rows would wait for it.
    static bool pays(Index K, const Dims& dims) {
        const auto panels = [](Index columns) { return ceil_div(columns, kPanel<R>); };
        const Index both = vectors(dims.H + dims.D), bytes = K * both * Index{sizeof(V<R>)};
        const bool no_more = panels(dims.H + dims.D) == panels(dims.H);
        return both < vectors(dims.H) + vectors(dims.D) && bytes <= kNearBytes &&
               (dims.N > 2 || no_more || bytes <= kNearestBytes);
    }

    const Index H_, D_, apart_;
    const bool wanted_, joins_, joint_;
    const PackedWeights<R> weights_;
    const Space<R> rows_;
};

}  // namespace bptt::BPTT_SET
