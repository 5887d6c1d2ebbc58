#include "bptt/recurrent.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "arrays.hpp"
#include "calls.hpp"
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
    std::vector<Tape<R>> tapes{detail::new_tape(cell, dims, x, weights, initial, steps, keep)};
    detail::run_forward(tapes, keep);
    return detail::forward_result(std::move(tapes[0]), keep);
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
    std::vector<Tape<R>> tapes{detail::new_tape(cell, dims, x, weights[0], initial[0], steps, keep),
                               detail::new_tape(cell, dims, x, weights[1], initial[1], other, keep)};
    detail::run_forward(tapes, keep);
    return {detail::forward_result(std::move(tapes[0]), keep),
            detail::forward_result(std::move(tapes[1]), keep)};
}

template <class R>
Gradients<R> backward(Tape<R>& tape, View<const R> dy, const State<R>& dstate, Reduction reduction,
                      bool retain, Trace<R>* trace) {
    const Dims& dims = tape.dims;
    validate::backward(caller(tape.cell, "_backward"), tape, dy, dstate);
    Gradients<R> grads = detail::new_gradients(tape, dstate);
    if (trace != nullptr)
        make_room(*trace, dims, cell_gates(tape.cell), cell_has_c(tape.cell), tape.steps.lengths.given);
    detail::run_backward<R>({{&tape, dy, &grads, trace}});
    if (reduction != Reduction::sum) {
        const Index count =
            reduction == Reduction::mean ? valid_steps(dims, tape.steps) : valid_sequences(dims, tape.steps);
        for (const Array<R>* array : {&grads.weight_ih, &grads.weight_hh, &grads.bias_ih, &grads.bias_hh})
            divide(*array, count);
    }
    if (!retain) detail::consume(tape);
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
    std::array<Gradients<R>, 2> grads{detail::new_gradients(first, dstate[0]),
                                      detail::new_gradients(second, dstate[1])};
    detail::run_backward<R>({{&first, dy[0], &grads[0]}, {&second, dy[1], &grads[1]}});
    if (!retain)
        for (Tape<R>* tape : tapes) detail::consume(*tape);
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
