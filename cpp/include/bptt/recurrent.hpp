// A recurrent layer of one direction: all steps forward, all steps backward, and one step.
#pragma once

#include <array>

#include "bptt/types.hpp"

namespace bptt {

// What a forward call keeps for its backward call. It refers to the caller's x and weights (and
// lengths and reset), which must outlive it and stay as they were. A backward call that does not
// retain the tape consumes it: the gates and c are given back to the pool, h stays.
template <class R>
struct Tape {
    Cell cell = Cell::lstm;
    Dims dims;
    View<const R> x;  // (T, N, D)
    Weights<R> weights;
    Steps steps;
    Array<R> h;      // (T+1, N, H); slot 0 is the initial state, y is slots 1..T. In reverse:
                     // slot T is the initial state, y is slots 0..T-1
    Array<R> c;      // (T+1, N, H), LSTM only
    Array<R> gates;  // (T, N, kept*H): what the cell keeps of its activated gates
    bool consumed = false;

    Index bytes() const {
        return static_cast<Index>(sizeof(R)) *
               ((h ? h.elements() : 0) + (c ? c.elements() : 0) + (gates ? gates.elements() : 0));
    }
};

template <class R>
struct Forward {
    Array<R> y;    // (T, N, H): the hidden states of all steps; zero beyond a sequence's end
    Array<R> h;    // (N, H): each sequence's state at its own end, in reverse after step 0
    Array<R> c;    // (N, H), LSTM only
    Tape<R> tape;  // empty where nothing was to be kept
};

template <class R>
struct Gradients {
    Array<R> x;          // (T, N, D)
    Array<R> h, c;       // (N, H): with respect to the initial state; c for the LSTM only
    Array<R> weight_ih;  // (G*H, D)
    Array<R> weight_hh;  // (G*H, H)
    Array<R> bias_ih;    // (G*H,), where there are biases
    Array<R> bias_hh;
};

// What a backward call writes down of the gradient's way through time, where it is asked to. What is
// beyond a sequence's end is zero.
template <class R>
struct Trace {
    bool full = false;   // whether what stands after the norms is wanted
    Array<R> recurrent;  // (T, N, H): of dL/dh_t what step t+1 handed back; the rest of it is dy_t
    Array<R> c;          // (T, N, H): dL/dc_t, LSTM only
    // (T, 4): the norm of step t's own share of the gradient of weight_ih, weight_hh, bias_ih, bias_hh
    Array<double> norms;
    // (T, ...): these shares, as of weight_hh delta_t^T h_{t-1}; the biases' also of a layer without them
    Array<R> weight_ih, weight_hh, bias_ih, bias_hh;
    Array<R> delta;  // (T, N, G*H): dL/d(W_hh h + b_hh)
};

// Runs the cell over all steps. With keep = false no tape is made (inference).
// Throws std::invalid_argument naming the argument for a shape or a value that does not fit.
template <class R>
BPTT_API Forward<R> forward(Cell cell, View<const R> x, const Weights<R>& weights,
                            const State<R>& initial = {}, const Steps& steps = {}, bool keep = true);

// Gradients from dy = dL/dy (T, N, H), which may be not given (zero), and the gradient with respect
// to the final state. Reduction::mean divides the weights' and biases' gradients by the number of valid
// (step, sequence) pairs, Reduction::mean_sequences by the number of sequences of any length but zero. Throws
// std::invalid_argument, also for a tape that was consumed.
template <class R>
BPTT_API Gradients<R> backward(Tape<R>& tape, View<const R> dy, const State<R>& dstate = {},
                               Reduction reduction = Reduction::sum, bool retain = false,
                               Trace<R>* trace = nullptr);

// A layer's two directions at the same time: the first as `steps` says, the second the other way.
// They are two calls of `forward`, and of `backward`, and have their bits; where there are threads for it
// they run side by side. The tapes must be of one cell and one shape.
template <class R>
BPTT_API std::array<Forward<R>, 2> forward_both(Cell cell, View<const R> x,
                                                const std::array<Weights<R>, 2>& weights,
                                                const std::array<State<R>, 2>& initial = {},
                                                const Steps& steps = {}, bool keep = true);
template <class R>
BPTT_API std::array<Gradients<R>, 2> backward_both(const std::array<Tape<R>*, 2>& tapes,
                                                   const std::array<View<const R>, 2>& dy,
                                                   const std::array<State<R>, 2>& dstate = {},
                                                   bool retain = false);

}  // namespace bptt
