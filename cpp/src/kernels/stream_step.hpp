// One sequence, one step at a time, with weights that were packed once.
#pragma once

#include "kernels/forward_step.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

template <class Cell, class R>
class StreamStep {
public:
    explicit StreamStep(const kernels::StreamArgs<R>& a)
        : H_(a.H), weights_(0, a.D, a.H, 1), row_(Cell::columns * a.H) {
        weights_.pack(a.H, a.weight_ih, a.weight_hh, a.bias_ih, a.bias_hh, 0, 1);
        fill<R>(row_.data(), Cell::columns * a.H, R(0));
    }

    // x (D,); h and c (H,) in place. Takes nothing from anywhere: no lock, no memory, no system call.
    void step(const R* x, R* h, R* c) const noexcept {
        const DenormalsAreZero mode;
        R* const row = row_.data();
        times(weights_.ih.panels(), x, row);
        unroll<Cell::phases>([&](auto phase) {
            constexpr int p = decltype(phase)::value;
            const R* const from = p == 0 ? h : row + Cell::source_column[p] * H_;
            times(weights_.hh[p].panels(), from, row);
            forward_pointwise<Cell, p>(H_, Range{0, H_}, row, h, Cell::has_c ? c : h, h, c);
        });
    }

private:
    Index H_;
    ForwardWeights<Cell, R> weights_;
    Space<R> row_;
};

}  // namespace bptt::BPTT_SET
