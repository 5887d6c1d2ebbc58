#include "bptt/recurrent.hpp"

#include <algorithm>
#include <cstring>

#include "arrays.hpp"
#include "bptt/runtime.hpp"
#include "dispatch.hpp"
#include "validate.hpp"

namespace bptt {
namespace {

struct Facts {
    const char* name;
    Index gates;
    bool has_c;
};

constexpr Facts kFacts[] = {{"rnn_tanh", 1, false}, {"rnn_relu", 1, false}, {"rnn_identity", 1, false},
                            {"lstm", 4, true},      {"gru", 3, false},      {"gru_reset_before", 3, false}};
static_assert(sizeof kFacts / sizeof kFacts[0] == kernels::kCells, "one line of facts a cell");

const Facts& facts(Cell cell) { return kFacts[static_cast<int>(cell)]; }

// "lstm_forward": the public name of what was called.
validate::Caller caller(Cell cell, const char* direction) {
    const std::string name = facts(cell).name;
    return validate::Caller(name.substr(0, name.find('_')) + direction);
}

template <class R>
void copy_or_clear(R* to, const View<const R>& from, Index count) {
    if (from)
        std::copy_n(from.data, count, to);
    else
        std::fill_n(to, count, R(0));
}

Index valid_steps(const Dims& dims, const Steps& steps) {
    if (!steps.lengths) return dims.T * dims.N;
    Index sum = 0;
    for (Index n = 0; n < dims.N; ++n) sum += steps.lengths.data[n];
    return sum;
}

Index valid_sequences(const Dims& dims, const Steps& steps) {
    if (!steps.lengths) return dims.T > 0 ? dims.N : 0;
    return dims.N - std::count(steps.lengths.data, steps.lengths.data + dims.N, 0);
}

template <class R>
void divide(const Array<R>& array, Index by) {
    if (!array) return;
    const R factor = R(1) / static_cast<R>(std::max<Index>(by, 1));
    for (Index i = 0; i < array.elements(); ++i) array.data()[i] *= factor;
}

// Room for what a forward call writes, and the initial state in its slot. Without keep the caller drops it.
template <class R>
Tape<R> new_tape(Cell cell, const Dims& dims, const View<const R>& x, const Weights<R>& weights,
                 const State<R>& initial, const Steps& steps, bool keep) {
    const bool has_c = cell_has_c(cell);
    const Index states = dims.N * dims.H,
                kept = detail::table<kernels::ForwardTable<R>>().kept[static_cast<int>(cell)];
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
kernels::ForwardArgs<R> forward_args(const Tape<R>& tape, bool keep) {
    return {tape.dims,
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
            static_cast<int>(get_num_threads())};
}

template <class R>
Forward<R> forward_result(const Tape<R>& tape, bool keep) {
    const Dims& dims = tape.dims;
    const Steps& steps = tape.steps;
    Forward<R> result;
    result.y = steps.reverse ? tape.h.slice(0, dims.T) : tape.h.slice(1, dims.T + 1);
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
    if (keep) result.tape = tape;
    return result;
}

template <class R>
void make_room(Trace<R>& trace, const Dims& dims, Index G, bool has_c, bool lengths) {
    // Without lengths every entry is written.
    const auto states = [&] {
        const Shape shape{dims.T, dims.N, dims.H};
        return lengths ? zeros<R>(shape) : Array<R>(shape);
    };
    trace.recurrent = states();
    trace.c = has_c ? states() : Array<R>();
    trace.norms = zeros<double>({dims.T, 4});
    if (!trace.full) return;
    trace.weight_ih = zeros<R>({dims.T, G * dims.H, dims.D});
    trace.weight_hh = zeros<R>({dims.T, G * dims.H, dims.H});
    trace.bias_ih = zeros<R>({dims.T, G * dims.H});
    trace.bias_hh = zeros<R>({dims.T, G * dims.H});
    trace.delta = zeros<R>({dims.T, dims.N, G * dims.H});
}

// Room for the gradients; the states' begin as the final state's, the weights' of a call without steps are
// zero.
template <class R>
Gradients<R> new_gradients(const Tape<R>& tape, const State<R>& dstate) {
    const Dims& dims = tape.dims;
    const bool has_c = cell_has_c(tape.cell);
    const Index G = cell_gates(tape.cell), states = dims.N * dims.H;
    Gradients<R> grads;
    grads.x = Array<R>({dims.T, dims.N, dims.D});
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
kernels::BackwardArgs<R> backward_args(const Tape<R>& tape, const View<const R>& dy,
                                       const Gradients<R>& grads, const Trace<R>& trace = {}) {
    return {tape.dims,
            tape.x.data,
            tape.weights.weight_ih.data,
            tape.weights.weight_hh.data,
            tape.steps.lengths.data,
            tape.steps.reset.data,
            tape.steps.reverse,
            tape.h.data(),
            tape.c.data(),
            tape.gates.data(),
            dy.data,
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

template <class R>
void consume(Tape<R>& tape) {
    tape.gates = Array<R>();
    tape.c = Array<R>();
    tape.consumed = true;
}

}  // namespace

const char* cell_name(Cell cell) { return facts(cell).name; }
Index cell_gates(Cell cell) { return facts(cell).gates; }
bool cell_has_c(Cell cell) { return facts(cell).has_c; }

Cell cell_from_name(const std::string& name) {
    std::string names;
    for (int i = 0; i < kernels::kCells; ++i) {
        if (name == kFacts[i].name) return static_cast<Cell>(i);
        names += (i > 0 ? ", " : "") + std::string(kFacts[i].name);
    }
    validate::fail("cell is \"" + name + "\", expected one of " + names);
}

template <class R>
Forward<R> forward(Cell cell, View<const R> x, const Weights<R>& weights, const State<R>& initial,
                   const Steps& steps, bool keep) {
    const Dims dims = validate::forward(caller(cell, "_forward"), cell, x, weights, initial, steps);
    Tape<R> tape = new_tape(cell, dims, x, weights, initial, steps, keep);
    if (dims.T > 0 && dims.N > 0)
        detail::table<kernels::ForwardTable<R>>().forward[static_cast<int>(cell)](forward_args(tape, keep));
    return forward_result(tape, keep);
}

template <class R>
std::array<Forward<R>, 2> forward_both(Cell cell, View<const R> x, const std::array<Weights<R>, 2>& weights,
                                       const std::array<State<R>, 2>& initial, const Steps& steps,
                                       bool keep) {
    Dims dims;
    for (std::size_t i = 0; i < 2; ++i)
        dims = validate::forward(caller(cell, "_forward"), cell, x, weights[i], initial[i], steps);
    if (weights[0].weight_hh.shape != weights[1].weight_hh.shape)
        caller(cell, "_forward").fail("the directions' weight_hh differ in shape, expected the same H");
    Steps other = steps;
    other.reverse = !steps.reverse;
    std::array<Tape<R>, 2> tapes{new_tape(cell, dims, x, weights[0], initial[0], steps, keep),
                                 new_tape(cell, dims, x, weights[1], initial[1], other, keep)};
    if (dims.T > 0 && dims.N > 0) {
        const kernels::ForwardArgs<R> two[] = {forward_args(tapes[0], keep), forward_args(tapes[1], keep)};
        detail::table<kernels::PairTable<R>>().forward[static_cast<int>(cell)](two);
    }
    return {forward_result(tapes[0], keep), forward_result(tapes[1], keep)};
}

template <class R>
Gradients<R> backward(Tape<R>& tape, View<const R> dy, const State<R>& dstate, Reduction reduction,
                      bool retain, Trace<R>* trace) {
    const Dims& dims = tape.dims;
    validate::backward(caller(tape.cell, "_backward"), tape, dy, dstate);
    if (trace != nullptr && tape.steps.reverse)
        caller(tape.cell, "_backward")
            .fail("tape runs in reverse, expected one that runs forward to be traced");
    Gradients<R> grads = new_gradients(tape, dstate);
    if (trace != nullptr)
        make_room(*trace, dims, cell_gates(tape.cell), cell_has_c(tape.cell), tape.steps.lengths.given);
    if (dims.T > 0 && dims.N > 0)
        detail::table<kernels::BackwardTable<R>>().backward[static_cast<int>(tape.cell)](
            backward_args(tape, dy, grads, trace != nullptr ? *trace : Trace<R>()));
    if (reduction != Reduction::sum) {
        const Index count =
            reduction == Reduction::mean ? valid_steps(dims, tape.steps) : valid_sequences(dims, tape.steps);
        for (const Array<R>* array : {&grads.weight_ih, &grads.weight_hh, &grads.bias_ih, &grads.bias_hh})
            divide(*array, count);
    }
    if (!retain) consume(tape);
    return grads;
}

template <class R>
std::array<Gradients<R>, 2> backward_both(const std::array<Tape<R>*, 2>& tapes,
                                          const std::array<View<const R>, 2>& dy,
                                          const std::array<State<R>, 2>& dstate, bool retain) {
    const Tape<R>&first = *tapes[0], &second = *tapes[1];
    const validate::Caller who = caller(first.cell, "_backward");
    for (std::size_t i = 0; i < 2; ++i) validate::backward(who, *tapes[i], dy[i], dstate[i]);
    if (&first == &second || first.cell != second.cell || first.h.shape() != second.h.shape() ||
        first.x.shape != second.x.shape)
        who.fail("the two tapes are not of one layer's two directions");
    std::array<Gradients<R>, 2> grads{new_gradients(first, dstate[0]), new_gradients(second, dstate[1])};
    if (first.dims.T > 0 && first.dims.N > 0) {
        const kernels::BackwardArgs<R> two[] = {backward_args(first, dy[0], grads[0]),
                                                backward_args(second, dy[1], grads[1])};
        detail::table<kernels::PairTable<R>>().backward[static_cast<int>(first.cell)](two);
    }
    if (!retain)
        for (Tape<R>* tape : tapes) consume(*tape);
    return grads;
}

template Forward<float> forward(Cell, View<const float>, const Weights<float>&, const State<float>&,
                                const Steps&, bool);
template Forward<double> forward(Cell, View<const double>, const Weights<double>&, const State<double>&,
                                 const Steps&, bool);
template Gradients<float> backward(Tape<float>&, View<const float>, const State<float>&, Reduction, bool,
                                   Trace<float>*);
template Gradients<double> backward(Tape<double>&, View<const double>, const State<double>&, Reduction, bool,
                                    Trace<double>*);
template std::array<Forward<float>, 2> forward_both(Cell, View<const float>,
                                                    const std::array<Weights<float>, 2>&,
                                                    const std::array<State<float>, 2>&, const Steps&, bool);
template std::array<Forward<double>, 2> forward_both(Cell, View<const double>,
                                                     const std::array<Weights<double>, 2>&,
                                                     const std::array<State<double>, 2>&, const Steps&, bool);
template std::array<Gradients<float>, 2> backward_both(const std::array<Tape<float>*, 2>&,
                                                       const std::array<View<const float>, 2>&,
                                                       const std::array<State<float>, 2>&, bool);
template std::array<Gradients<double>, 2> backward_both(const std::array<Tape<double>*, 2>&,
                                                        const std::array<View<const double>, 2>&,
                                                        const std::array<State<double>, 2>&, bool);

}  // namespace bptt
