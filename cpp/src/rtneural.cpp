// RTNeural's JSON: the Keras kind in both directions, the PyTorch kind to read.
//
//   Keras's layer                    here
//   kernel (D, G*H)                  weight_ih (G*H, D), transposed
//   recurrent kernel (H, G*H)        weight_hh (G*H, H), transposed
//   LSTM's bias (4*H,)               bias_ih + bias_hh; gates i, f, c, o
//   GRU's bias (2, 3*H)              bias_ih, bias_hh; gates z, r, h for r, z, n
//   dense kernel (D, V), bias (V,)   weight (V, D), bias
#include <algorithm>
#include <cmath>
#include <vector>

#include "arrays.hpp"
#include "bptt/model_io.hpp"
#include "files.hpp"
#include "json.hpp"
#include "validate_models.hpp"

namespace bptt {
namespace {

constexpr std::size_t kMaxFile = std::size_t{1} << 30;

// ---- arrays of numbers in JSON ---------------------------------------------------------------------

template <class R>
class Numbers {
public:
    explicit Numbers(const validate::Caller& caller) : caller_(caller) {}

    // (first, second), each at least 1.
    Array<R> matrix(const json::Value& value, const std::string& what) const {
        const json::List& rows = list(value, what);
        const std::size_t columns = list(rows[0], what + "[0]").size();
        Array<R> out({static_cast<Index>(rows.size()), static_cast<Index>(columns)});
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const std::string row = validate::entry(what.c_str(), i);
            fill(list(rows[i], row, columns), out.data() + i * columns, row);
        }
        return out;
    }
    Array<R> vector(const json::Value& value, const std::string& what) const {
        const json::List& entries = list(value, what);
        Array<R> out({static_cast<Index>(entries.size())});
        fill(entries, out.data(), what);
        return out;
    }
    const json::List& list(const json::Value& value, const std::string& what, std::size_t count = 0) const {
        if (value.list() == nullptr) caller_.fail(what + " is " + value.kind() + ", expected a list");
        const json::List& entries = *value.list();
        if (entries.empty()) caller_.fail(what + " is empty");
        if (count > 0 && entries.size() != count)
            caller_.fail(what + " has " + std::to_string(entries.size()) + " entries, expected " +
                         std::to_string(count));
        return entries;
    }

private:
    void fill(const json::List& entries, R* to, const std::string& what) const {
        for (std::size_t i = 0; i < entries.size(); ++i) {
            const double* const number = entries[i].number();
            if (number == nullptr)
                caller_.fail(validate::entry(what.c_str(), i) + " is " + entries[i].kind() +
                             ", expected a number");
            to[i] = static_cast<R>(*number);
        }
        validate::finite<R>(caller_, View<const R>(to, {static_cast<Index>(entries.size())}), what);
    }

    const validate::Caller& caller_;
};

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

// ---- Keras's kind ----------------------------------------------------------------------------------

template <class R>
class Keras {
public:
    explicit Keras(const validate::Caller& caller) : caller_(caller), numbers_(caller) {}

    Model<R> read(const json::Value& file) const {
        const json::List& layers = numbers_.list(*file.find("layers"), "layers");
        Model<R> model;
        for (std::size_t i = 0; i < layers.size(); ++i)
            model.layers.push_back({std::to_string(i), layer(layers[i], validate::entry("layers", i))});
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

    Layer<R> layer(const json::Value& value, const std::string& where) const {
        const std::string type = string(value, "type", where);
        const std::string activation = string(value, "activation", where);
        const bool dense = type == "dense" || type == "time-distributed-dense";
        if (!dense && type != "lstm" && type != "gru")
            caller_.fail(where + " has type " + json::quoted(type) +
                         ", expected lstm, gru, dense or time-distributed-dense");
        if (!activation.empty() && activation != (dense ? "linear" : "tanh"))
            caller_.fail(where + ", " + type + ", has activation " + json::quoted(activation) +
                         ", expected none: a model here has no activations but its cells' own");
        const json::Value* const weights = value.find("weights");
        if (weights == nullptr) caller_.fail(where + " has no weights");
        const std::string what = where + ".weights";
        const json::List& arrays = numbers_.list(*weights, what);
        const std::size_t with_bias = dense ? 2 : 3;
        if (arrays.size() != with_bias && arrays.size() + 1 != with_bias)
            caller_.fail(what + " has " + std::to_string(arrays.size()) + " arrays, expected " +
                         std::to_string(with_bias) + ", or one less without a bias");
        const auto name = [&](std::size_t i) { return validate::entry(what.c_str(), i); };
        const json::Value* const bias = arrays.size() == with_bias ? &arrays.back() : nullptr;
        const auto size = [&](Index expected) {
            if (const json::Value* const shape = value.find("shape"))
                last_size(*shape, where + ".shape", expected);
        };
        if (dense) {
            Linear<R> linear{transposed(numbers_.matrix(arrays[0], name(0))), {}};
            if (bias != nullptr) linear.bias = numbers_.vector(*bias, name(1));
            size(linear.weight.shape()[0]);
            return linear;
        }
        Recurrent<R> recurrent;
        recurrent.cell = type == "lstm" ? Cell::lstm : Cell::gru;
        typename Recurrent<R>::Row row;
        row.weight_ih = of_gates(recurrent.cell, transposed(numbers_.matrix(arrays[0], name(0))), name(0));
        row.weight_hh = of_gates(recurrent.cell, transposed(numbers_.matrix(arrays[1], name(1))), name(1));
        if (bias != nullptr && recurrent.cell == Cell::lstm) {
            row.bias_ih = numbers_.vector(*bias, name(2));
            row.bias_hh = zeros<R>(row.bias_ih.shape());
        } else if (bias != nullptr) {
            const json::List& two = numbers_.list(*bias, name(2), 2);
            if (two[0].number() != nullptr)
                caller_.fail(name(2) + " is one bias, expected two of (3*H,): a GRU with reset_after");
            const auto part = [&](std::size_t i) {
                const std::string its = validate::entry(name(2).c_str(), i);
                return of_gates(recurrent.cell, numbers_.vector(two[i], its), its);
            };
            row.bias_ih = part(0);
            row.bias_hh = part(1);
        }
        size(row.weight_hh.shape()[1]);
        recurrent.rows.push_back(std::move(row));
        return recurrent;
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

// ---- PyTorch's kind --------------------------------------------------------------------------------

template <class R>
class Torch {
public:
    explicit Torch(const validate::Caller& caller) : caller_(caller), numbers_(caller) {}

    Model<R> read(const json::Value& tensors) const {
        if (tensors.object() == nullptr)
            caller_.fail(std::string("the state_dict is ") + tensors.kind() + ", expected an object");
        Model<R> model;
        std::vector<std::string> taken;
        for (const auto& entry : *tensors.object()) {
            const std::string& name = entry.first;
            if (std::find(taken.begin(), taken.end(), name) != taken.end()) continue;
            // "dense.weight" is the tensor "weight" of the layer "dense".
            const std::size_t dot = name.rfind('.');
            const std::string prefix = dot == std::string::npos ? "" : name.substr(0, dot + 1);
            const std::string own = name.substr(prefix.size());
            Source source{tensors, prefix, taken};
            if (own == "weight" || own == "bias")
                model.layers.push_back({prefix.substr(0, prefix.size() - !prefix.empty()), linear(source)});
            else if (tensors.find(prefix + "weight_ih_l0") != nullptr)
                model.layers.push_back(
                    {prefix.substr(0, prefix.size() - !prefix.empty()), recurrent(source)});
            else
                caller_.fail("tensor " + json::quoted(name) + " belongs to no LSTM, GRU or linear layer");
            if (std::find(taken.begin(), taken.end(), name) == taken.end())
                caller_.fail("tensor " + json::quoted(name) + " belongs to no layer");
        }
        for (NamedLayer<R>& each : model.layers)
            if (each.name.empty()) each.name = "0";
        validate::chain(caller_, model);
        return model;
    }

private:
    // One layer's tensors, and the names of those that were taken.
    struct Source {
        const json::Value& tensors;
        std::string prefix;
        std::vector<std::string>& taken;

        const json::Value* find(const std::string& name) const {
            const json::Value* const found = tensors.find(prefix + name);
            if (found != nullptr) taken.push_back(prefix + name);
            return found;
        }
    };

    const json::Value& get(const Source& source, const std::string& name) const {
        const json::Value* const found = source.find(name);
        if (found == nullptr) caller_.fail("tensor " + json::quoted(source.prefix + name) + " is missing");
        return *found;
    }
    Array<R> matrix(const Source& source, const std::string& name) const {
        return numbers_.matrix(get(source, name), source.prefix + name);
    }

    Linear<R> linear(const Source& source) const {
        Linear<R> layer{matrix(source, "weight"), {}};
        if (const json::Value* const bias = source.find("bias"))
            layer.bias = numbers_.vector(*bias, source.prefix + "bias");
        return layer;
    }

    Recurrent<R> recurrent(const Source& source) const {
        Recurrent<R> layer;
        layer.bidirectional = source.tensors.find(source.prefix + "weight_ih_l0_reverse") != nullptr;
        layer.num_layers = 0;
        while (source.tensors.find(source.prefix + "weight_ih_l" + std::to_string(layer.num_layers)) !=
               nullptr) {
            for (Index direction = 0; direction < layer.directions(); ++direction)
                layer.rows.push_back(row(
                    source, "_l" + std::to_string(layer.num_layers) + (direction == 1 ? "_reverse" : "")));
            ++layer.num_layers;
        }
        const Shape& shape = layer.rows[0].weight_hh.shape();
        const Index gates = shape[0] % shape[1] == 0 ? shape[0] / shape[1] : 0;
        if (gates != 4 && gates != 3)
            caller_.fail("tensor " + json::quoted(source.prefix + "weight_hh_l0") + " has shape " +
                         validate::text(shape) + ", expected (4*H, H) of an LSTM or (3*H, H) of a GRU");
        layer.cell = gates == 4 ? Cell::lstm : Cell::gru;
        return layer;
    }

    typename Recurrent<R>::Row row(const Source& source, const std::string& ending) const {
        typename Recurrent<R>::Row row;
        row.weight_ih = matrix(source, "weight_ih" + ending);
        row.weight_hh = matrix(source, "weight_hh" + ending);
        if (const json::Value* const bias = source.find("bias_ih" + ending)) {
            row.bias_ih = numbers_.vector(*bias, source.prefix + "bias_ih" + ending);
            row.bias_hh =
                numbers_.vector(get(source, "bias_hh" + ending), source.prefix + "bias_hh" + ending);
        }
        return row;
    }

    const validate::Caller& caller_;
    Numbers<R> numbers_;
};

template <class R>
Model<R> read(std::string_view text, const std::string& where) {
    const validate::Caller caller(where);
    const json::Value file = json::parse(text, where);
    if (file.object() == nullptr)
        caller.fail(std::string("the file is ") + file.kind() + ", expected an object");
    if (file.find("layers") != nullptr) return Keras<R>(caller).read(file);
    const json::Value* const tensors = file.find("state_dict");
    if (tensors == nullptr) return Torch<R>(caller).read(file);
    // What the trainer of several amplifier plug-ins writes beside it: the input may be added to the output.
    if (const json::Value* const data = file.find("model_data"))
        if (const json::Value* const skip = data->find("skip"))
            if (skip->number() == nullptr || *skip->number() != 0)
                caller.fail(
                    "model_data has a skip, which adds the input to the output, expected 0: "
                    "a model here has none");
    return Torch<R>(caller).read(*tensors);
}

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

std::string described(const char* type, const char* activation, Index size, const std::string& weights) {
    return "{\"type\": \"" + std::string(type) + "\", \"activation\": \"" + activation +
           "\", \"shape\": [null, null, " + std::to_string(size) + "], \"weights\": [\n   " + weights + "]}";
}

template <class R>
std::string written(const validate::Caller& caller, const Embedding<R>&) {
    caller.fail("is an embedding, expected an LSTM, a GRU or a linear layer: the format has no other");
}

template <class R>
std::string written(const validate::Caller&, const Linear<R>& layer) {
    const Index V = layer.weight.shape()[0];
    const Array<R> bias = layer.bias ? layer.bias : zeros<R>({V});
    return described("dense", "", V, list(transposed(layer.weight)) + ",\n   " + list(bias));
}

template <class R>
std::string written(const validate::Caller& caller, const Recurrent<R>& layer) {
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

template <class R>
std::string written(const Model<R>& model, const std::string& where) {
    const validate::Caller caller(where);
    const validate::Sizes sizes = validate::chain(caller, model);
    for (const NamedArray<R>& array : parameters(model)) validate::finite<R>(caller, array.value, array.name);
    std::string layers;
    for (const NamedLayer<R>& each : model.layers) {
        const validate::Caller its(where + ": layer " + json::quoted(each.name));
        layers += (layers.empty() ? "" : ",\n  ") +
                  std::visit([&](const auto& layer) { return written(its, layer); }, each.layer);
    }
    return "{\"in_shape\": [null, null, " + std::to_string(sizes.in) + "], \"layers\": [\n  " + layers +
           "]}\n";
}

std::string with_path(const char* name, const std::string& path) {
    return std::string(name) + "(\"" + path + "\")";
}

}  // namespace

template <class R>
Model<R> load_rtneural(const std::string& path) {
    const std::string where = with_path("load_rtneural", path);
    return read<R>(files::read(path, kMaxFile, where), where);
}

template <class R>
void save_rtneural(const std::string& path, const Model<R>& model) {
    const std::string where = with_path("save_rtneural", path);
    files::write_atomically(path, written(model, where), where);
}

template <class R>
Model<R> rtneural_from_text(std::string_view text) {
    return read<R>(text, "rtneural_from_text");
}

template <class R>
std::string rtneural_to_text(const Model<R>& model) {
    return written(model, "rtneural_to_text");
}

template Model<float> load_rtneural(const std::string&);
template Model<double> load_rtneural(const std::string&);
template void save_rtneural(const std::string&, const Model<float>&);
template void save_rtneural(const std::string&, const Model<double>&);
template Model<float> rtneural_from_text(std::string_view);
template Model<double> rtneural_from_text(std::string_view);
template std::string rtneural_to_text(const Model<float>&);
template std::string rtneural_to_text(const Model<double>&);

}  // namespace bptt
