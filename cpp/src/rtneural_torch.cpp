// PyTorch's kind: a state_dict, to read.
#include <algorithm>
#include <string>
#include <vector>

#include "rtneural.hpp"

namespace bptt::rtneural {
namespace {

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

}  // namespace

template <class R>
Model<R> read_torch(const validate::Caller& caller, const json::Value& tensors) {
    return Torch<R>(caller).read(tensors);
}

template Model<float> read_torch(const validate::Caller&, const json::Value&);
template Model<double> read_torch(const validate::Caller&, const json::Value&);

}  // namespace bptt::rtneural
