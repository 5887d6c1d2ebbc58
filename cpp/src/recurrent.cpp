#include "bptt/recurrent.hpp"

#include <algorithm>
#include <cstring>

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

template <class E>
Array<E> zeros(const Shape& shape) {
    Array<E> array(shape);
    std::fill_n(array.data(), array.elements(), E(0));
    return array;
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
    trace.weight_hh = trace.want_weight_hh ? zeros<R>({dims.T, G * dims.H, dims.H}) : Array<R>();
    trace.delta = trace.want_delta ? zeros<R>({dims.T, dims.N, G * dims.H}) : Array<R>();
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
    const auto& table = detail::table_of<R>().recurrent;
    const int index = static_cast<int>(cell);
    const bool has_c = cell_has_c(cell);
    const Index states = dims.N * dims.H;

    Tape<R> tape;
    tape.cell = cell;
    tape.dims = dims;
    tape.x = x;
    tape.weights = weights;
    tape.steps = steps;
    tape.h = Array<R>({dims.T + 1, dims.N, dims.H});
    if (has_c) tape.c = keep ? Array<R>({dims.T + 1, dims.N, dims.H}) : Array<R>({dims.N, dims.H});
    if (keep && table.kept[index] > 0) tape.gates = Array<R>({dims.T, dims.N, table.kept[index] * dims.H});

    const Index first = steps.reverse ? dims.T : 0;  // the slot of the initial state
    copy_or_clear(tape.h.data() + first * states, initial.h, states);
    if (has_c) copy_or_clear(tape.c.data() + (keep ? first * states : 0), initial.c, states);
    if (dims.T > 0 && dims.N > 0)
        table.forward[index]({dims, x.data, weights.weight_ih.data, weights.weight_hh.data,
                              weights.bias_ih.data, weights.bias_hh.data, steps.lengths.data,
                              steps.reset.data, steps.reverse, tape.h.data(), tape.c.data(),
                              tape.gates.data(), keep, static_cast<int>(get_num_threads())});

    Forward<R> result;
    result.y = steps.reverse ? tape.h.slice(0, dims.T) : tape.h.slice(1, dims.T + 1);
    // The final state is a copy: y may be written to by its owner, and outlives the tape's c.
    const auto last = [&](const Array<R>& slots) {
        Array<R> final({dims.N, dims.H});
        for (Index n = 0; n < dims.N; ++n) {
            const Index length = steps.lengths ? steps.lengths.data[n] : dims.T;
            const Index slot = !steps.reverse ? length : length > 0 ? 0 : first;
            std::copy_n(slots.data() + (slot * dims.N + n) * dims.H, dims.H, final.data() + n * dims.H);
        }
        return final;
    };
    result.h = last(tape.h);
    if (has_c) result.c = keep ? last(tape.c) : tape.c;
    if (keep) result.tape = tape;
    return result;
}

template <class R>
Gradients<R> backward(Tape<R>& tape, View<const R> dy, const State<R>& dstate, Reduction reduction,
                      bool retain, Trace<R>* trace) {
    validate::backward(caller(tape.cell, "_backward"), tape, dy, dstate);
    if (trace != nullptr && tape.steps.reverse)
        caller(tape.cell, "_backward")
            .fail("tape runs in reverse, expected one that runs forward to be traced");
    const Dims& dims = tape.dims;
    const int index = static_cast<int>(tape.cell);
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

    Trace<R> none;
    if (trace != nullptr) make_room(*trace, dims, G, has_c, tape.steps.lengths.given);
    const Trace<R>& its = trace != nullptr ? *trace : none;

    copy_or_clear(grads.h.data(), dstate.h, states);
    if (has_c) copy_or_clear(grads.c.data(), dstate.c, states);
    if (dims.T > 0 && dims.N > 0) {
        detail::table_of<R>().recurrent.backward[index]({dims,
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
                                                         its.recurrent.data(),
                                                         its.c.data(),
                                                         its.norms.data(),
                                                         its.weight_hh.data(),
                                                         its.delta.data()});
    } else {
        for (const Array<R>* array : {&grads.weight_ih, &grads.weight_hh, &grads.bias_ih, &grads.bias_hh})
            if (*array) std::fill_n(array->data(), array->elements(), R(0));
    }
    if (reduction != Reduction::sum) {
        const Index count =
            reduction == Reduction::mean ? valid_steps(dims, tape.steps) : valid_sequences(dims, tape.steps);
        for (const Array<R>* array : {&grads.weight_ih, &grads.weight_hh, &grads.bias_ih, &grads.bias_hh})
            divide(*array, count);
    }
    if (!retain) {
        tape.gates = Array<R>();
        tape.c = Array<R>();
        tape.consumed = true;
    }
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

}  // namespace bptt
