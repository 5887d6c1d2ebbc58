// The weights' gradients: the sums over all steps and sequences that a backward call makes.
//
// Where a thread sums over sequences that another thread took back through time, each reads what the other
// one wrote: all deltas, states and inputs cross from core to core. So there are two sums, each of half of
// the sequences, whatever the number of threads (the bits do not depend on it): two threads make one each and
// meet once, at the end; any other number of threads shares both by rows of the result.
#pragma once

#include "kernels/layout.hpp"
#include "kernels/outer_sum.hpp"

namespace bptt::BPTT_SET {

// Where the sums go.
template <class R>
struct WeightResults {
    R *weight_ih, *weight_hh;
    R *bias_ih, *bias_hh;  // both or neither
};

// Fewer sequences, or weights that outgrow a cache, are not worth a second sum.
constexpr Index kLeastOfTwoSums = 16;
constexpr Index kMostOfTwoSums = Index{2} << 20;  // bytes

inline int weight_sums(const Dims& dims, Index gates, Index bytes) {
    const Index size = gates * dims.H * (dims.D + dims.H + 2) * bytes;
    return dims.N >= kLeastOfTwoSums && size <= kMostOfTwoSums ? 2 : 1;
}

// One of the sums: the operands of a chunk, and blocks of neighbouring columns of delta that are multiplied
// with the same ones.
template <class Cell, class R>
struct WeightSum {
    struct Right : RightOperand<R> {
        Right(int phase, Index its_columns, Index its_rows, const RightOperand<R>& x)
            : RightOperand<R>(its_columns, its_rows, phase == 0 ? &x : nullptr) {}
    };

    const Rows rows;  // the sequences
    const RightOperand<R> x;
    const Each<Right> source;
    OuterBlock<R> blocks[Cell::columns];
    int count = 0;

    // which: of so many sums; chunk: the most steps at a time.
    BPTT_SHARED WeightSum(int which, int sums, const Sequences& sequences, const Dims& dims, Index chunk,
                          const WeightResults<R>* results)
        : rows(which, sequences, dims.N, sums),
          x(dims.D, chunk * rows.count()),
          source(Cell::phases, dims.H, chunk * rows.count(), x) {
        const Index D = dims.D, H = dims.H;
        const WeightResults<R>& to = results[which];
        int last_kind = -1;
        for (int column = 0; column < Cell::columns; ++column) {
            const int ih = gate_of_column<Cell>(Cell::ih_column, column);
            const int hh = gate_of_column<Cell>(Cell::hh_column, column);
            if (ih < 0 && hh < 0) continue;
            const int phase = hh < 0 ? -1 : Cell::phase_of[hh];
            const int kind = (ih < 0 ? 0 : 1) + 2 * (phase + 1);
            if (count > 0 && kind == last_kind &&
                blocks[count - 1].column + blocks[count - 1].count == column * H) {
                blocks[count - 1].count += H;  // gates in a row have their weights in a row
                continue;
            }
            last_kind = kind;
            OuterBlock<R>& block = blocks[count++];
            block = {column * H, H, {}, 0};
            if (hh >= 0)
                block.target[block.targets++] = {&source[phase], to.weight_hh + hh * H * H, H,
                                                 to.bias_hh != nullptr ? to.bias_hh + hh * H : nullptr};
            if (ih >= 0)
                block.target[block.targets++] = {&x, to.weight_ih + ih * H * D, D,
                                                 to.bias_ih != nullptr ? to.bias_ih + ih * H : nullptr};
        }
    }
};

}  // namespace bptt::BPTT_SET
