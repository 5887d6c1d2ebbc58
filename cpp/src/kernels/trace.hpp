// What a look at the gradient's way through time writes down, where a backward call is asked to: beside the
// loop, whose numbers it reads.
#pragma once

#include "kernels/step_norms.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

template <class Cell, class R, class Loop>
class GradientTrace {
public:
    GradientTrace(const Loop& loop, const kernels::TraceArgs<R>& args)
        : loop_(loop),
          args_(args),
          steps_(args.norms != nullptr ? 1 : 0, args, loop.a_.dims, loop.sequences_, loop.sum_[0],
                 loop.chunk_, loop.threads_) {}

    bool wants_norms() const { return args_.norms != nullptr; }

    // Where row n of step t writes down what was handed back to it, and dL/dc_t; or null.
    BPTT_INLINE R* handed(Index t, Index n) const { return row(args_.recurrent, t, n); }
    BPTT_INLINE R* whole_dc(Index t, Index n) const { return row(args_.c, t, n); }

    // In place of outer_sum: dW of a chunk, which is added to what is there, |dW(t)| of each step, and where
    // asked for the steps' shares and delta. delta: the K rows of the chunk; rows: room for as many; space:
    // that of outer_sum.
    BPTT_SHARED void sum_by_step(Index t0, Index t1, Index K, const R** delta, const R** rows,
                                 const LeftSpace<R>& space, int thread, Barrier& barrier) const {
        const StepNorms<R>& steps = steps_[0];
        const auto& sequences = loop_.sequences_;
        if (steps.by_product()) {
            steps.sum(delta, K, t0, t1, thread, loop_.threads_);
            barrier.wait();
        } else {
            outer_sum(loop_.sum_[0].blocks, loop_.sum_[0].count, delta, K, thread, loop_.threads_, space,
                      Into::sum);
        }
        for (Index t = t0 + thread; t < t1; t += loop_.threads_) {
            if (steps.by_product()) {
                steps.note(t, t0);
            } else {
                const Index m = sequences.alive(t);
                for (Index i = 0; i < m; ++i) delta[i] = loop_.delta_row(t, sequences.at(i));
                const auto right = [&](int b, int i, Index r) {
                    return source(t, sequences.at(r), loop_.sum_[0].blocks[b].target[i].right);
                };
                steps.by_pairs(t, delta, m, right, rows, thread);
            }
            if (args_.delta != nullptr) note_delta(t);
        }
    }

private:
    BPTT_INLINE R* row(R* array, Index t, Index n) const {
        return array == nullptr ? nullptr : array + (loop_.place(t) * loop_.N_ + n) * loop_.H_;
    }

    void note_delta(Index t) const {
        const Index H = loop_.H_;
        for (Index i = 0, alive = loop_.sequences_.alive(t); i < alive; ++i) {
            const Index n = loop_.sequences_.at(i);
            for (int g = 0; g < Cell::gates; ++g) {
                const R* const from = loop_.delta_row(t, n) + Cell::hh_column[g] * H;
                R* const to = args_.delta + ((loop_.place(t) * loop_.N_ + n) * Cell::gates + g) * H;
                for (Index j = 0; j < H; ++j) to[j] = from[j];
            }
        }
    }

    // The row that a step's weights were multiplied with, by the operand that packs such rows.
    BPTT_INLINE const R* source(Index t, Index n, const RightOperand<R>* operand) const {
        if (operand == &loop_.sum_[0].x) return loop_.x_row(t, n);
        int phase = 0;
        while (operand != &loop_.sum_[0].source[phase]) ++phase;
        return loop_.source_row(phase, t, n);
    }

    const Loop& loop_;
    const kernels::TraceArgs<R> args_;
    const Each<StepNorms<R>> steps_;  // one where they are wanted
};

}  // namespace bptt::BPTT_SET
