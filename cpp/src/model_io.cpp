#include "bptt/model_io.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "files.hpp"
#include "json.hpp"
#include "safetensors.hpp"
#include "validate_models.hpp"

namespace bptt {
namespace {

constexpr const char* kKey = "bptt_model";  // of the metadata
constexpr double kFormat = 1;
constexpr std::size_t kMaxFile = std::size_t{1} << 36;

template <class R>
constexpr const char* kDtype = sizeof(R) == 4 ? "F32" : "F64";

// ---- what each type of layer is called, and is made of ---------------------------------------------

struct CellName {
    Cell cell;
    const char *type, *option, *value;  // what tells cells of one type apart; value as JSON
};
constexpr CellName kCellNames[] = {{Cell::rnn_tanh, "RNN", "nonlinearity", "\"tanh\""},
                                   {Cell::rnn_relu, "RNN", "nonlinearity", "\"relu\""},
                                   {Cell::rnn_identity, "RNN", "nonlinearity", "\"identity\""},
                                   {Cell::lstm, "LSTM", nullptr, nullptr},
                                   {Cell::gru, "GRU", "reset_after", "true"},
                                   {Cell::gru_reset_before, "GRU", "reset_after", "false"}};

// ---- reading ---------------------------------------------------------------------------------------

// The tensors of a file, each of which is taken once.
template <class R>
class Tensors {
public:
    Tensors(const validate::Caller& caller, const std::vector<safetensors::Tensor>& tensors)
        : caller_(caller) {
        for (const safetensors::Tensor& tensor : tensors) left_.emplace(tensor.name, &tensor);
    }

    Array<R> take(const std::string& name, const Shape& shape) {
        const auto found = left_.find(name);
        if (found == left_.end()) caller_.fail("tensor " + json::quoted(name) + " is missing");
        const safetensors::Tensor& tensor = *found->second;
        const std::string what = "tensor " + json::quoted(name);
        if (tensor.dtype != kDtype<R>)
            caller_.fail(what + " has dtype " + tensor.dtype + ", expected " + kDtype<R>);
        if (tensor.shape != shape)
            caller_.fail(what + " has shape " + validate::text(tensor.shape) + ", expected " +
                         validate::text(shape));
        left_.erase(found);
        Array<R> array(shape);
        if (!tensor.bytes.empty()) std::memcpy(array.data(), tensor.bytes.data(), tensor.bytes.size());
        validate::finite<R>(caller_, array, what);
        return array;
    }

    void none_is_left() const {
        if (!left_.empty())
            caller_.fail("tensor " + json::quoted(left_.begin()->first) + " belongs to no layer");
    }

private:
    const validate::Caller& caller_;
    std::map<std::string, const safetensors::Tensor*> left_;
};

// The description of one layer: each entry is asked for once, and none may be left.
class Description {
public:
    Description(const validate::Caller& caller, const json::Value& value, std::size_t i)
        : caller_(caller), value_(value), where_(std::string(kKey) + "'s layers[" + std::to_string(i) + "]") {
        if (value.object() == nullptr) fail(std::string(" is ") + value.kind() + ", expected an object");
    }

    [[noreturn]] void fail(const std::string& sentence) const { caller_.fail(where_ + sentence); }

    std::string string(const char* key) {
        const json::Value& value = entry(key);
        if (value.string() == nullptr) not_this(key, value, "a string");
        return *value.string();
    }
    bool flag(const char* key) {
        const json::Value& value = entry(key);
        if (value.boolean() == nullptr) not_this(key, value, "true or false");
        return *value.boolean();
    }
    Index size(const char* key) {
        constexpr double most = std::numeric_limits<std::int32_t>::max();
        const json::Value& value = entry(key);
        const double* const number = value.number();
        if (number == nullptr || !(*number >= 1 && *number <= most) ||
            static_cast<double>(static_cast<Index>(*number)) != *number)
            not_this(key, value, "an integer of 1 to 2^31-1");
        return static_cast<Index>(*number);
    }
    double share(const char* key) {
        const json::Value& value = entry(key);
        if (value.number() == nullptr || !(*value.number() >= 0 && *value.number() < 1))
            not_this(key, value, "a number in [0, 1)");
        return *value.number();
    }
    void none_is_left() const {
        for (const auto& item : *value_.object())
            if (asked_.count(item.first) == 0)
                fail(" has the entry " + json::quoted(item.first) + ", which this version does not know");
    }

private:
    const json::Value& entry(const char* key) {
        asked_.insert(key);
        const json::Value* const value = value_.find(key);
        if (value == nullptr) fail(std::string(" has no ") + key);
        return *value;
    }
    [[noreturn]] void not_this(const char* key, const json::Value& value, const char* expected) const {
        const std::string came = value.number() != nullptr   ? json::number(*value.number())
                                 : value.string() != nullptr ? json::quoted(*value.string())
                                                             : value.kind();
        fail(std::string(": ") + key + " is " + came + ", expected " + expected);
    }

    const validate::Caller& caller_;
    const json::Value& value_;
    std::string where_;
    std::set<std::string> asked_;
};

// The first cell of the type that its option, where it has one, does not speak against.
Cell cell_of(Description& description, const std::string& type) {
    for (const CellName& each : kCellNames) {
        if (type != each.type) continue;
        if (each.option == nullptr) return each.cell;
        const std::string value = each.value[0] == '"'
                                      ? json::quoted(description.string(each.option))
                                      : std::string(description.flag(each.option) ? "true" : "false");
        if (value == each.value) return each.cell;
        if (&each == std::end(kCellNames) - 1 || std::strcmp((&each + 1)->type, each.type) != 0)
            description.fail(std::string(": ") + each.option + " is " + value + ", which is none");
    }
    description.fail(": type is " + json::quoted(type) +
                     ", expected one of RNN, LSTM, GRU, Linear, Embedding, Activation");
}

template <class R>
Recurrent<R> recurrent(Description& description, Cell cell, const std::string& prefix, Tensors<R>& tensors) {
    const Index D = description.size("input_size"), H = description.size("hidden_size");
    const Index GH = cell_gates(cell) * H;
    Recurrent<R> layer;
    layer.cell = cell;
    layer.num_layers = description.size("num_layers");
    layer.bidirectional = description.flag("bidirectional");
    layer.dropout = description.share("dropout");
    const bool bias = description.flag("bias");
    for (Index l = 0; l < layer.num_layers; ++l)
        for (Index direction = 0; direction < layer.directions(); ++direction) {
            const std::string ending = "_l" + std::to_string(l) + (direction == 1 ? "_reverse" : "");
            const auto take = [&](const char* name, const Shape& shape) {
                return tensors.take(prefix + name + ending, shape);
            };
            typename Recurrent<R>::Row row;
            row.weight_ih = take("weight_ih", {GH, l == 0 ? D : layer.directions() * H});
            row.weight_hh = take("weight_hh", {GH, H});
            if (bias) {
                row.bias_ih = take("bias_ih", {GH});
                row.bias_hh = take("bias_hh", {GH});
            }
            layer.rows.push_back(std::move(row));
        }
    if (description.flag("learn_initial_state")) {
        const Shape shape{layer.num_layers * layer.directions(), H};
        layer.initial_h = tensors.take(prefix + "initial_h", shape);
        if (cell_has_c(cell)) layer.initial_c = tensors.take(prefix + "initial_c", shape);
    }
    return layer;
}

template <class R>
Layer<R> layer_of(Description& description, const std::string& prefix, Tensors<R>& tensors) {
    const std::string type = description.string("type");
    if (type == "Embedding") {
        const Index V = description.size("num_embeddings"), E = description.size("embedding_dim");
        return Embedding<R>{tensors.take(prefix + "weight", {V, E})};
    }
    if (type == "Linear") {
        const Index D = description.size("in_features"), V = description.size("out_features");
        Linear<R> layer{tensors.take(prefix + "weight", {V, D}), {}};
        if (description.flag("bias")) layer.bias = tensors.take(prefix + "bias", {V});
        return layer;
    }
    if (type == "Activation") {
        const std::string name = description.string("nonlinearity");
        try {
            return Activation<R>{nonlinearity_from_name(name)};
        } catch (const std::invalid_argument& error) {
            description.fail(std::string(": ") + error.what());
        }
    }
    return recurrent<R>(description, cell_of(description, type), prefix, tensors);
}

template <class R>
LoadedModel<R> read(std::string_view bytes, const std::string& where) {
    const validate::Caller caller(where);
    safetensors::Contents contents = safetensors::parse(bytes, where);
    const auto entry = contents.metadata.find(kKey);
    if (entry == contents.metadata.end())
        caller.fail(std::string("the metadata has no ") + kKey + ": save_model did not write this file");
    const json::Value value = json::parse(entry->second, where + ": " + kKey);
    const json::Value* const format = value.find("format");
    const json::Value* const layers = value.find("layers");
    if (format == nullptr || format->number() == nullptr) caller.fail(std::string(kKey) + " has no format");
    if (*format->number() != kFormat)
        caller.fail(std::string(kKey) + " is of format " + json::number(*format->number()) + ", expected " +
                    json::number(kFormat));
    if (layers == nullptr || layers->list() == nullptr || layers->list()->empty())
        caller.fail(std::string(kKey) + " has no layers");

    LoadedModel<R> loaded;
    Tensors<R> tensors(caller, contents.tensors);
    for (std::size_t i = 0; i < layers->list()->size(); ++i) {
        Description description(caller, (*layers->list())[i], i);
        const std::string name = description.string("name");
        loaded.model.layers.push_back({name, layer_of<R>(description, name + ".", tensors)});
        description.none_is_left();
    }
    tensors.none_is_left();
    validate::chain(caller, loaded.model);
    contents.metadata.erase(entry);
    loaded.metadata = std::move(contents.metadata);
    return loaded;
}

// ---- writing ---------------------------------------------------------------------------------------

std::string entry(const char* key, const std::string& value) {
    return ", \"" + std::string(key) + "\": " + value;
}
std::string entry(const char* key, Index value) { return entry(key, std::to_string(value)); }
std::string entry(const char* key, bool value) { return entry(key, std::string(value ? "true" : "false")); }

template <class R>
std::string described(const Linear<R>& layer) {
    return "\"Linear\"" + entry("in_features", layer.weight.shape()[1]) +
           entry("out_features", layer.weight.shape()[0]) + entry("bias", static_cast<bool>(layer.bias));
}
template <class R>
std::string described(const Embedding<R>& layer) {
    return "\"Embedding\"" + entry("num_embeddings", layer.weight.shape()[0]) +
           entry("embedding_dim", layer.weight.shape()[1]);
}
template <class R>
std::string described(const Activation<R>& layer) {
    return "\"Activation\"" + entry("nonlinearity", json::quoted(nonlinearity_name(layer.nonlinearity)));
}
template <class R>
std::string described(const Recurrent<R>& layer) {
    const auto name = std::find_if(std::begin(kCellNames), std::end(kCellNames),
                                   [&](const CellName& each) { return each.cell == layer.cell; });
    return "\"" + std::string(name->type) + "\"" + entry("input_size", layer.input_size()) +
           entry("hidden_size", layer.hidden_size()) + entry("num_layers", layer.num_layers) +
           entry("bidirectional", layer.bidirectional) + entry("dropout", json::number(layer.dropout)) +
           entry("bias", static_cast<bool>(layer.rows[0].bias_ih)) +
           entry("learn_initial_state", static_cast<bool>(layer.initial_h)) +
           (name->option == nullptr ? "" : entry(name->option, std::string(name->value)));
}

template <class R>
std::string written(const Model<R>& model, const Metadata& metadata, const std::string& where) {
    const validate::Caller caller(where);
    validate::chain(caller, model);
    if (metadata.count(kKey) != 0)
        caller.fail(std::string("metadata has ") + kKey + ", which is the model's");
    safetensors::Contents contents{{}, metadata};
    std::string layers;
    for (const NamedLayer<R>& each : model.layers)
        layers += (layers.empty() ? "" : ", ") + ("{\"name\": " + json::quoted(each.name)) + ", \"type\": " +
                  std::visit([](const auto& layer) { return described(layer); }, each.layer) + "}";
    contents.metadata[kKey] = "{\"format\": " + json::number(kFormat) + ", \"layers\": [" + layers + "]}";
    const NamedArrays<R> arrays = parameters(model);
    for (const NamedArray<R>& array : arrays) {
        validate::finite<R>(caller, array.value, array.name);
        const auto bytes = static_cast<std::size_t>(array.value.elements()) * sizeof(R);
        contents.tensors.push_back({array.name,
                                    kDtype<R>,
                                    array.value.shape(),
                                    {reinterpret_cast<const char*>(array.value.data()), bytes}});
    }
    std::string file = safetensors::text(contents);
    read<R>(file, where);  // what can't be read is not written, as two layers of one name
    return file;
}

std::string with_path(const char* name, const std::string& path) {
    return std::string(name) + "(\"" + path + "\")";
}

}  // namespace

template <class R>
void save_model(const std::string& path, const Model<R>& model, const Metadata& metadata) {
    const std::string where = with_path("save_model", path);
    files::write_atomically(path, written(model, metadata, where), where);
}

template <class R>
LoadedModel<R> load_model(const std::string& path) {
    const std::string where = with_path("load_model", path);
    return read<R>(files::read(path, kMaxFile, where), where);
}

template <class R>
std::string model_to_bytes(const Model<R>& model, const Metadata& metadata) {
    return written(model, metadata, "model_to_bytes");
}

template <class R>
LoadedModel<R> model_from_bytes(std::string_view bytes) {
    return read<R>(bytes, "model_from_bytes");
}

template void save_model(const std::string&, const Model<float>&, const Metadata&);
template void save_model(const std::string&, const Model<double>&, const Metadata&);
template LoadedModel<float> load_model(const std::string&);
template LoadedModel<double> load_model(const std::string&);
template std::string model_to_bytes(const Model<float>&, const Metadata&);
template std::string model_to_bytes(const Model<double>&, const Metadata&);
template LoadedModel<float> model_from_bytes(std::string_view);
template LoadedModel<double> model_from_bytes(std::string_view);

}  // namespace bptt
