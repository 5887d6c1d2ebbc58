// RTNeural's JSON: known weights in both kinds give known models, what is written is read to the same
// outputs, and what can't be expressed is refused by name.
#include <cmath>

#include "check.hpp"

namespace {

using bptt::Cell;
using bptt::Index;
using bptt::Model;
using bptt::Nonlinearity;
using bptt::Recurrent;

template <class R>
bptt::Array<R> outputs(const Model<R>& model, Index D) {
    const bptt::Array<R> x = numbers<R>({6, 2, D}, 3);
    return bptt::predict(model, bptt::Input<R>(x)).y;
}

template <class R>
void what_is_written_is_read(Cell cell, bool bias) {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    options.bias = bias;
    Model<R> model = bptt::sequential<R>(
        {bptt::Activation<R>{Nonlinearity::elu}, bptt::make_linear<R>(2, 2, bias),
         bptt::Activation<R>{Nonlinearity::softmax}, bptt::make_recurrent<R>(cell, 2, 3, options),
         bptt::Activation<R>{Nonlinearity::relu}, bptt::make_linear<R>(3, 4, bias),
         bptt::Activation<R>{Nonlinearity::tanh}, bptt::Activation<R>{Nonlinearity::sigmoid},
         bptt::make_linear<R>(4, 1)});
    bptt::Random random(5);
    bptt::initialize(model, random);
    const std::string text = bptt::rtneural_to_text(model);
    const Model<R> read = bptt::rtneural_from_text<R>(text);
    check(same_bits<R>(outputs(model, 2), outputs(read, 2)),
          std::string("a written model computes the same bits: ") + bptt::cell_name(cell));
    check(bptt::rtneural_to_text(read) == text, "a read model is written to the same text");
}

// The entry (gate, unit, input) is told from its digits, so each is seen to come to its place.
void keras_weights_come_to_their_places() {
    const Model<double> model = bptt::rtneural_from_text<double>(R"({
        "in_shape": [null, null, 2],
        "layers": [
            {"type": "gru", "activation": "tanh", "shape": [null, null, 1],
             "weights": [[[10, 20, 30], [11, 21, 31]], [[12, 22, 32]], [[1, 2, 3], [4, 5, 6]]]},
            {"type": "lstm", "activation": "", "shape": [null, null, 1],
             "weights": [[[1, 2, 3, 4]], [[5, 6, 7, 8]], [0.1, 0.2, 0.3, -4e-1]]},
            {"type": "time-distributed-dense", "activation": "", "shape": [null, null, 2],
             "weights": [[[7, 8]], [9, 10]]},
            {"type": "dense", "shape": [1], "weights": [[[1], [2]]]}]})");
    const auto is = [](const bptt::Array<double>& array, const std::vector<double>& values,
                       const char* what) {
        check(array.elements() == static_cast<Index>(values.size()) &&
                  std::equal(values.begin(), values.end(), array.data()),
              std::string(what) + " is where it belongs");
    };
    const auto& gru = std::get<Recurrent<double>>(model.layers[0].layer);  // z, r, h becomes r, z, n
    is(gru.rows[0].weight_ih, {20, 21, 10, 11, 30, 31}, "the GRU's kernel");
    is(gru.rows[0].weight_hh, {22, 12, 32}, "the GRU's recurrent kernel");
    is(gru.rows[0].bias_ih, {2, 1, 3}, "the GRU's first bias");
    is(gru.rows[0].bias_hh, {5, 4, 6}, "the GRU's second bias");
    const auto& lstm = std::get<Recurrent<double>>(model.layers[1].layer);
    is(lstm.rows[0].weight_ih, {1, 2, 3, 4}, "the LSTM's kernel");
    is(lstm.rows[0].weight_hh, {5, 6, 7, 8}, "the LSTM's recurrent kernel");
    is(lstm.rows[0].bias_ih, {0.1, 0.2, 0.3, -0.4}, "the LSTM's bias");
    is(lstm.rows[0].bias_hh, {0, 0, 0, 0}, "the LSTM's other bias");
    const auto& dense = std::get<bptt::Linear<double>>(model.layers[2].layer);
    is(dense.weight, {7, 8}, "the kernel");
    is(dense.bias, {9, 10}, "the bias");
    check(!std::get<bptt::Linear<double>>(model.layers[3].layer).bias, "a dense layer may have no bias");
}

// Inside of a dense layer or as a layer of its own: a layer here.
void keras_activations_are_layers() {
    const Model<double> model = bptt::rtneural_from_text<double>(R"({
        "in_shape": [null, null, 1],
        "layers": [
            {"type": "time-distributed-dense", "activation": "tanh", "shape": [null, null, 2],
             "weights": [[[2, -3]]]},
            {"type": "activation", "activation": "elu", "shape": [null, null, 2], "weights": []},
            {"type": "activation", "activation": "", "shape": [null, null, 2]},
            {"type": "dense", "activation": "linear", "shape": [null, null, 1], "weights": [[[1], [1]]]},
            {"type": "dense", "activation": "sigmoid", "shape": [null, null, 1], "weights": [[[1]]]}]})");
    check(model.layers.size() == 6, "what is linear is no activation");
    const double x[] = {0.25};
    const double sum = std::tanh(0.5) + std::expm1(std::tanh(-0.75));
    const auto y = bptt::predict<double>(model, bptt::View<const double>(x, {1, 1, 1})).y;
    check(std::abs(y.data()[0] - 1 / (1 + std::exp(-sum))) < 1e-15, "activations stand where they belong");
    const std::string text = bptt::rtneural_to_text(model);
    check(text.find(R"("type": "dense", "activation": "tanh", "shape": [null, null, 2])") !=
                  std::string::npos &&
              text.find(R"("type": "activation", "activation": "elu", "shape": [null, null, 2])") !=
                  std::string::npos,
          "an activation is written into the dense layer before it, or as a layer: " + text);
}

// {"name": [[...]], ...} of a model's parameters, as json.dump of a state_dict's lists.
template <class R>
std::string state_dict(const Model<R>& model) {
    std::string text;
    for (const auto& [name, array] : bptt::parameters(model)) {
        const bool matrix = array.shape().rank == 2;
        const Index columns = array.shape()[matrix ? 1 : 0];
        text += (text.empty() ? "{\"" : ", \"") + name + "\": " + (matrix ? "[" : "");
        for (Index i = 0; i < array.elements(); ++i) {
            char digits[40];
            std::snprintf(digits, sizeof digits, "%.17g", static_cast<double>(array.data()[i]));
            text += std::string(i % columns == 0 ? (i > 0 ? ", [" : "[") : ", ") + digits +
                    (i % columns == columns - 1 ? "]" : "");
        }
        text += matrix ? "]" : "";
    }
    return text + "}";
}

template <class R>
void torch_models_are_read(Cell cell) {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    options.bidirectional = cell == Cell::gru;
    Model<R> model = bptt::sequential<R>({bptt::make_recurrent<R>(cell, 2, 3, options),
                                          bptt::make_linear<R>(options.bidirectional ? 6 : 3, 1)});
    model.layers[0].name = "net.rec";
    model.layers[1].name = "dense";
    bptt::Random random(6);
    bptt::initialize(model, random);
    const std::string text = state_dict(model);
    for (const std::string& whole : {text, "{\"model_data\": {\"skip\": 0}, \"state_dict\": " + text + "}"}) {
        const Model<R> read = bptt::rtneural_from_text<R>(whole);
        check(read.layers.size() == 2 && read.layers[0].name == "net.rec" && read.layers[1].name == "dense",
              "layers have the state_dict's names");
        check(same_bits<R>(outputs(model, 2), outputs(read, 2)), "a state_dict computes the same bits");
    }
    const Model<R> alone = bptt::rtneural_from_text<R>(
        state_dict(Model<R>{{{"", std::get<bptt::Linear<R>>(model.layers[1].layer)}}}));
    check(alone.layers.size() == 1, "a module of its own has no prefix");
}

void what_has_no_place_is_refused_by_name() {
    const auto refused = [](const std::string& words, const std::string& text) {
        check_refused(words, [&] { bptt::rtneural_from_text<float>(text); });
    };
    const auto layer = [&](const std::string& words, const std::string& entries) {
        refused(words, "{\"in_shape\": [null, 2], \"layers\": [{" + entries + "}]}");
    };
    const std::string dense = "\"type\": \"dense\", \"shape\": [null, 1], ";
    layer("layers[0] has type \"conv1d\"", "\"type\": \"conv1d\"");
    layer("layers[0], dense, has an activation whose nonlinearity is \"swish\", expected one of tanh, relu",
          dense + "\"activation\": \"swish\", \"weights\": [[[1], [1]]]");
    layer("layers[0], lstm, has activation \"relu\", expected tanh",
          "\"type\": \"lstm\", \"activation\": \"relu\", \"weights\": "
          "[[[1, 2, 3, 4], [1, 2, 3, 4]], [[1, 2, 3, 4]]]");
    layer("layers[0].weights is not empty",
          "\"type\": \"activation\", \"activation\": \"tanh\", \"weights\": [[1]]");
    layer("the layers are activations",
          "\"type\": \"activation\", \"activation\": \"tanh\", \"weights\": []");
    refused("layers[1].shape ends with 3, expected 1",
            "{\"in_shape\": [1], \"layers\": [{\"type\": \"dense\", \"weights\": [[[1]]]}, "
            "{\"type\": \"activation\", \"activation\": \"tanh\", \"shape\": [3]}]}");
    layer("layers[0].weights is missing", dense + "\"activation\": \"\"");
    layer("layers[0].weights has 3 arrays", dense + "\"weights\": [1, 2, 3]");
    layer("layers[0].weights[0][1] has 2 entries, expected 1", dense + "\"weights\": [[[1], [1, 2]]]");
    layer("layers[0].weights[0][1][0] is a string", dense + "\"weights\": [[[1], [\"a\"]]]");
    layer("layers[0].weights[0][1][0] is nan", dense + "\"weights\": [[[1], [NaN]]]");
    layer("layers[0].weights[0][0][0] is inf", dense + "\"weights\": [[[1e39], [1]]]");
    layer("layers[0].weights[0] is a number", dense + "\"weights\": [1, [1]]");
    layer("bias has shape (2,), expected (V,) = (1,)", dense + "\"weights\": [[[1], [1]], [1, 2]]");
    layer("in_shape ends with 2, expected 1", dense + "\"weights\": [[[1]]]");
    layer("layers[0].shape ends with 1, expected 2", dense + "\"weights\": [[[1, 2], [1, 2]]]");
    layer("has 5 columns, expected 4*H",
          "\"type\": \"lstm\", \"weights\": [[[1, 2, 3, 4, 5]], [[1, 2, 3, 4]]]");
    layer("expected two of (3*H,)", "\"type\": \"gru\", \"weights\": [[[1, 2, 3]], [[1, 2, 3]], [1, 2]]");
    refused("layers is empty", "{\"layers\": []}");
    refused("in_shape is missing", "{\"layers\": [{" + dense + "\"weights\": [[[1]]]}]}");
    refused("the file is a list", "[]");
    refused("there are no layers", "{}");
    refused("\"conv.weights\" belongs to no", "{\"conv.weights\": [1]}");
    refused("\"conv.weight\" is missing", "{\"conv.bias\": [1]}");
    refused("a.weight[0][0] is a list, expected a number", "{\"a.weight\": [[[1]]]}");
    refused("\"rec.weight_hh_l0\" is missing", "{\"rec.weight_ih_l0\": [[1]]}");
    refused("\"rec.bias_hh_l0\" is missing",
            "{\"rec.weight_ih_l0\": [[1]], \"rec.weight_hh_l0\": [[1]], \"rec.bias_ih_l0\": [1]}");
    refused("(4*H, H) of an LSTM", "{\"rec.weight_ih_l0\": [[1]], \"rec.weight_hh_l0\": [[1]]}");
    refused("\"rec.other\" belongs to no layer",
            "{\"rec.weight_ih_l0\": [[1],[1],[1]], \"rec.weight_hh_l0\": [[1],[1],[1]], \"rec.other\": [1]}");
    refused("skip", "{\"model_data\": {\"skip\": 1}, \"state_dict\": {}}");
    // Strict JSON.
    refused("byte 0: expected a value, found the end", "");
    refused("byte 2: expected the end, found x", "{}x");
    refused("byte 1: expected a key", "{1: 2}");
    refused("the object has \"a\" twice", "{\"a\": 1, \"a\": 2}");
    refused("at most 64 lists", std::string(100000, '['));
    refused("byte 6: expected a digit", "{\"a\":-}");
    refused("expected a comma or }", "{\"a\":01}");
    refused("byte 5: expected a number that a double can hold", "{\"a\":1e999}");
    refused("the rest of a string, found the byte 0x0a", "{\"a\n\":1}");
    refused("four hexadecimal digits", "{\"\\u12g4\":1}");
    refused("surrogate", "{\"\\ud800\":1}");
    refused("surrogate", "{\"\\udc00\":1}");
    refused("an escape", "{\"\\x\":1}");

    const auto unwritten = [](const std::string& words, const bptt::Layer<float>& part) {
        check_refused(words, [&] { bptt::rtneural_to_text(bptt::sequential<float>({part})); });
    };
    bptt::RecurrentOptions both, learned;
    both.bidirectional = learned.learn_initial_state = true;
    unwritten("layer \"0\": is an embedding", bptt::make_embedding<float>(2, 2));
    unwritten("is a rnn_tanh", bptt::make_recurrent<float>(Cell::rnn_tanh, 1, 1));
    unwritten("is a gru_reset_before", bptt::make_recurrent<float>(Cell::gru_reset_before, 1, 1));
    unwritten("is bidirectional", bptt::make_recurrent<float>(Cell::gru, 1, 1, both));
    unwritten("learned initial state", bptt::make_recurrent<float>(Cell::lstm, 1, 1, learned));
    check_refused("there are no layers", [] { bptt::rtneural_to_text(Model<float>()); });
}

}  // namespace

int main() {
    for (const Cell cell : {Cell::lstm, Cell::gru}) {
        for (const bool bias : {true, false}) {
            what_is_written_is_read<float>(cell, bias);
            what_is_written_is_read<double>(cell, bias);
        }
        torch_models_are_read<float>(cell);
        torch_models_are_read<double>(cell);
    }
    keras_weights_come_to_their_places();
    keras_activations_are_layers();
    what_has_no_place_is_refused_by_name();
    if (failures == 0) std::puts("RTNeural's JSON: all laws hold");
    return failures == 0 ? 0 : 1;
}
