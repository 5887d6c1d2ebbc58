// Layers and models from C++: exact laws against the functions that they stand on.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "bptt/bptt.hpp"

namespace {

using bptt::Array;
using bptt::Index;
using bptt::Shape;
using bptt::View;
using Stack = bptt::Recurrent<double>;

int failures = 0;

void check(bool holds, const std::string& sentence) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "does not hold: %s\n", sentence.c_str());
}

template <class R>
bool same(const Array<R>& a, const Array<R>& b) {
    return a.shape() == b.shape() && std::equal(a.data(), a.data() + a.elements(), b.data());
}
bool close(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

void fill(const Array<double>& array, unsigned seed) {
    for (Index i = 0; i < array.elements(); ++i) {
        seed = seed * 1664525u + 1013904223u;
        array.data()[i] = (seed >> 8) / double(1 << 24) - 0.5;
    }
}
Array<double> numbers(const Shape& shape, unsigned seed) {
    Array<double> array(shape);
    fill(array, seed);
    return array;
}

constexpr Index T = 6, N = 3, D = 4, H = 5;

Stack stack(bptt::Cell cell, const bptt::RecurrentOptions& options) {
    Stack layer = bptt::make_recurrent<double>(cell, D, H, options);
    unsigned seed = 100;
    for (const auto& parameter : bptt::parameters(layer)) fill(parameter.value, ++seed);
    return layer;
}

double dot(const Array<double>& a, const Array<double>& b) {
    double sum = 0;
    for (Index i = 0; i < a.elements(); ++i) sum += a.data()[i] * b.data()[i];
    return sum;
}

// Every gradient of a stack with everything in it, at a few elements.
void gradients_equal_central_differences(bptt::Cell cell) {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    options.bidirectional = true;
    options.dropout = 0.3;
    options.learn_initial_state = true;
    const Stack layer = stack(cell, options);
    const Array<double> x = numbers({T, N, D}, 1), dy = numbers({T, N, 2 * H}, 2);
    const Array<double> dh = numbers({4, N, H}, 3);
    const std::int64_t lengths[] = {6, 0, 4};
    bptt::Steps steps;
    steps.lengths = {lengths, {N}};
    bptt::Random random(7);
    const bptt::Masks masks = bptt::dropout_masks(layer, T, N, random);
    bptt::LayerState<double> dstate;
    dstate.h = dh;

    const auto loss = [&] {
        const auto run = bptt::forward(layer, x, {}, steps, masks);
        return dot(run.y, dy) + dot(run.state.h, dh);
    };
    auto run = bptt::forward(layer, x, {}, steps, masks);
    auto gradients = bptt::backward(layer, run.tape, dy, dstate);
    auto arguments = bptt::parameters(layer);
    check(gradients.parameters.size() == arguments.size(), "a gradient for each parameter");
    arguments.push_back({"x", x});
    gradients.parameters.push_back({"x", gradients.x});
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const auto& [name, argument] = arguments[i];
        const auto& [its_name, gradient] = gradients.parameters[i];
        const std::string what = std::string(bptt::cell_name(cell)) + " " + name;
        check(its_name == name && gradient.shape() == argument.shape(), what + ": name and shape");
        for (Index j = 0; j < argument.elements(); j += 1 + argument.elements() / 7) {
            const double kept = argument.data()[j], e = 1e-5;
            argument.data()[j] = kept + e;
            const double above = loss();
            argument.data()[j] = kept - e;
            const double below = loss();
            argument.data()[j] = kept;
            check(close(gradient.data()[j], (above - below) / (2 * e), 1e-6), what + ": central differences");
        }
    }
}

// A stack has the bits of its layers called one after the other.
void a_stack_equals_its_layers(bptt::Cell cell) {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    const Stack layer = stack(cell, options);
    const Array<double> x = numbers({T, N, D}, 1), dy = numbers({T, N, H}, 2), h = numbers({2, N, H}, 3);
    bptt::LayerState<double> state;
    state.h = h;
    auto run = bptt::forward(layer, x, state);
    const auto gradients = bptt::backward(layer, run.tape, dy);

    const auto weights = [&](std::size_t i) {
        const auto& row = layer.rows[i];
        return bptt::Weights<double>{row.weight_ih, row.weight_hh, row.bias_ih, row.bias_hh};
    };
    bptt::State<double> first, second;
    first.h = {h.data(), {N, H}};
    second.h = {h.data() + N * H, {N, H}};
    auto low = bptt::forward<double>(cell, x, weights(0), first);
    auto high = bptt::forward<double>(cell, low.y, weights(1), second);
    const auto above = bptt::backward<double>(high.tape, dy);
    const auto below = bptt::backward<double>(low.tape, above.x);
    const std::string name = bptt::cell_name(cell);
    check(same(run.y, high.y) && same(run.y, bptt::predict(layer, x, state).y), name + ": y");
    check(same(gradients.x, below.x) && same(gradients.parameters[1].value, below.weight_hh) &&
              same(gradients.parameters[5].value, above.weight_hh),
          name + ": gradients");
    check(std::equal(below.h.data(), below.h.data() + N * H, gradients.state.h.data()) &&
              std::equal(above.h.data(), above.h.data() + N * H, gradients.state.h.data() + N * H),
          name + ": the states' gradients are stacked");
    check(run.tape.consumed && run.tape.rows.empty(), name + ": the tape is consumed");

    bptt::LayerState<double> streamed = state;
    bool equal = true;
    for (Index t = 0; t < T; ++t) {
        const View<const double> x_t(x.data() + t * N * D, {N, D});
        const auto one = bptt::step(layer, x_t, streamed);
        streamed = one.state;
        for (Index i = 0; i < N * H; ++i)
            equal = equal && close(one.y.data()[i], run.y.data()[t * N * H + i], 1e-13);
    }
    check(equal, name + ": steps equal the loop");
}

// In a stack, what the slots of the upper ledger hand down are the dy of the lower one.
void lags_go_down_a_stack(bptt::Cell cell) {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    const Stack layer = stack(cell, options);
    const Array<double> x = numbers({T, N, D}, 1), dy = numbers({T, N, H}, 2);
    auto run = bptt::forward(layer, x);
    const auto gradients = bptt::backward(layer, run.tape, dy, {}, true);
    bptt::Ledger<double> high(run.tape.rows[1], T - 1), low(run.tape.rows[0], T - 1);
    low.back(0, high.back(0, dy, false, true).dx, true);
    const Array<double>& whole = gradients.parameters[1].value;
    for (Index i = 0; i < whole.elements(); ++i) {
        double lags = 0;
        for (Index k = 0; k < T; ++k) lags += low.weight_hh().data()[k * whole.elements() + i];
        check(close(lags, whole.data()[i], 1e-12), "the lower layer's lags sum to its dW_hh");
    }
}

bptt::Model<double> small_model() {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    auto model = bptt::sequential<double>({bptt::make_embedding<double>(7, D),
                                           bptt::make_recurrent<double>(bptt::Cell::gru, D, H, options),
                                           bptt::make_linear<double>(H, 7)});
    bptt::Random random(1);
    bptt::initialize(model, random);
    return model;
}

void a_model_learns() {
    const auto model = small_model();
    std::vector<std::int64_t> index, target;
    for (Index i = 0; i < 10 * N; ++i) {
        index.push_back(i * i % 7);
        target.push_back(i < N ? 0 : index[static_cast<std::size_t>(i - N)]);  // what came before
    }
    const View<const std::int64_t> x(index.data(), {10, N}), wanted(target.data(), {10, N});
    const auto parameters = bptt::parameters(model);
    bptt::NamedArrays<double> first, second;
    for (auto* moments : {&first, &second})
        for (const auto& p : parameters) {
            Array<double> zero(p.value.shape());
            std::fill_n(zero.data(), zero.elements(), 0.0);
            moments->push_back({p.name, zero});
        }
    double start = 0, end = 0;
    for (Index step = 1; step <= 80; ++step) {
        auto run = bptt::forward<double>(model, x);
        const auto loss = bptt::softmax_cross_entropy<double>(run.y, wanted);
        const auto gradients = bptt::backward(model, run.tape, loss.gradient);
        bptt::adam(bptt::views(parameters), bptt::const_views(gradients.parameters), bptt::views(first),
                   bptt::views(second), step, 0.05, 0.9, 0.999, 1e-8, 0, false);
        (step == 1 ? start : end) = loss.value;
    }
    check(end < 0.1 * start, "a model learns what came before: " + std::to_string(end));
    check(parameters[0].name == "0.weight" && parameters[2].name == "1.weight_hh_l0" &&
              parameters.back().name == "2.bias",
          "a model's parameters have PyTorch's names");
}

void a_models_steps_equal_its_loop() {
    const auto model = small_model();
    const std::int64_t index[] = {3, 1, 4, 1, 5, 2};
    const auto whole = bptt::predict<double>(model, View<const std::int64_t>(index, {6, 1}));
    bptt::ModelState<double> state;
    for (Index t = 0; t < 6; ++t) {
        auto one = bptt::step<double>(model, View<const std::int64_t>(index + t, {1}), state);
        for (Index i = 0; i < 7; ++i)
            check(close(one.y.data()[i], whole.y.data()[t * 7 + i], 1e-13), "a model's steps equal its loop");
        state = one.state;
    }
}

// Behind a layer and before one, of every kind: the model's gradients at a few elements.
// What was prepared is used only for the weights that it was made of.
void a_prepared_layer_has_the_same_bits(bptt::Cell cell) {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    const Stack layer = stack(cell, options);
    Stack prepared = layer;
    bptt::prepare(prepared);
    const Array<double> x = numbers({T, N, D}, 1);
    const auto of_layer = bptt::predict(layer, x);
    check(same(bptt::predict(prepared, x).y, of_layer.y), "a prepared layer predicts the same bits");
    auto run = bptt::forward(prepared, x), other = bptt::forward(layer, x);
    const Array<double> dy = numbers({T, N, H}, 2);
    const auto one = bptt::backward(prepared, run.tape, dy), its = bptt::backward(layer, other.tape, dy);
    check(same(run.y, other.y) && same(one.x, its.x), "so do its forward and its backward");
    Stack changed = prepared;
    changed.rows[1].weight_hh = numbers(changed.rows[1].weight_hh.shape(), 9);
    Stack plain = layer;
    plain.rows[1].weight_hh = changed.rows[1].weight_hh;
    check(same(bptt::predict(changed, x).y, bptt::predict(plain, x).y), "a row's new weights are seen");
    Stack other_cell = prepared;
    other_cell.cell = bptt::Cell::gru;
    if (cell == bptt::Cell::gru_reset_before) {
        plain = layer;
        plain.cell = bptt::Cell::gru;
        check(same(bptt::predict(other_cell, x).y, bptt::predict(plain, x).y), "and so is another cell");
    }
}

void a_prepared_model_has_the_same_bits() {
    auto model = bptt::sequential<double>(
        {bptt::make_recurrent<double>(bptt::Cell::lstm, D, H), bptt::make_linear<double>(H, D)});
    for (const auto& parameter : bptt::parameters(model)) fill(parameter.value, 7);
    const Array<double> x = numbers({T, N, D}, 1), y = bptt::predict(model, x).y;
    bptt::prepare(model);
    check(same(bptt::predict(model, x).y, y), "a prepared model predicts the same bits");
}

void activations_have_the_gradients_of_central_differences(bptt::Nonlinearity nonlinearity) {
    const bptt::Activation<double> activation{nonlinearity};
    const auto model =
        bptt::sequential<double>({activation, bptt::make_recurrent<double>(bptt::Cell::gru, D, H), activation,
                                  bptt::make_linear<double>(H, D), activation});
    unsigned seed = 50;
    for (const auto& parameter : bptt::parameters(model)) fill(parameter.value, ++seed);
    const Array<double> x = numbers({T, N, D}, 1), dy = numbers({T, N, D}, 2);
    auto run = bptt::forward<double>(model, x);
    const auto gradients = bptt::backward<double>(model, run.tape, dy);
    auto arguments = bptt::parameters(model);
    arguments.push_back({"x", x});
    const std::string what = bptt::nonlinearity_name(nonlinearity);
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const Array<double>& argument = arguments[i].value;
        const Array<double>& gradient =
            i < gradients.parameters.size() ? gradients.parameters[i].value : gradients.x;
        for (Index j = 0; j < argument.elements(); j += 1 + argument.elements() / 7) {
            const double kept = argument.data()[j], e = 1e-5;
            argument.data()[j] = kept + e;
            const double above = dot(bptt::predict<double>(model, x).y, dy);
            argument.data()[j] = kept - e;
            const double below = dot(bptt::predict<double>(model, x).y, dy);
            argument.data()[j] = kept;
            check(close(gradient.data()[j], (above - below) / (2 * e), 1e-6),
                  what + ": central differences of " + arguments[i].name);
        }
    }
    check(bptt::nonlinearity_from_name(what) == nonlinearity, what + " has its name");
}

template <class Call>
void refused(Call call, const std::string& piece) {
    std::string sentence = "(nothing)";
    try {
        call();
    } catch (const std::invalid_argument& error) {
        sentence = error.what();
    }
    check(sentence.find(piece) != std::string::npos, "refused with \"" + piece + "\", not " + sentence);
}

void wrong_input_is_refused() {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    Stack layer = stack(bptt::Cell::lstm, options);
    const Array<double> x = numbers({T, N, D}, 1);
    refused([&] { bptt::forward(layer, numbers({T, N, D + 1}, 1)); },
            "LSTM.forward: x has shape (6, 3, 5), expected (T, N, D) with D = 4");
    bptt::LayerState<double> state;
    state.c = numbers({1, N, H}, 2);
    refused([&] { bptt::predict(layer, x, state); },
            "LSTM.predict: state[1] has shape (1, 3, 5), expected (num_layers, N, H) = (2, 3, 5)");
    refused([&] { bptt::forward(layer, x, {}, {}, bptt::Masks(2)); }, "masks has 2 entries");
    auto run = bptt::forward(layer, x);
    Stack other = stack(bptt::Cell::lstm, options);
    refused([&] { bptt::backward(other, run.tape, {}); }, "tape was made by another layer");
    refused([&] { bptt::backward(layer, run.tape, numbers({T, N, 2 * H}, 1)); }, "dy has shape");
    bptt::backward(layer, run.tape, {});
    refused([&] { bptt::backward(layer, run.tape, {}); }, "tape was consumed");
    layer.rows.pop_back();
    refused([&] { bptt::forward(layer, x); }, "rows has 1 entries, expected num_layers*directions = 2");
    refused([&] { bptt::sequential<double>({}); }, "there are no layers");
    refused([&] { bptt::make_recurrent<double>(bptt::Cell::gru, 0, 3); }, "input_size is 0");
    options.dropout = 1;
    refused([&] { bptt::make_recurrent<double>(bptt::Cell::gru, 2, 3, options); }, "dropout is 1");
    refused([&] { bptt::predict<double>(small_model(), x); }, "index is missing");
    refused([] { bptt::nonlinearity_from_name("swish"); },
            "nonlinearity is \"swish\", expected one of tanh, relu, sigmoid, elu, softmax");
    const bptt::Activation<double> activation;
    refused([&] { bptt::predict(activation, numbers({3, 0}, 1)); },
            "activation_forward: x has shape (3, 0), expected (..., V) with V >= 1");
    refused([&] { bptt::predict(activation, {}); }, "x is missing");
    auto active = bptt::forward(activation, x);
    refused([&] { bptt::backward(activation, active.tape, numbers({T, N, 1}, 1)); },
            "dy has shape (6, 3, 1), expected y's (6, 3, 4)");
    bptt::backward(activation, active.tape, x);
    refused([&] { bptt::backward(activation, active.tape, x); }, "Activation.backward: tape was consumed");
}

// What is wrong below is found before the layers above have consumed their tapes.
void a_refused_backward_consumes_nothing() {
    const auto model = bptt::sequential<double>({bptt::make_recurrent<double>(bptt::Cell::lstm, D, H),
                                                 bptt::make_linear<double>(H, D),
                                                 bptt::make_recurrent<double>(bptt::Cell::gru, D, H)});
    for (const auto& parameter : bptt::parameters(model)) fill(parameter.value, 7);
    const Array<double> x = numbers({T, N, D}, 1), dy = numbers({T, N, H}, 2);
    auto run = bptt::forward(model, x), again = bptt::forward(model, x);
    bptt::ModelState<double> dstate(3);
    dstate[0].c = numbers({2, N, H}, 3);
    refused([&] { bptt::backward(model, run.tape, dy, dstate); },
            "LSTM.backward: dstate[1] has shape (2, 3, 5), expected (num_layers, N, H) = (1, 3, 5)");
    refused([&] { bptt::backward(model, run.tape, numbers({T, N, D}, 2)); }, "GRU.backward: dy has shape");
    auto shorter = bptt::forward(model, numbers({T - 1, N, D}, 1));
    std::swap(run.tape[0], shorter.tape[0]);
    refused([&] { bptt::backward(model, run.tape, dy); }, "LSTM.backward: dy has shape (6, 3, 5), expected");
    std::swap(run.tape[0], shorter.tape[0]);
    bptt::backward(std::get<bptt::Linear<double>>(model.layers[1].layer), shorter.tape[1], {});
    refused([&] { bptt::backward(model, shorter.tape, {}); }, "Linear.backward: tape was consumed");
    check(!shorter.tape[2].consumed, "the layer above a consumed tape keeps its own");
    const auto one = bptt::backward(model, run.tape, dy), other = bptt::backward(model, again.tape, dy);
    for (std::size_t i = 0; i < one.parameters.size(); ++i)
        check(same(one.parameters[i].value, other.parameters[i].value), "what was refused changed nothing");
}

}  // namespace

int main() {
    for (bptt::Cell cell :
         {bptt::Cell::rnn_tanh, bptt::Cell::lstm, bptt::Cell::gru, bptt::Cell::gru_reset_before}) {
        gradients_equal_central_differences(cell);
        a_stack_equals_its_layers(cell);
        lags_go_down_a_stack(cell);
        a_prepared_layer_has_the_same_bits(cell);
    }
    for (const auto nonlinearity :
         {bptt::Nonlinearity::tanh, bptt::Nonlinearity::relu, bptt::Nonlinearity::sigmoid,
          bptt::Nonlinearity::elu, bptt::Nonlinearity::softmax})
        activations_have_the_gradients_of_central_differences(nonlinearity);
    a_model_learns();
    a_models_steps_equal_its_loop();
    a_prepared_model_has_the_same_bits();
    wrong_input_is_refused();
    a_refused_backward_consumes_nothing();
    std::printf("layers: %s\n", failures == 0 ? "all holds" : "FAILED");
    return failures == 0 ? 0 : 1;
}
