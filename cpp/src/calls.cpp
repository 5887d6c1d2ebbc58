#include "calls.hpp"

#include <algorithm>
#include <utility>

#include "bptt/runtime.hpp"
#include "dispatch.hpp"

namespace bptt::detail {
namespace {

template <class R>
void copy_or_clear(R* to, const View<const R>& from, Index count) {
    if (from)
        std::copy_n(from.data, count, to);
    else
        std::fill_n(to, count, R(0));
}

template <class R>
kernels::ForwardArgs<R> forward_args(const Tape<R>& tape, bool keep) {
    return {tape.cell,
            tape.dims,
            tape.x.data,
            tape.weights.weight_ih.data,
            tape.weights.weight_hh.data,
            tape.weights.bias_ih.data,
            tape.weights.bias_hh.data,
            tape.steps.lengths.data,
            tape.steps.reset.data,
            tape.steps.reverse,
            tape.h.data(),
            tape.c.data(),
            tape.gates.data(),
            keep,
            static_cast<int>(get_num_threads()),
            tape.weights.prepared != nullptr ? tape.weights.prepared->of(tape.cell, tape.weights) : nullptr};
}

template <class R>
kernels::BackwardArgs<R> backward_args(const BackwardCall<R>& call) {
    const Tape<R>& tape = *call.tape;
    const Gradients<R>& grads = *call.gradients;
    const Trace<R>& trace = call.trace != nullptr ? *call.trace : Trace<R>();
    return {tape.cell,
            tape.dims,
            tape.x.data,
            tape.weights.weight_ih.data,
            tape.weights.weight_hh.data,
            tape.steps.lengths.data,
            tape.steps.reset.data,
            tape.steps.reverse,
            tape.h.data(),
            tape.c.data(),
            tape.gates.data(),
            call.dy.data,
            grads.x.data(),
            grads.h.data(),
            grads.c.data(),
            grads.weight_ih.data(),
            grads.weight_hh.data(),
            grads.bias_ih.data(),
            grads.bias_hh.data(),
            static_cast<int>(get_num_threads()),
            {trace.recurrent.data(), trace.c.data(), trace.norms.data(), trace.weight_ih.data(),
             trace.weight_hh.data(), trace.bias_ih.data(), trace.bias_hh.data(), trace.delta.data()}};
}

// The tape of any of the calls tells which kernel is asked, and whether there is something to do.
template <class R, class Kernel, class Args>
void run(const Tape<R>& tape, const Kernel& kernel, const std::vector<Args>& args, const Chain& chain) {
    if (tape.dims.T == 0 || tape.dims.N == 0) return;
    kernel[static_cast<int>(tape.cell)](
        {args.data(), static_cast<int>(args.size()), chain.chained, chain.passed, chain.context});
}

}  // namespace

template <class R>
Prepared<R>::Prepared(Cell cell, const Arrays& arrays)
    : cell_(cell),
      arrays_(arrays),
      made_(table<kernels::ForwardTable<R>>().prepare[static_cast<int>(cell)](
          {cell, arrays[0].shape()[1], arrays[1].shape()[1], arrays[0].data(), arrays[1].data(),
           arrays[2].data(), arrays[3].data()})) {}

template <class R>
Prepared<R>::~Prepared() {
    table<kernels::ForwardTable<R>>().forget[static_cast<int>(cell_)](made_);
}

template <class R>
void* Prepared<R>::of(Cell cell, const Weights<R>& weights) const {
    const bool same = cell == cell_ && weights.weight_ih.data == arrays_[0].data() &&
                      weights.weight_hh.data == arrays_[1].data() &&
                      weights.bias_ih.data == arrays_[2].data() && weights.bias_hh.data == arrays_[3].data();
    return same ? made_ : nullptr;
}

template <class R>
Tape<R> new_tape(Cell cell, const Dims& dims, const View<const R>& x, const Weights<R>& weights,
                 const State<R>& initial, const Steps& steps, bool keep) {
    const bool has_c = cell_has_c(cell);
    const Index states = dims.N * dims.H,
                kept = table<kernels::ForwardTable<R>>().kept[static_cast<int>(cell)];
    Tape<R> tape;
    tape.cell = cell;
    tape.dims = dims;
    tape.x = x;
    tape.weights = weights;
    tape.steps = steps;
    tape.h = Array<R>({dims.T + 1, dims.N, dims.H});
    if (has_c) tape.c = keep ? Array<R>({dims.T + 1, dims.N, dims.H}) : Array<R>({dims.N, dims.H});
    if (keep && kept > 0) tape.gates = Array<R>({dims.T, dims.N, kept * dims.H});
    const Index first = steps.reverse ? dims.T * states : 0;
    copy_or_clear(tape.h.data() + first, initial.h, states);
    if (has_c) copy_or_clear(tape.c.data() + (keep ? first : 0), initial.c, states);
    return tape;
}

template <class R>
void run_forward(const std::vector<Tape<R>>& tapes, bool keep, const Chain& chain) {
    std::vector<kernels::ForwardArgs<R>> args;
    args.reserve(tapes.size());
    for (const Tape<R>& tape : tapes) args.push_back(forward_args(tape, keep));
    run(tapes[0], table<kernels::ForwardTable<R>>().forward, args, chain);
}

template <class R>
Array<R> outputs(const Tape<R>& tape) {
    return tape.steps.reverse ? tape.h.slice(0, tape.dims.T) : tape.h.slice(1, tape.dims.T + 1);
}

template <class R>
Forward<R> forward_result(Tape<R> tape, bool keep) {
    const Dims& dims = tape.dims;
    const Steps& steps = tape.steps;
    Forward<R> result;
    result.y = outputs(tape);
    // The final state is a copy: y may be written to by its owner, and outlives the tape's c.
    const auto last = [&](const Array<R>& slots) {
        Array<R> final({dims.N, dims.H});
        for (Index n = 0; n < dims.N; ++n) {
            const Index length = steps.lengths ? steps.lengths.data[n] : dims.T;
            const Index slot = !steps.reverse ? length : length > 0 ? 0 : dims.T;
            std::copy_n(slots.data() + (slot * dims.N + n) * dims.H, dims.H, final.data() + n * dims.H);
        }
        return final;
    };
    result.h = last(tape.h);
    if (cell_has_c(tape.cell)) result.c = keep ? last(tape.c) : tape.c;
    if (keep) result.tape = std::move(tape);
    return result;
}

template <class R>
Gradients<R> new_gradients(const Tape<R>& tape, const State<R>& dstate, Array<R> dx) {
    const Dims& dims = tape.dims;
    const bool has_c = cell_has_c(tape.cell);
    const Index G = cell_gates(tape.cell), states = dims.N * dims.H;
    Gradients<R> grads;
    grads.x = dx ? std::move(dx) : Array<R>({dims.T, dims.N, dims.D});
    grads.h = Array<R>({dims.N, dims.H});
    if (has_c) grads.c = Array<R>({dims.N, dims.H});
    grads.weight_ih = Array<R>({G * dims.H, dims.D});
    grads.weight_hh = Array<R>({G * dims.H, dims.H});
    if (tape.weights.bias_ih) {
        grads.bias_ih = Array<R>({G * dims.H});
        grads.bias_hh = Array<R>({G * dims.H});
    }
    copy_or_clear(grads.h.data(), dstate.h, states);
    if (has_c) copy_or_clear(grads.c.data(), dstate.c, states);
    if (dims.T == 0 || dims.N == 0)
        for (const Array<R>* array : {&grads.weight_ih, &grads.weight_hh, &grads.bias_ih, &grads.bias_hh})
            if (*array) std::fill_n(array->data(), array->elements(), R(0));
    return grads;
}

template <class R>
void run_backward(const std::vector<BackwardCall<R>>& calls, const Chain& chain) {
    std::vector<kernels::BackwardArgs<R>> args;
    args.reserve(calls.size());
    for (const BackwardCall<R>& call : calls) args.push_back(backward_args(call));
    run(*calls[0].tape, table<kernels::BackwardTable<R>>().backward, args, chain);
}

template <class R>
void consume(Tape<R>& tape) {
    tape.gates = Array<R>();
    tape.c = Array<R>();
    tape.consumed = true;
}

#define BPTT_CALLS(R)                                                                                      \
    template struct Prepared<R>;                                                                           \
    template Tape<R> new_tape(Cell, const Dims&, const View<const R>&, const Weights<R>&, const State<R>&, \
                              const Steps&, bool);                                                         \
    template void run_forward(const std::vector<Tape<R>>&, bool, const Chain&);                            \
    template Array<R> outputs(const Tape<R>&);                                                             \
    template Forward<R> forward_result(Tape<R>, bool);                                                     \
    template Gradients<R> new_gradients(const Tape<R>&, const State<R>&, Array<R>);                        \
    template void run_backward(const std::vector<BackwardCall<R>>&, const Chain&);                         \
    template void consume(Tape<R>&);
BPTT_CALLS(float)
BPTT_CALLS(double)

}  // namespace bptt::detail
