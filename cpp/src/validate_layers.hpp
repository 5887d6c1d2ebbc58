// The checks of whole layers.
#pragma once

#include <string>

#include "bptt/layers.hpp"
#include "validate.hpp"

namespace bptt::validate {

// What the Python layer of a cell is called: RNN, LSTM or GRU.
inline std::string layer_name(Cell cell) {
    if (cell == Cell::lstm) return "LSTM";
    return cell == Cell::gru || cell == Cell::gru_reset_before ? "GRU" : "RNN";
}
template <class R>
Caller layer_caller(const Recurrent<R>& layer, const char* function) {
    return Caller(layer_name(layer.cell) + function);
}

template <class R>
Weights<R> weights_of(const typename Recurrent<R>::Row& row) {
    return {row.weight_ih, row.weight_hh, row.bias_ih, row.bias_hh, row.prepared.get()};
}

inline void options(const Caller& caller, Index num_layers, double dropout) {
    if (num_layers < 1)
        caller.fail("num_layers is " + std::to_string(num_layers) + ", expected an integer >= 1");
    if (!(dropout >= 0 && dropout < 1))
        caller.fail("dropout is " + std::to_string(dropout) + ", expected a number in [0, 1)");
    if (dropout > 0 && num_layers == 1)
        caller.fail("dropout is " + std::to_string(dropout) +
                    ", expected 0 with num_layers = 1: it acts between layers");
}

// That a layer's parts fit each other.
template <class R>
void layer(const Caller& caller, const Recurrent<R>& layer) {
    options(caller, layer.num_layers, layer.dropout);
    const auto rows = static_cast<std::size_t>(layer.num_layers * layer.directions());
    if (layer.rows.size() != rows)
        caller.fail("rows has " + std::to_string(layer.rows.size()) +
                    " entries, expected num_layers*directions = " + std::to_string(rows));
    Index H = 0;
    for (std::size_t i = 0; i < rows; ++i) {
        const Weights<R> its = weights_of<R>(layer.rows[i]);
        const bool above = i >= static_cast<std::size_t>(layer.directions());
        const Index D = above ? layer.directions() * H : i > 0 ? layer.input_size() : -1;
        const Index its_H = weights(caller, layer.cell, its, D);
        if (i > 0 && its_H != H)
            caller.fail("weight_hh of row " + std::to_string(i) + " has H = " + std::to_string(its_H) +
                        ", expected " + std::to_string(H) + ", as in row 0");
        H = its_H;
    }
    const Shape learned{static_cast<Index>(rows), H};
    if (layer.initial_h)
        caller.shape(View<R>(layer.initial_h), "initial_h", learned, "(num_layers*directions, H)");
    if (!layer.initial_c) return;
    if (!cell_has_c(layer.cell)) caller.fail("initial_c is given, which only the LSTM has");
    caller.shape(View<R>(layer.initial_c), "initial_c", learned, "(num_layers*directions, H)");
}

// A state or the gradient with respect to one, of a layer that is right itself.
template <class R>
void stacked(const Caller& caller, const Recurrent<R>& layer, const State<R>& state, Index N,
             const char* name) {
    const Shape shape{static_cast<Index>(layer.rows.size()), N, layer.hidden_size()};
    const char* const letters = layer.bidirectional ? "(num_layers*directions, N, H)" : "(num_layers, N, H)";
    const bool pair = cell_has_c(layer.cell);
    if (state.h) caller.shape(state.h, pair ? (std::string(name) + "[0]").c_str() : name, shape, letters);
    if (!state.c) return;
    if (!pair) caller.fail(std::string(name) + " has a c, which only the LSTM has");
    caller.shape(state.c, (std::string(name) + "[1]").c_str(), shape, letters);
}

template <class R>
Dims forward(const Caller& caller, const Recurrent<R>& its, const View<const R>& x, const State<R>& state,
             const Steps& its_steps, const Masks& masks) {
    layer(caller, its);
    const Index D = its.input_size(), H = its.hidden_size();
    caller.present(x, "x");
    if (x.shape.rank != 3 || x.shape[2] != D)
        caller.fail("x has shape " + text(x.shape) + ", expected (T, N, D) with D = " + std::to_string(D));
    const Dims dims{x.shape[0], x.shape[1], D, H};
    stacked(caller, its, state, dims.N, "state");
    steps(caller, its_steps, dims);
    if (its_steps.reverse) caller.fail("steps.reverse is true, expected false: see `bidirectional`");
    if (!masks.empty() && masks.size() != static_cast<std::size_t>(its.num_layers - 1))
        caller.fail("masks has " + std::to_string(masks.size()) +
                    " entries, expected num_layers - 1 = " + std::to_string(its.num_layers - 1));
    for (std::size_t i = 0; i < masks.size(); ++i)
        caller.shape(View<bool>(masks[i]), entry("masks", i).c_str(), {dims.T, dims.N, its.directions() * H},
                     "(T, N, directions*H)");
    return dims;
}

// Returns N.
template <class R>
Index step(const Caller& caller, const Recurrent<R>& its, const View<const R>& x_t, const State<R>& state) {
    layer(caller, its);
    if (its.bidirectional)
        caller.fail(
            "the layer is bidirectional, and its backward direction begins at the end of the sequence, "
            "expected a layer of one direction");
    caller.present(x_t, "x_t");
    if (x_t.shape.rank != 2 || x_t.shape[1] != its.input_size())
        caller.fail("x_t has shape " + text(x_t.shape) + ", expected (N, " +
                    std::to_string(its.input_size()) + ")");
    stacked(caller, its, state, x_t.shape[0], "state");
    return x_t.shape[0];
}

// A tape that a layer's backward is given. Whether it is of this layer, `own` says.
template <class R>
void tape(const Caller& caller, const LayerTape<R>& tape, bool own) {
    if (tape.consumed)
        caller.fail(
            "tape was consumed by an earlier backward call, expected a fresh one (retain keeps a tape)");
    if (!own) caller.fail("tape was made by another layer");
}

template <class R>
void backward(const Recurrent<R>& its, const LayerTape<R>& its_tape, const View<const R>& dy,
              const State<R>& dstate) {
    const Caller caller = layer_caller(its, ".backward");
    layer(caller, its);
    bool own = its_tape.rows.size() == its.rows.size();
    for (std::size_t i = 0; own && i < its.rows.size(); ++i)
        own = its_tape.rows[i].weights.weight_hh.data == its.rows[i].weight_hh.data();
    tape(caller, its_tape, own);
    const Dims& dims = its_tape.rows[0].dims;
    if (dy)
        caller.shape(dy, "dy", {dims.T, dims.N, its.directions() * dims.H},
                     its.bidirectional ? "(T, N, 2*H)" : "(T, N, H)");
    stacked(caller, its, dstate, dims.N, "dstate");
}

template <class R>
void backward(const Linear<R>& its, const LayerTape<R>& its_tape, const View<const R>& dy) {
    const Caller caller("Linear.backward");
    const View<const R>& x = its_tape.input.x;
    tape(caller, its_tape, x.given);
    linear(caller, x, View<const R>(its.weight));
    if (dy)
        caller.shape(dy, "dy", with_last(caller, "x", x.shape, x.shape.rank - 1, its.weight.shape()[0]),
                     "(..., V)");
}

template <class R>
void backward(const Embedding<R>& its, const LayerTape<R>& its_tape, const View<const R>& dy) {
    const Caller caller("Embedding.backward");
    const View<const std::int64_t>& index = its_tape.input.index;
    tape(caller, its_tape, index.given);
    if (dy)
        caller.shape(dy, "dy",
                     with_last(caller, "index", index.shape, index.shape.rank, its.weight.shape()[1]),
                     "index's (...) and E");
}

template <class R>
void backward(const Activation<R>&, const LayerTape<R>& its_tape, const View<const R>& dy) {
    const Caller caller("Activation.backward");
    tape(caller, its_tape, static_cast<bool>(its_tape.output));
    if (dy) caller.same_shape(dy, "dy", its_tape.output.shape(), "y");
}

}  // namespace bptt::validate
