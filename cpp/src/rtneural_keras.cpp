// Keras's kind, in both directions.
//
//   Keras's layer                    here
//   kernel (D, G*H)                  weight_ih (G*H, D), transposed
//   recurrent kernel (H, G*H)        weight_hh (G*H, H), transposed
//   LSTM's bias (4*H,)               bias_ih + bias_hh; gates i, f, c, o
//   GRU's bias (2, 3*H)              bias_ih, bias_hh; gates z, r, h for r, z, n
//   dense kernel (D, V), bias (V,)   weight (V, D), bias
//   dense's activation, activation   an Activation
#include <algorithm>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "rtneural.hpp"

namespace bptt::rtneural {
namespace {

template <class R>
Array<R> transposed(const Array<R>& from) {
    const Index rows = from.shape()[0], columns = from.shape()[1];
    Array<R> to({columns, rows});
    for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < columns; ++j) to.data()[j * rows + i] = from.data()[i * columns + j];
    return to;
}

// The GRU's first two gates the other way round, along the first dimension; it is its own inverse.
template <class R>
Array<R> reordered(Cell cell, const Array<R>& from) {
    if (cell != Cell::gru) return from;
    const Index gate = from.elements() / 3;
    Array<R> to(from.shape());
    std::copy_n(from.data(), gate, to.data() + gate);
    std::copy_n(from.data() + gate, gate, to.data());
    std::copy_n(from.data() + 2 * gate, gate, to.data() + 2 * gate);
    return to;
}

// ---- reading ---------------------------------------------------------------------------------------

template <class R>
class Keras {
public:
    explicit Keras(const validate::Caller& caller) : caller_(caller), numbers_(caller) {}

    Model<R> read(const json::Value& file) const {
        const json::List& layers = numbers_.list(*file.find("layers"), "layers");
        Model<R> model;
        Index width = validate::kAnySize;  // of what the layers so far give
        for (std::size_t i = 0; i < layers.size(); ++i)
            for (Layer<R>& part : parts(layers[i], validate::entry("layers", i), width))
                model.layers.push_back({std::to_string(model.layers.size()), std::move(part)});
        const validate::Sizes sizes = validate::chain(caller_, model);
        const json::Value* const in_shape = file.find("in_shape");
        if (in_shape == nullptr) caller_.fail("in_shape is missing");
        last_size(*in_shape, "in_shape", sizes.in);
        return model;
    }

private:
    // Shapes are (batch, steps, size), the first two of them often null.
    void last_size(const json::Value& shape, const std::string& what, Index expected) const {
        const double* const last = numbers_.list(shape, what).back().number();
        if (last == nullptr || *last != static_cast<double>(expected))
            caller_.fail(what + " ends with " + (last == nullptr ? "no number" : json::number(*last)) +
                         ", expected " + std::to_string(expected) + ", as the weights have it");
    }

    std::string string(const json::Value& layer, const char* key, const std::string& where) const {
        const json::Value* const value = layer.find(key);
        if (value == nullptr || value->is_null()) return "";
        if (value->string() == nullptr)
            caller_.fail(where + ": " + key + " is " + value->kind() + ", expected a string");
        return *value->string();
    }

    // A layer of the file, and its activation behind it.
    std::vector<Layer<R>> parts(const json::Value& value, const std::string& where, Index& width) const {
        const std::string type = string(value, "type", where);
        const std::string activation = string(value, "activation", where);
        const bool dense = type == "dense" || type == "time-distributed-dense";
        const bool gated = type == "lstm" || type == "gru";
        std::vector<Layer<R>> found;
        if (dense)
            found.push_back(linear(value, where, width));
        else if (gated)
            found.push_back(recurrent(value, where, type == "lstm" ? Cell::lstm : Cell::gru, width));
        else if (type != "activation")
            caller_.fail(where + " has type " + json::quoted(type) +
                         ", expected lstm, gru, dense, time-distributed-dense or activation");
        else if (const json::Value* const weights = value.find("weights");
                 weights != nullptr && (weights->list() == nullptr || !weights->list()->empty()))
            caller_.fail(where + ".weights is not empty, expected an activation without");
        if (const json::Value* const shape = value.find("shape"); shape != nullptr && width > 0)
            last_size(*shape, where + ".shape", width);
        if (gated && !activation.empty() && activation != "tanh")
            caller_.fail(where + ", " + type + ", has activation " + json::quoted(activation) +
                         ", expected tanh, which is the cell's own");
        if (!gated && !activation.empty() && activation != "linear")
            found.push_back(Activation<R>{nonlinearity(activation, where + ", " + type)});
        return found;
    }

    Nonlinearity nonlinearity(const std::string& name, const std::string& whose) const {
        try {
            return nonlinearity_from_name(name);
        } catch (const std::invalid_argument& error) {
            caller_.fail(whose + ", has an activation whose " + error.what());
        }
    }

    // The arrays of a layer that has `count` of them, or one less without a bias.
    const json::List& arrays(const json::Value& value, const std::string& what, std::size_t count) const {
        const json::Value* const weights = value.find("weights");
        if (weights == nullptr) caller_.fail(what + " is missing");
        const json::List& list = numbers_.list(*weights, what);
        if (list.size() != count && list.size() + 1 != count)
            caller_.fail(what + " has " + std::to_string(list.size()) + " arrays, expected " +
                         std::to_string(count) + ", or one less without a bias");
        return list;
    }

    Linear<R> linear(const json::Value& value, const std::string& where, Index& width) const {
        const std::string what = where + ".weights";
        const json::List& list = arrays(value, what, 2);
        Linear<R> layer{transposed(numbers_.matrix(list[0], what + "[0]")), {}};
        if (list.size() == 2) layer.bias = numbers_.vector(list[1], what + "[1]");
        width = layer.weight.shape()[0];
        return layer;
    }

    Recurrent<R> recurrent(const json::Value& value, const std::string& where, Cell cell,
                           Index& width) const {
        const std::string what = where + ".weights";
        const json::List& list = arrays(value, what, 3);
        typename Recurrent<R>::Row row;
        row.weight_ih = of_gates(cell, transposed(numbers_.matrix(list[0], what + "[0]")), what + "[0]");
        row.weight_hh = of_gates(cell, transposed(numbers_.matrix(list[1], what + "[1]")), what + "[1]");
        if (list.size() == 3) bias(row, list[2], what + "[2]", cell);
        width = row.weight_hh.shape()[1];
        Recurrent<R> layer;
        layer.cell = cell;
        layer.rows.push_back(std::move(row));
        return layer;
    }

    void bias(typename Recurrent<R>::Row& row, const json::Value& value, const std::string& what,
              Cell cell) const {
        if (cell == Cell::lstm) {
            row.bias_ih = numbers_.vector(value, what);
            row.bias_hh = zeros<R>(row.bias_ih.shape());
            return;
        }
        const json::List& two = numbers_.list(value, what, 2);
        if (two[0].number() != nullptr)
            caller_.fail(what + " is one bias, expected two of (3*H,): a GRU with reset_after");
        row.bias_ih = of_gates(cell, numbers_.vector(two[0], what + "[0]"), what + "[0]");
        row.bias_hh = of_gates(cell, numbers_.vector(two[1], what + "[1]"), what + "[1]");
    }

    Array<R> of_gates(Cell cell, const Array<R>& array, const std::string& what) const {
        if (array.shape()[0] % cell_gates(cell) != 0)
            caller_.fail(what + " has " + std::to_string(array.shape()[0]) + " columns, expected " +
                         std::to_string(cell_gates(cell)) + "*H");
        return reordered(cell, array);
    }

    const validate::Caller& caller_;
    Numbers<R> numbers_;
};

// ---- writing ---------------------------------------------------------------------------------------

template <class R>
std::string list(const R* numbers, Index count) {
    std::string out = "[";
    for (Index i = 0; i < count; ++i) (out += i > 0 ? ", " : "") += json::number(numbers[i]);
    return out + "]";
}
template <class R>
std::string list(const Array<R>& array) {
    if (array.shape().rank == 1) return list(array.data(), array.elements());
    const Index columns = array.shape()[1];
    std::string out = "[";
    for (Index i = 0; i < array.shape()[0]; ++i)
        (out += i > 0 ? ",\n    " : "") += list(array.data() + i * columns, columns);
    return out + "]";
}

// Where in the model a layer stands.
struct Place {
    Index width = 0;              // how many numbers it reads
    const char* activation = "";  // behind a linear layer
};

std::string described(const char* type, const char* activation, Index size, const std::string& weights) {
    return "{\"type\": \"" + std::string(type) + "\", \"activation\": \"" + activation +
           "\", \"shape\": [null, null, " + std::to_string(size) + "], \"weights\": [\n   " + weights + "]}";
}

template <class R>
std::string written(const validate::Caller& caller, const Embedding<R>&, const Place&) {
    caller.fail(
        "is an embedding, expected an LSTM, a GRU, a linear layer or an activation: the format has no other");
}

template <class R>
std::string written(const validate::Caller&, const Activation<R>& layer, const Place& place) {
    return described("activation", nonlinearity_name(layer.nonlinearity), place.width, "");
}

template <class R>
std::string written(const validate::Caller&, const Linear<R>& layer, const Place& place) {
    const Index V = layer.weight.shape()[0];
    const Array<R> bias = layer.bias ? layer.bias : zeros<R>({V});
    return described("dense", place.activation, V, list(transposed(layer.weight)) + ",\n   " + list(bias));
}

template <class R>
std::string written(const validate::Caller& caller, const Recurrent<R>& layer, const Place&) {
    if (layer.cell != Cell::lstm && layer.cell != Cell::gru)
        caller.fail(std::string("is a ") + cell_name(layer.cell) +
                    ", expected an LSTM or a GRU that resets after: the format has no other");
    if (layer.bidirectional) caller.fail("is bidirectional, expected one direction: the format has no other");
    if (layer.initial_h || layer.initial_c)
        caller.fail("has a learned initial state, expected none: the format has no place for it");
    const bool lstm = layer.cell == Cell::lstm;
    const Index H = layer.hidden_size(), GH = cell_gates(layer.cell) * H;
    std::string all;
    for (const auto& row : layer.rows) {
        const Array<R> ih = row.bias_ih ? reordered(layer.cell, row.bias_ih) : zeros<R>({GH});
        const Array<R> hh = row.bias_hh ? reordered(layer.cell, row.bias_hh) : zeros<R>({GH});
        std::string bias = "[" + list(ih) + ",\n    " + list(hh) + "]";
        if (lstm) {
            Array<R> sum({GH});
            for (Index i = 0; i < GH; ++i) sum.data()[i] = ih.data()[i] + hh.data()[i];
            validate::finite<R>(caller, sum, "bias_ih + bias_hh");
            bias = list(sum);
        }
        all += (all.empty() ? "" : ",\n  ") +
               described(lstm ? "lstm" : "gru", "tanh", H,
                         list(transposed(reordered(layer.cell, row.weight_ih))) + ",\n   " +
                             list(transposed(reordered(layer.cell, row.weight_hh))) + ",\n   " + bias);
    }
    return all;
}

}  // namespace

template <class R>
Model<R> read_keras(const validate::Caller& caller, const json::Value& file) {
    return Keras<R>(caller).read(file);
}

template <class R>
std::string write_keras(const validate::Caller& caller, const Model<R>& model) {
    const Index in = validate::chain(caller, model).in;
    for (const NamedArray<R>& array : parameters(model)) validate::finite<R>(caller, array.value, array.name);
    std::string layers;
    Place place;
    place.width = in;
    for (std::size_t i = 0; i < model.layers.size(); ++i) {
        const NamedLayer<R>& each = model.layers[i];
        const validate::Caller its(caller.name() + ": layer " + json::quoted(each.name));
        const auto* const linear = std::get_if<Linear<R>>(&each.layer);
        const auto* const next =
            i + 1 < model.layers.size() ? std::get_if<Activation<R>>(&model.layers[i + 1].layer) : nullptr;
        const bool both = linear != nullptr && next != nullptr;
        place.activation = both ? nonlinearity_name(next->nonlinearity) : "";
        layers += (layers.empty() ? "" : ",\n  ") +
                  std::visit([&](const auto& layer) { return written(its, layer, place); }, each.layer);
        const Index out =
            std::visit([&](const auto& layer) { return validate::sizes(its, layer).out; }, each.layer);
        if (out != validate::kAnySize) place.width = out;
        i += both;
    }
    return "{\"in_shape\": [null, null, " + std::to_string(in) + "], \"layers\": [\n  " + layers + "]}\n";
}

template Model<float> read_keras(const validate::Caller&, const json::Value&);
template Model<double> read_keras(const validate::Caller&, const json::Value&);
template std::string write_keras(const validate::Caller&, const Model<float>&);
template std::string write_keras(const validate::Caller&, const Model<double>&);

}  // namespace bptt::rtneural
