// How layers are made, and the layers without a state.
#include "bptt/layers.hpp"

#include <algorithm>
#include <cmath>

#include "arrays.hpp"
#include "bptt/activations.hpp"
#include "bptt/dense.hpp"
#include "validate_layers.hpp"

namespace bptt {
namespace {

void at_least_one(const char* caller, const char* what, Index size) {
    if (size < 1)
        validate::Caller(caller).fail(std::string(what) + " is " + std::to_string(size) +
                                      ", expected an integer >= 1");
}

// In [0, 1). The standard library's distributions differ from one library to the other; this does not.
double uniform(Random& random) { return std::ldexp(static_cast<double>(random() >> 11), -53); }

template <class R>
void draw_uniform(const Array<R>& array, double bound, Random& random) {
    for (Index i = 0; array && i < array.elements(); ++i)
        array.data()[i] = static_cast<R>(bound * (2 * uniform(random) - 1));
}

// By Box & Muller (1958).
double normal(Random& random) {
    const double radius = std::sqrt(-2 * std::log(1 - uniform(random)));
    return radius * std::cos(2 * 3.14159265358979323846 * uniform(random));
}

// Of a layer that treats every step alike: what a tape has to hold of it.
template <class R>
LayerForward<R> result(Array<R> y, const Input<R>& input) {
    LayerForward<R> out;
    out.y = std::move(y);
    out.tape.input = input;
    return out;
}

template <class R>
void close(LayerTape<R>& tape, bool retain) {
    if (retain) return;
    tape = LayerTape<R>();
    tape.consumed = true;
}

}  // namespace

// ---- making ----------------------------------------------------------------------------------------

template <class R>
Linear<R> make_linear(Index in_features, Index out_features, bool bias) {
    at_least_one("make_linear", "in_features", in_features);
    at_least_one("make_linear", "out_features", out_features);
    return {zeros<R>({out_features, in_features}), bias ? zeros<R>({out_features}) : Array<R>()};
}

template <class R>
Embedding<R> make_embedding(Index num_embeddings, Index embedding_dim) {
    at_least_one("make_embedding", "num_embeddings", num_embeddings);
    at_least_one("make_embedding", "embedding_dim", embedding_dim);
    return {zeros<R>({num_embeddings, embedding_dim})};
}

template <class R>
Recurrent<R> make_recurrent(Cell cell, Index input_size, Index hidden_size, const RecurrentOptions& options) {
    at_least_one("make_recurrent", "input_size", input_size);
    at_least_one("make_recurrent", "hidden_size", hidden_size);
    validate::options(validate::Caller("make_recurrent"), options.num_layers, options.dropout);
    Recurrent<R> layer;
    layer.cell = cell;
    layer.num_layers = options.num_layers;
    layer.bidirectional = options.bidirectional;
    layer.dropout = options.dropout;
    const Index H = hidden_size, GH = cell_gates(cell) * H, rows = options.num_layers * layer.directions();
    for (Index i = 0; i < rows; ++i) {
        const Index D = i < layer.directions() ? input_size : layer.directions() * H;
        const auto bias = [&] { return options.bias ? zeros<R>({GH}) : Array<R>(); };
        layer.rows.push_back({zeros<R>({GH, D}), zeros<R>({GH, H}), bias(), bias()});
    }
    if (options.learn_initial_state) {
        layer.initial_h = zeros<R>({rows, H});
        if (cell_has_c(cell)) layer.initial_c = zeros<R>({rows, H});
    }
    return layer;
}

// ---- drawing ---------------------------------------------------------------------------------------

template <class R>
void initialize(Linear<R>& layer, Random& random) {
    const double bound = 1 / std::sqrt(static_cast<double>(layer.weight.shape()[1]));
    draw_uniform(layer.weight, bound, random);
    draw_uniform(layer.bias, bound, random);
}

template <class R>
void initialize(Embedding<R>& layer, Random& random) {
    for (Index i = 0; i < layer.weight.elements(); ++i)
        layer.weight.data()[i] = static_cast<R>(normal(random));
}

template <class R>
void initialize(Recurrent<R>& layer, Random& random) {
    const double bound = 1 / std::sqrt(static_cast<double>(layer.hidden_size()));
    for (const auto& row : layer.rows)
        for (const Array<R>* array : {&row.weight_ih, &row.weight_hh, &row.bias_ih, &row.bias_hh})
            draw_uniform(*array, bound, random);
    for (const Array<R>* array : {&layer.initial_h, &layer.initial_c})
        if (*array) std::fill_n(array->data(), array->elements(), R(0));
}

// ---- the linear map --------------------------------------------------------------------------------

template <class R>
NamedArrays<R> parameters(const Linear<R>& layer) {
    NamedArrays<R> all{{"weight", layer.weight}};
    if (layer.bias) all.push_back({"bias", layer.bias});
    return all;
}

template <class R>
Array<R> predict(const Linear<R>& layer, In<R> x) {
    return linear_forward<R>(x, layer.weight, layer.bias);
}

template <class R>
LayerForward<R> forward(const Linear<R>& layer, In<R> x) {
    return result<R>(predict(layer, x), x);
}

template <class R>
LayerGradients<R> backward(const Linear<R>& layer, LayerTape<R>& tape, In<R> dy, bool retain) {
    validate::backward<R>(layer, tape, dy);
    LayerGradients<R> out;
    if (dy) {
        LinearGradients<R> found =
            linear_backward<R>(tape.input.x, layer.weight, dy, static_cast<bool>(layer.bias));
        out.x = std::move(found.x);
        out.parameters = parameters(Linear<R>{found.weight, found.bias});
    } else {
        out.parameters = parameters(layer);
        for (NamedArray<R>& parameter : out.parameters) parameter.value = zeros<R>(parameter.value.shape());
    }
    close(tape, retain);
    return out;
}

// ---- the embedding ---------------------------------------------------------------------------------

template <class R>
NamedArrays<R> parameters(const Embedding<R>& layer) {
    return {{"weight", layer.weight}};
}

template <class R>
Array<R> predict(const Embedding<R>& layer, View<const std::int64_t> index) {
    return embedding_forward<R>(index, layer.weight);
}

template <class R>
LayerForward<R> forward(const Embedding<R>& layer, View<const std::int64_t> index) {
    return result<R>(predict(layer, index), index);
}

template <class R>
LayerGradients<R> backward(const Embedding<R>& layer, LayerTape<R>& tape, In<R> dy, bool retain) {
    validate::backward<R>(layer, tape, dy);
    const Shape& shape = layer.weight.shape();
    LayerGradients<R> out;
    out.parameters.push_back(
        {"weight", dy ? embedding_backward<R>(tape.input.index, dy, shape[0]) : zeros<R>(shape)});
    close(tape, retain);
    return out;
}

// ---- the activation --------------------------------------------------------------------------------

template <class R>
Array<R> predict(const Activation<R>& layer, In<R> x) {
    return activation_forward<R>(layer.nonlinearity, x);
}

template <class R>
LayerForward<R> forward(const Activation<R>& layer, In<R> x) {
    LayerForward<R> out = result<R>(predict(layer, x), x);
    out.tape.output = out.y;
    return out;
}

template <class R>
LayerGradients<R> backward(const Activation<R>& layer, LayerTape<R>& tape, In<R> dy, bool retain) {
    validate::backward<R>(layer, tape, dy);
    LayerGradients<R> out;
    if (dy) out.x = activation_backward<R>(layer.nonlinearity, tape.output, dy);
    close(tape, retain);
    return out;
}

#define BPTT_LAYERS(R)                                                                    \
    template Linear<R> make_linear(Index, Index, bool);                                   \
    template Embedding<R> make_embedding(Index, Index);                                   \
    template Recurrent<R> make_recurrent(Cell, Index, Index, const RecurrentOptions&);    \
    template void initialize(Linear<R>&, Random&);                                        \
    template void initialize(Embedding<R>&, Random&);                                     \
    template void initialize(Recurrent<R>&, Random&);                                     \
    template NamedArrays<R> parameters(const Linear<R>&);                                 \
    template Array<R> predict(const Linear<R>&, In<R>);                                   \
    template LayerForward<R> forward(const Linear<R>&, In<R>);                            \
    template LayerGradients<R> backward(const Linear<R>&, LayerTape<R>&, In<R>, bool);    \
    template NamedArrays<R> parameters(const Embedding<R>&);                              \
    template Array<R> predict(const Embedding<R>&, View<const std::int64_t>);             \
    template LayerForward<R> forward(const Embedding<R>&, View<const std::int64_t>);      \
    template LayerGradients<R> backward(const Embedding<R>&, LayerTape<R>&, In<R>, bool); \
    template Array<R> predict(const Activation<R>&, In<R>);                               \
    template LayerForward<R> forward(const Activation<R>&, In<R>);                        \
    template LayerGradients<R> backward(const Activation<R>&, LayerTape<R>&, In<R>, bool);
BPTT_LAYERS(float)
BPTT_LAYERS(double)

}  // namespace bptt
