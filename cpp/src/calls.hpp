// Calls of the loops through time, one or several of them at once: their room, running them, what comes of
// it. What is given was checked; recurrent.cpp's calls and stack.cpp's are made of these.
#pragma once

#include <array>
#include <vector>

#include "bptt/recurrent.hpp"

namespace bptt::detail {

// Whether of several calls each reads what the one before it writes, and who is told of what is written
// (kernels::Calls).
struct Chain {
    bool chained = false;
    void (*passed)(const void* context, int call, Index first, Index last) = nullptr;
    const void* context = nullptr;

    Chain() = default;
    // told(call, first, last), on the thread that wrote it, before the next call reads it.
    template <class Told>
    explicit Chain(const Told& told)
        : chained(true),
          passed([](const void* it, int call, Index first, Index last) {
              (*static_cast<const Told*>(it))(call, first, last);
          }),
          context(&told) {}
};

// What a kernel made of weights that many calls will have; it keeps their memory.
template <class R>
struct Prepared {
    using Arrays = std::array<Array<R>, 4>;  // weight_ih, weight_hh, bias_ih, bias_hh

    Prepared(Cell cell, const Arrays& arrays);
    ~Prepared();
    Prepared(const Prepared&) = delete;
    Prepared& operator=(const Prepared&) = delete;

    // The kernel's own object; null where these are other weights.
    void* of(Cell cell, const Weights<R>& weights) const;

private:
    const Cell cell_;
    const Arrays arrays_;
    void* const made_;
};

// Room for what a forward call writes, and the initial state in its slot. Without keep the caller drops it.
template <class R>
Tape<R> new_tape(Cell cell, const Dims& dims, const View<const R>& x, const Weights<R>& weights,
                 const State<R>& initial, const Steps& steps, bool keep);
template <class R>
void run_forward(const std::vector<Tape<R>>& tapes, bool keep, const Chain& chain = {});
// The hidden states of all steps, in the tape's memory.
template <class R>
Array<R> outputs(const Tape<R>& tape);
template <class R>
Forward<R> forward_result(Tape<R> tape, bool keep);

// One backward call; the trace may be null.
template <class R>
struct BackwardCall {
    const Tape<R>* tape;
    View<const R> dy;
    const Gradients<R>* gradients;
    const Trace<R>* trace = nullptr;
};

// Room for the gradients, that of x given or none yet; the states' begin as the final state's, the weights'
// of a call without steps are zero.
template <class R>
Gradients<R> new_gradients(const Tape<R>& tape, const State<R>& dstate, Array<R> dx = {});
template <class R>
void run_backward(const std::vector<BackwardCall<R>>& calls, const Chain& chain = {});
template <class R>
void consume(Tape<R>& tape);

}  // namespace bptt::detail
