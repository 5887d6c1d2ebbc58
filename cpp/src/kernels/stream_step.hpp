// One sequence, one step at a time, with weights that were packed once.
#pragma once

#include "kernels/forward_step.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

// One row of h @ hh for panels p..p+wide/2-1. To those before `both`, where the sides add up, comes x @ ih in
// the same columns: one chain that stays in registers, as the loop's two chains are when the first one's end
// is the other's beginning. apart: there are panels from `both` on, and they begin with biases of their own.
//
// Whole panels are written: what is beyond a panel's columns comes to stand where a later panel's belong, or
// behind the row, which has room for it.
template <class R, bool apart, int wide>
BPTT_INLINE void chained_tile(const Panels<R>& ih, const R* x, const Panels<R>& hh, const R* h, Index p,
                              Index both, R* row) {
    constexpr int W = Vec<R>::size;
    const auto adds_up = [&](Index v) BPTT_ALWAYS { return !apart || p + v / 2 < both; };
    V<R> sum[wide];
    BPTT_UNROLL (v, wide) sum[v] = load((adds_up(v) ? ih : hh).panel[p + v / 2].start + v % 2 * W);
    const auto add = [&](const Panels<R>& b, const R* a, auto takes) BPTT_ALWAYS {
        const R* from = b.at(p);
        const Index stride = b.K * kPanel<R>;
        for (Index k = 0; k < b.K; ++k, from += kPanel<R>) {
            const V<R> left = all(a[k]);
            BPTT_UNROLL (v, wide)
                if (takes(v)) sum[v] = ei::pmadd(left, load(from + v / 2 * stride + v % 2 * W), sum[v]);
        }
    };
    add(ih, x, adds_up);
    add(hh, h, [](Index) BPTT_ALWAYS { return true; });
    BPTT_UNROLL (v, wide) store(row + hh.panel[p + v / 2].column + v % 2 * W, sum[v]);
}

template <class R, bool apart, int wide>
BPTT_INLINE void chained_of_width(const Panels<R>& ih, const R* x, const Panels<R>& hh, const R* h, Index p,
                                  Index both, R* row) {
    const Index last = apart ? hh.count : both;
    for (; takes(1, wide, last - p); p += wide / 2) chained_tile<R, apart, wide>(ih, x, hh, h, p, both, row);
    if constexpr (wide > 2) chained_of_width<R, apart, narrower(1, wide)>(ih, x, hh, h, p, both, row);
}

// All panels of a step where both sides add up, and if apart those after them.
template <class R, bool apart>
BPTT_SHARED void chained(const Panels<R>& ih, const R* x, const Panels<R>& hh, const R* h, Index both,
                         R* row) {
    chained_of_width<R, apart, kMostOfOneRow>(ih, x, hh, h, 0, both, row);
}

template <class Cell, class R>
class StreamStep {
public:
    explicit StreamStep(const kernels::WeightArgs<R>& a)
        : cell_(a.cell), H_(a.H), weights_(0, a.D, a.H, 1), row_(Cell::columns * a.H + kPanel<R>) {
        weights_.pack(a.H, a.weight_ih, a.weight_hh, a.bias_ih, a.bias_hh, 0, 1);
        fill<R>(row_.data(), Cell::columns * a.H, R(0));
        const Panels<R>&ih = weights_.ih.panels(), &hh = weights_.hh[0].panels();
        const auto same = [&](Index p) {
            return ih.panel[p].column == hh.panel[p].column && ih.panel[p].width == hh.panel[p].width;
        };
        while (both_ < smaller(ih.count, hh.count) && same(both_)) ++both_;
    }

    // x (D,); h and c (H,) in place. Takes nothing from anywhere: no lock, no memory, no system call.
    void step(const R* x, R* h, R* c) const noexcept {
        const DenormalsAreZero mode;
        R* const row = row_.data();
        const Panels<R>& ih = weights_.ih.panels();
        const Panels<R>& hh = weights_.hh[0].panels();
        constexpr bool apart = any_apart<Cell>();
        chained<R, apart>(ih, x, hh, h, both_, row);
        if (both_ < ih.count) times(ih, x, row, both_);
        if (!apart && both_ < hh.count) times(hh, h, row, both_);
        unroll<Cell::phases>([&](auto phase) {
            constexpr int p = decltype(phase)::value;
            if constexpr (p > 0) times(weights_.hh[p].panels(), row + Cell::source_column[p] * H_, row);
            forward_pointwise<Cell, p>(cell_, H_, Range{0, H_}, false, row, h, Cell::has_c ? c : h, h, c);
        });
    }

private:
    bptt::Cell cell_;
    Index H_;
    ForwardWeights<Cell, R> weights_;
    Space<R> row_;
    Index both_ = 0;  // panels in the beginning where input and hidden side add up in the same columns
};

}  // namespace bptt::BPTT_SET
