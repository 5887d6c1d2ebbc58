// One sequence, one step at a time, with weights that were packed once.
#pragma once

#include "kernels/forward_step.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

// Whether x and h add up in the gate's columns before anything else is done there.
template <class Cell>
constexpr bool is_joint(int gate) {
    return Cell::phase_of[gate] == 0 && !sides_apart<Cell>(gate);
}

template <class Cell>
constexpr bool joint_gates_come_first() {
    for (int g = 1; g < Cell::gates; ++g)
        if (is_joint<Cell>(g) && Cell::phase_of[g - 1] == 0 && !is_joint<Cell>(g - 1)) return false;
    return true;
}

// The gates of the first phase, in panels by the columns of their W_hh. Of a panel there stand one behind the
// other what its columns start from, a row of W_ih for each of x, and one of W_hh for each of h: both
// products are one chain that stays in registers, as the loop's two chains are when one's end is the other's
// beginning. In the last panels, of gates whose sides stand apart, it is that of W_hh, and the rows of W_ih
// are skipped.
template <class Cell, class R>
class JointWeights {
public:
    JointWeights(const kernels::WeightArgs<R>& a, const Biases<Cell, R>& bias)
        : JointWeights(
              a, bias,
              PackedWeights<R>(gate_runs<Cell>(Cell::ih_column, a.H, Range{0, a.H}, is_joint<Cell>), a.D),
              PhaseWeights<Cell, R>(0, a.H, Range{0, a.H})) {}

    // x (D,), h (H,). Whole panels are written: what is beyond a panel's columns comes to stand where a later
    // one's belong, or those of a gate that is made later, or behind the row, which has room for it.
    BPTT_SHARED void product(const R* x, const R* h, R* row) const { tiles<kMostOfOneRow>(0, x, h, row); }

private:
    static constexpr bool kApart = any_apart<Cell>();
    static_assert(joint_gates_come_first<Cell>(), "panels of both sides stand before those of one");

    JointWeights(const kernels::WeightArgs<R>& a, const Biases<Cell, R>& bias, const PackedWeights<R>& ih,
                 const PackedWeights<R>& hh)
        : D_(a.D),
          H_(a.H),
          stride_((1 + D_ + H_) * kPanel<R>),
          both_(ih.panels().count),
          count_(hh.panels().count),
          data_(count_ * stride_),
          column_(count_) {
        ih.pack_transposed(a.weight_ih, 0, 1);
        hh.pack_transposed(a.weight_hh, 0, 1);
        for (Index p = 0; p < count_; ++p) {
            const Panel<R>& panel = hh.panels().panel[p];
            const bool adds_up = p < both_;
            R *const start = data_.data() + p * stride_, *const of_x = start + kPanel<R>,
                     *const of_h = of_x + D_ * kPanel<R>;
            for (int i = 0; i < kPanel<R>; ++i) {
                const Index source = panel.source + i;
                start[i] = i >= panel.width ? R(0) : adds_up ? bias.input(source) : bias.hidden(source);
            }
            for (Index i = 0; adds_up && i < D_ * kPanel<R>; ++i) of_x[i] = ih.panels().at(p)[i];
            for (Index i = 0; i < H_ * kPanel<R>; ++i) of_h[i] = hh.panels().at(p)[i];
            column_[p] = panel.column;
        }
    }

    template <int wide>
    BPTT_INLINE void tiles(Index p, const R* x, const R* h, R* row) const {
        for (; takes(1, wide, count_ - p); p += wide / 2) tile<wide>(p, x, h, row);
        if constexpr (wide > 2) tiles<narrower(1, wide)>(p, x, h, row);
    }

    template <int wide>
    BPTT_INLINE void tile(Index p, const R* x, const R* h, R* row) const {
        constexpr int W = Vec<R>::size;
        const R* from = data_.data() + p * stride_;
        V<R> sum[wide];
        BPTT_UNROLL (v, wide) sum[v] = load(from + v / 2 * stride_ + v % 2 * W);
        from += kPanel<R>;
        const auto add = [&](const R* a, Index count, auto takes) BPTT_ALWAYS {
            for (Index k = 0; k < count; ++k, from += kPanel<R>) {
                const V<R> left = all(a[k]);
                BPTT_UNROLL (v, wide)
                    if (takes(v)) sum[v] = ei::pmadd(left, load(from + v / 2 * stride_ + v % 2 * W), sum[v]);
            }
        };
        add(x, D_, [&](Index v) BPTT_ALWAYS { return !kApart || p + v / 2 < both_; });
        add(h, H_, [](Index) BPTT_ALWAYS { return true; });
        R* to[wide / 2];
        BPTT_UNROLL (i, wide / 2) to[i] = row + column_[p + i];
        BPTT_UNROLL (v, wide) store(to[v / 2] + v % 2 * W, sum[v]);
    }

    Index D_, H_;
    Index stride_;        // from panel to panel
    Index both_, count_;  // panels: those of both sides, and all
    Space<R> data_;
    Space<Index> column_;  // where a panel stands in the row
};

template <class Cell, class R>
class StreamStep {
public:
    explicit StreamStep(const kernels::WeightArgs<R>& a) : StreamStep(a, {a.bias_ih, a.bias_hh, a.H}) {}

    // x (D,); h and c (H,) in place. Takes nothing from anywhere: no lock, no memory, no system call.
    void step(const R* x, R* h, R* c) const noexcept {
        const DenormalsAreZero mode;
        R* const row = row_.data();
        joint_.product(x, h, row);
        if constexpr (kMore) times(input_.panels(), x, row);
        unroll<Cell::phases>([&](auto phase) {
            constexpr int p = decltype(phase)::value;
            if constexpr (p > 0) times(later_[p - 1].panels(), row + Cell::source_column[p] * H_, row);
            forward_pointwise<Cell, p>(cell_, H_, row, h, Cell::has_c ? c : h, h, c);
        });
    }

private:
    // Whether there are gates that x has to itself at first.
    static constexpr bool kMore = Cell::phases > 1 || any_apart<Cell>();

    struct Later : PhaseWeights<Cell, R> {
        Later(int which, Index H) : PhaseWeights<Cell, R>(which + 1, H, Range{0, H}) {}
    };

    StreamStep(const kernels::WeightArgs<R>& a, const Biases<Cell, R>& bias)
        : cell_(a.cell),
          H_(a.H),
          joint_(a, bias),
          input_(gate_runs<Cell>(Cell::ih_column, H_, Range{0, H_}, [](int g) { return !is_joint<Cell>(g); }),
                 a.D),
          later_(Cell::phases - 1, H_),
          row_(Cell::columns * H_ + kPanel<R>) {
        input_.pack_transposed(a.weight_ih, 0, 1);
        input_.start_from([&](Index row) { return bias.input(row); }, [](Index) { return true; }, 0, 1);
        for (int i = 0; i < Cell::phases - 1; ++i) later_[i].pack(a.weight_hh, bias, 0, 1);
        fill<R>(row_.data(), Cell::columns * H_, R(0));
    }

    bptt::Cell cell_;
    Index H_;
    JointWeights<Cell, R> joint_;
    PackedWeights<R> input_;
    Each<Later> later_;
    Space<R> row_;
};

}  // namespace bptt::BPTT_SET
