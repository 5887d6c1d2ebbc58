// Layers and chains of them: parameters with a forward and a backward.
//
//   bptt::Random random(0);
//   bptt::Model<float> model = bptt::sequential<float>({bptt::make_recurrent<float>(bptt::Cell::lstm, 1, 32),
//                                                       bptt::make_linear<float>(32, 1)});
//   bptt::initialize(model, random);
//   auto run = bptt::forward(model, x);                              // x (T, N, 1)
//   auto loss = bptt::mse<float>(run.y, target);
//   auto gradients = bptt::backward(model, run.tape, loss.gradient);  // in the order of parameters(model)
//
// Layers are plain structs, and states and tapes are values that the caller holds. They compute what Python's
// layers of the same names compute, to the bit: those stand on these. Only what is drawn at random differs:
// here by std::mt19937_64, in Python by NumPy's generators.
//
// Everything here throws std::invalid_argument naming the argument for a shape or a value that does not fit.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "bptt/optim.hpp"
#include "bptt/recurrent.hpp"

namespace bptt {

using Random = std::mt19937_64;

template <class R>
struct NamedArray {
    std::string name;
    Array<R> value;
};
template <class R>
using NamedArrays = std::vector<NamedArray<R>>;

// Views of the arrays, in order, as optimizers take them.
template <class R>
Arrays<R> views(const NamedArrays<R>& arrays) {
    Arrays<R> all;
    for (const NamedArray<R>& array : arrays) all.push_back(array.value);
    return all;
}
template <class R>
Arrays<const R> const_views(const NamedArrays<R>& arrays) {
    Arrays<const R> all;
    for (const NamedArray<R>& array : arrays) all.push_back(array.value);
    return all;
}

// ---- what a layer is -------------------------------------------------------------------------------

// y = x @ weight^T + bias at every step.
template <class R>
struct Linear {
    Array<R> weight;  // (V, D)
    Array<R> bias;    // (V,), or none
};

// A row of `weight` for every index.
template <class R>
struct Embedding {
    Array<R> weight;  // (V, E)
};

// y = f(x) at every step: each number by itself, or the softmax of a step's numbers. It has no parameters and
// takes any size.
template <class R>
struct Activation {
    Nonlinearity nonlinearity = Nonlinearity::tanh;
};

struct RecurrentOptions {
    Index num_layers = 1;
    bool bidirectional = false;
    double dropout = 0;  // in [0, 1): the share of each layer's y that is zero for the next one in training
    bool bias = true;
    bool learn_initial_state = false;  // whether the initial state is a parameter, used where none is given
};

// A stack of recurrent layers, in one or both directions: bptt.RNN, LSTM and GRU of Python. x is (T, N, D),
// y (T, N, directions*H), the forward direction's first. States are stacked as PyTorch's, (num_layers *
// directions, N, H): layer 0 forward, layer 0 backward, layer 1 forward, ... The backward direction of a
// layer begins at each sequence's own end.
template <class R>
struct Recurrent {
    struct Row {                    // one layer in one direction
        Array<R> weight_ih;         // (G*H, D); above the first layer D is directions*H
        Array<R> weight_hh;         // (G*H, H)
        Array<R> bias_ih, bias_hh;  // (G*H,), or both none
        std::shared_ptr<const detail::Prepared<R>> prepared = nullptr;  // by prepare()
    };

    Cell cell = Cell::lstm;
    Index num_layers = 1;
    bool bidirectional = false;
    double dropout = 0;
    std::vector<Row> rows;          // num_layers * directions, in the order of the states
    Array<R> initial_h, initial_c;  // (num_layers*directions, H), where they are learned; c: LSTM only

    Index directions() const { return bidirectional ? 2 : 1; }
    Index input_size() const { return rows.at(0).weight_ih.shape()[1]; }
    Index hidden_size() const { return rows.at(0).weight_hh.shape()[1]; }
};

template <class R>
using Layer = std::variant<Embedding<R>, Linear<R>, Recurrent<R>, Activation<R>>;

template <class R>
struct NamedLayer {
    std::string name;
    Layer<R> layer;
};

// Layers one after the other: the y of one is the x of the next.
template <class R>
struct Model {
    std::vector<NamedLayer<R>> layers;
};

// Layers with all parameters zero. initialize() draws them, or a reader fills them.
template <class R>
BPTT_API Linear<R> make_linear(Index in_features, Index out_features, bool bias = true);
template <class R>
BPTT_API Embedding<R> make_embedding(Index num_embeddings, Index embedding_dim);
template <class R>
BPTT_API Recurrent<R> make_recurrent(Cell cell, Index input_size, Index hidden_size,
                                     const RecurrentOptions& options = {});
// The layers under the names "0", "1", ...
template <class R>
BPTT_API Model<R> sequential(std::vector<Layer<R>> layers);

// Draws the parameters as PyTorch does: a recurrent layer's from U(-1/sqrt(H), 1/sqrt(H)), a linear one's
// from U(-1/sqrt(D), 1/sqrt(D)), an embedding's from the standard normal distribution; initial states are
// zero.
template <class R>
BPTT_API void initialize(Linear<R>& layer, Random& random);
template <class R>
BPTT_API void initialize(Embedding<R>& layer, Random& random);
template <class R>
BPTT_API void initialize(Recurrent<R>& layer, Random& random);
template <class R>
void initialize(Activation<R>&, Random&) {}
template <class R>
BPTT_API void initialize(Model<R>& model, Random& random);
// With a generator of this call alone: initialize(model, bptt::Random(0)).
template <class R>
void initialize(Model<R>& model, Random&& random) {
    initialize(model, random);
}

// The parameters by PyTorch's names, sharing the layer's memory: "weight", "bias"; "weight_ih_l0",
// "bias_hh_l1_reverse", "initial_h"; in a model behind the layer's name, "0.weight". Of every layer that is
// copied, too, the copy shares its parameters.
template <class R>
BPTT_API NamedArrays<R> parameters(const Linear<R>& layer);
template <class R>
BPTT_API NamedArrays<R> parameters(const Embedding<R>& layer);
template <class R>
BPTT_API NamedArrays<R> parameters(const Recurrent<R>& layer);
template <class R>
NamedArrays<R> parameters(const Activation<R>&) {
    return {};
}
template <class R>
BPTT_API NamedArrays<R> parameters(const Layer<R>& layer);
template <class R>
BPTT_API NamedArrays<R> parameters(const Model<R>& model);

// Of a layer that will run many times with the same weights: what every call would make of them is made
// once, so that predict, forward and step only read it. That counts where calls are short, and takes as much
// memory again as the weights. From then on the parameters must not change. A copy of the layer shares what
// was made; a row that is given other arrays is as it was before.
template <class R>
BPTT_API void prepare(Recurrent<R>& layer);
template <class R>
BPTT_API void prepare(Model<R>& model);

// ---- running it ------------------------------------------------------------------------------------

// Not deduced: what stands for R is the layer's, so that an Array may be given where a View is taken.
template <class R>
struct Identity {
    using type = R;
};
template <class R>
using In = View<const typename Identity<R>::type>;

// A layer's state, (num_layers*directions, N, H), or a gradient with respect to one; c for the LSTM only.
// Empty for a layer without a state, and where none is given: zero, or the learned one.
template <class R>
struct LayerState {
    Array<R> h, c;
    operator State<R>() const { return {h, c}; }
};
template <class R>
using StateIn = State<typename Identity<R>::type>;

// What a layer reads: numbers, or an embedding's indices.
template <class R>
struct Input {
    View<const R> x;
    View<const std::int64_t> index;
    Input() = default;
    Input(View<const R> numbers) : x(numbers) {}
    Input(View<R> numbers) : x(numbers) {}
    Input(const Array<R>& numbers) : x(numbers) {}
    Input(View<const std::int64_t> indices) : index(indices) {}
};
template <class R>
using AnyIn = Input<typename Identity<R>::type>;

// For each layer of a stack but the first, what stays of its input (T, N, directions*H). What stays is
// divided by 1-dropout (inverted dropout, Srivastava et al. 2014), so that inference has nothing to do.
using Masks = std::vector<Array<bool>>;

// What a forward call keeps for its backward call. It refers to the caller's x, lengths and reset and to the
// layer's parameters, which must outlive it and stay as they were. A backward call consumes it unless told to
// retain it.
template <class R>
struct LayerTape {
    Input<R> input;                         // Linear, Embedding
    std::vector<Tape<R>> rows;              // Recurrent: layer by layer, forward direction first
    std::vector<Array<R>> inputs;           // of the layers above the first
    Masks masks;                            // empty where nothing was dropped
    bool h_given = false, c_given = false;  // else the learned initial state stood for it
    Array<R> output;                        // Activation: y, which backward starts from
    Array<R> below;  // what keeps the input alive, where another layer of a model made it
    bool consumed = false;
};

template <class R>
struct LayerForward {
    Array<R> y;
    LayerState<R> state;  // each sequence's at its own end
    LayerTape<R> tape;    // empty where nothing was to be kept
};

template <class R>
struct LayerGradients {
    Array<R> x;           // none for an embedding
    LayerState<R> state;  // with respect to the initial state
    NamedArrays<R> parameters;
};

template <class R>
BPTT_API Array<R> predict(const Linear<R>& layer, In<R> x);
template <class R>
BPTT_API LayerForward<R> forward(const Linear<R>& layer, In<R> x);
template <class R>
BPTT_API LayerGradients<R> backward(const Linear<R>& layer, LayerTape<R>& tape, In<R> dy,
                                    bool retain = false);

template <class R>
BPTT_API Array<R> predict(const Embedding<R>& layer, View<const std::int64_t> index);
template <class R>
BPTT_API LayerForward<R> forward(const Embedding<R>& layer, View<const std::int64_t> index);
template <class R>
BPTT_API LayerGradients<R> backward(const Embedding<R>& layer, LayerTape<R>& tape, In<R> dy,
                                    bool retain = false);

// The y of forward is the tape's too, and must stay as it is.
template <class R>
BPTT_API Array<R> predict(const Activation<R>& layer, In<R> x);
template <class R>
BPTT_API LayerForward<R> forward(const Activation<R>& layer, In<R> x);
template <class R>
BPTT_API LayerGradients<R> backward(const Activation<R>& layer, LayerTape<R>& tape, In<R> dy,
                                    bool retain = false);

// Draws the masks of one forward call in training: none where nothing is dropped.
template <class R>
BPTT_API Masks dropout_masks(const Recurrent<R>& layer, Index T, Index N, Random& random);

// steps.reverse must be false. With masks the layer is in training; without, nothing is dropped.
template <class R>
BPTT_API LayerForward<R> forward(const Recurrent<R>& layer, In<R> x, const StateIn<R>& state = {},
                                 const Steps& steps = {}, Masks masks = {});
// Without a tape.
template <class R>
BPTT_API LayerForward<R> predict(const Recurrent<R>& layer, In<R> x, const StateIn<R>& state = {},
                                 const Steps& steps = {});
// One step of a layer of one direction: x_t (N, D), y (N, H).
template <class R>
BPTT_API LayerForward<R> step(const Recurrent<R>& layer, In<R> x_t, const StateIn<R>& state = {});
// dy (T, N, directions*H), or not given: zero. dstate: with respect to the final state.
template <class R>
BPTT_API LayerGradients<R> backward(const Recurrent<R>& layer, LayerTape<R>& tape, In<R> dy,
                                    const StateIn<R>& dstate = {}, bool retain = false);
// Throws what backward would throw, and does nothing else.
template <class R>
BPTT_API void check_backward(const Recurrent<R>& layer, const LayerTape<R>& tape, In<R> dy,
                             const StateIn<R>& dstate = {});

// ---- the same for a model --------------------------------------------------------------------------

// One entry a layer; empty altogether where none is given.
template <class R>
using ModelState = std::vector<LayerState<R>>;
template <class R>
using ModelTape = std::vector<LayerTape<R>>;

template <class R>
struct ModelForward {
    Array<R> y;
    ModelState<R> state;
    ModelTape<R> tape;
};

template <class R>
struct ModelGradients {
    Array<R> x;  // none below an embedding
    ModelState<R> state;
    NamedArrays<R> parameters;  // in the order of parameters(model)
};

// With a generator the model is in training, and it draws the dropout.
template <class R>
BPTT_API ModelForward<R> forward(const Model<R>& model, const AnyIn<R>& x, const ModelState<R>& state = {},
                                 const Steps& steps = {}, Random* random = nullptr);
template <class R>
BPTT_API ModelForward<R> predict(const Model<R>& model, const AnyIn<R>& x, const ModelState<R>& state = {},
                                 const Steps& steps = {});
// One step: x (N, ...), y (N, ...).
template <class R>
BPTT_API ModelForward<R> step(const Model<R>& model, const AnyIn<R>& x, const ModelState<R>& state = {});
// Everything is checked before the first tape is consumed.
template <class R>
BPTT_API ModelGradients<R> backward(const Model<R>& model, ModelTape<R>& tape, In<R> dy,
                                    const ModelState<R>& dstate = {}, bool retain = false);

}  // namespace bptt
