// The ledger: a weight gradient taken apart by the steps that it travelled back through time.
//
// delta_t, the gradient at step t's gates, is a sum of what each loss at a step s >= t sent back:
// delta_t = sum over k of delta_t[k], where delta_t[k] came from the loss at step t+k. So
// dW_hh = sum over k of D[k], with D[k] = sum over t of delta_t[k]^T h_{t-1}. The sum of D[0..w-1] is the
// gradient that a window of w steps gives.
//
// A tape in reverse hands its gradient the other way: there delta_t[k] came from the loss at step t-k. Below
// a layer of two directions a gradient may have gone some steps one way and some the other: what k counts is
// how often it was handed from one step to the next, in all layers that it came through.
#pragma once

#include "bptt/recurrent.hpp"

namespace bptt {

template <class R>
class Ledger {
public:
    // Follows each loss through max_lag steps (0 <= max_lag < T) of a tape that must outlive the ledger and
    // not be consumed meanwhile. groups (1..N): how many blocks of neighbouring sequences are kept apart.
    // only_c (LSTM): what goes back through c alone; nothing passes W_hh. both_ways: there are layers above
    // that hand gradients the other way, so that a step's lags may be more than the steps after it.
    // Throws std::invalid_argument naming the argument.
    BPTT_API explicit Ledger(const Tape<R>& tape, Index max_lag, Index groups = 1, bool only_c = false,
                             bool both_ways = false);

    struct Part {
        Array<R> map;  // (steps, max_lag+1, N): the norm of what came k steps to h_t, |dL_{t+k}/dh_t|
        Array<R> dx;   // (steps, max_lag+2, N, D), where wanted: dy by slots for the layer below
    };
    // Goes back from the step that it stands before (T at first) to `first`, both counted as the tape's steps
    // were taken: of a tape in reverse, from T down. dy: dL/dy of all steps (T, N, H), or with by_slots of
    // these steps (steps, max_lag+2, N, H), as the layer above gave it: what is k steps behind at the step
    // that was taken as t-th is in slot (t+k) mod (max_lag+1), what all losses send in the last. Arrays
    // have the steps in the order of time.
    BPTT_API Part back(Index first, View<const R> dy, bool by_slots = false, bool want_dx = false);

    // (groups, max_lag+2, G*H, H): D[k], and last dW_hh of all losses, as far as it has gone back.
    const Array<R>& weight_hh() const { return weight_hh_; }

    // What these parts add up to, in double: x.x and x.y of a pair of gradients x, y.
    struct Sums {
        Array<double> lag;   // (max_lag+2, 2): x is D[k], and last dW_hh; y is dW_hh. Of all groups together
        Array<double> rest;  // (max_lag+2, groups, 2): x is what a window of w steps leaves out of a group's
                             // dW_hh, where w = 0 leaves out all; y is the same of all groups together
    };
    BPTT_API Sums sums() const;

private:
    const Tape<R>& tape_;
    Index max_lag_, groups_;
    bool only_c_, both_ways_;
    Index at_;
    Array<R> dh_, dc_, weight_hh_;
};

}  // namespace bptt
