// The checks of whole models: what goes into a file or a stream, and what comes out of a file.
#pragma once

#include <cmath>
#include <string>

#include "bptt/layers.hpp"
#include "validate_layers.hpp"

namespace bptt::validate {

// That there is neither NaN nor infinity among the numbers.
template <class R>
void finite(const Caller& caller, const View<const R>& view, const std::string& what) {
    for (Index i = 0; i < view.elements(); ++i)
        if (!std::isfinite(view.data[i]))
            caller.fail(what + position(view.shape, i) + " is " + std::to_string(view.data[i]) +
                        ", expected a finite number");
}

// How many numbers of each step a layer reads and gives; an embedding reads indices: 0; an activation gives
// as many as it reads.
constexpr Index kAnySize = -1;
struct Sizes {
    Index in, out;
};

template <class R>
Sizes sizes(const Caller& caller, const Linear<R>& layer) {
    caller.rank(View<const R>(layer.weight), "weight", 2, "(V, D)");
    const Shape& shape = layer.weight.shape();
    caller.at_least_one(shape[0], "weight", "V");
    caller.at_least_one(shape[1], "weight", "D");
    if (layer.bias) caller.shape(View<const R>(layer.bias), "bias", {shape[0]}, "(V,)");
    return {shape[1], shape[0]};
}
template <class R>
Sizes sizes(const Caller& caller, const Embedding<R>& layer) {
    caller.rank(View<const R>(layer.weight), "weight", 2, "(V, E)");
    caller.at_least_one(layer.weight.shape()[0], "weight", "V");
    caller.at_least_one(layer.weight.shape()[1], "weight", "E");
    return {0, layer.weight.shape()[1]};
}
template <class R>
Sizes sizes(const Caller& caller, const Recurrent<R>& its) {
    layer(caller, its);
    return {its.input_size(), its.directions() * its.hidden_size()};
}
template <class R>
Sizes sizes(const Caller&, const Activation<R>&) {
    return {kAnySize, kAnySize};
}

// That each layer is right, and reads what the one below gives. Returns what the model reads and gives, which
// its layers must say.
template <class R>
Sizes chain(const Caller& caller, const Model<R>& model) {
    if (model.layers.empty()) caller.fail("there are no layers, expected at least one");
    Sizes whole{kAnySize, kAnySize};
    for (std::size_t i = 0; i < model.layers.size(); ++i) {
        const NamedLayer<R>& each = model.layers[i];
        const Caller its_caller(caller.name() + ": layer \"" + each.name + "\"");
        const Sizes its = std::visit([&](const auto& one) { return sizes(its_caller, one); }, each.layer);
        if (its.in == kAnySize) continue;
        if (its.in == 0 && i > 0)
            its_caller.fail("an embedding reads indices, expected it to be the first layer");
        if (whole.out == kAnySize)
            whole.in = its.in;
        else if (its.in != whole.out)
            its_caller.fail("reads " + std::to_string(its.in) + " numbers, expected " +
                            std::to_string(whole.out) + ", which the layer before it gives");
        whole.out = its.out;
    }
    if (whole.out == kAnySize)
        caller.fail("the layers are activations, expected one at least that has weights, and so a size");
    return whole;
}

}  // namespace bptt::validate
