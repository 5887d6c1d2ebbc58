// Layers one after the other.
#include <utility>

#include "bptt/layers.hpp"
#include "validate_layers.hpp"

namespace bptt {
namespace {

template <class R>
constexpr bool has_state = false;
template <class R>
constexpr bool has_state<Recurrent<R>> = true;

template <class R>
void layers(const validate::Caller& caller, const Model<R>& model) {
    if (model.layers.empty()) caller.fail("there are no layers, expected at least one");
}

// That there is an entry for each layer, or none at all.
template <class Entries, class R>
void entries(const validate::Caller& caller, const Entries& given, const char* name, const Model<R>& model) {
    if (given.size() != model.layers.size())
        caller.fail(std::string(name) + " has " + std::to_string(given.size()) +
                    " entries, expected one for each of " + std::to_string(model.layers.size()) + " layers");
}
template <class R>
void states(const validate::Caller& caller, const ModelState<R>& given, const char* name,
            const Model<R>& model) {
    if (given.empty()) return;
    entries(caller, given, name, model);
    for (std::size_t i = 0; i < given.size(); ++i)
        if ((given[i].h || given[i].c) && !std::holds_alternative<Recurrent<R>>(model.layers[i].layer))
            caller.fail(validate::entry(name, i) + " is given, and layer " + model.layers[i].name +
                        " has no state");
}

template <class R>
LayerState<R> entry(const ModelState<R>& states, std::size_t i) {
    return states.empty() ? LayerState<R>() : states[i];
}

// What a layer reads of an input.
template <class R>
View<const std::int64_t> read(const Embedding<R>&, const Input<R>& input) {
    return input.index;
}
template <class R, class L>
View<const R> read(const L&, const Input<R>& input) {
    return input.x;
}

// Each layer from the y of the one below: call(layer, its input, its state) gives a LayerForward. Without
// keep their tapes are dropped.
template <class R, class Call>
ModelForward<R> chain(const char* name, const Model<R>& model, const Input<R>& x, const ModelState<R>& state,
                      bool keep, Call call) {
    const validate::Caller caller(name);
    layers(caller, model);
    states(caller, state, "state", model);
    ModelForward<R> out;
    Input<R> input = x;
    for (std::size_t i = 0; i < model.layers.size(); ++i) {
        LayerForward<R> one =
            std::visit([&](const auto& layer) { return call(layer, read(layer, input), entry(state, i)); },
                       model.layers[i].layer);
        one.tape.below = std::move(out.y);  // which the tape refers to
        out.y = std::move(one.y);
        out.state.push_back(std::move(one.state));
        if (keep) out.tape.push_back(std::move(one.tape));
        input = out.y;
    }
    return out;
}

// That every layer can go back, before one does: it consumes its tape. A layer below will be given what has
// the shape of what the one above read.
template <class R>
void ready(const Model<R>& model, const ModelTape<R>& tape, View<const R> dy, const ModelState<R>& dstate) {
    for (std::size_t i = model.layers.size(); i-- > 0;)
        dy = std::visit(
            [&](const auto& layer) {
                if constexpr (has_state<std::decay_t<decltype(layer)>>) {
                    validate::backward<R>(layer, tape[i], dy, entry(dstate, i));
                    return tape[i].rows[0].x;
                } else {
                    validate::backward<R>(layer, tape[i], dy);
                    return tape[i].input.x;
                }
            },
            model.layers[i].layer);
}

template <class R>
LayerForward<R> only_y(Array<R> y) {
    LayerForward<R> out;
    out.y = std::move(y);
    return out;
}

}  // namespace

template <class R>
Model<R> sequential(std::vector<Layer<R>> its_layers) {
    Model<R> model;
    for (Layer<R>& layer : its_layers)
        model.layers.push_back({std::to_string(model.layers.size()), std::move(layer)});
    layers(validate::Caller("sequential"), model);
    return model;
}

template <class R>
void initialize(Model<R>& model, Random& random) {
    for (NamedLayer<R>& layer : model.layers)
        std::visit([&](auto& its) { initialize(its, random); }, layer.layer);
}

template <class R>
NamedArrays<R> parameters(const Layer<R>& layer) {
    return std::visit([](const auto& its) { return parameters(its); }, layer);
}

template <class R>
NamedArrays<R> parameters(const Model<R>& model) {
    NamedArrays<R> all;
    for (const NamedLayer<R>& layer : model.layers)
        for (NamedArray<R>& parameter : parameters(layer.layer))
            all.push_back({layer.name + "." + parameter.name, std::move(parameter.value)});
    return all;
}

template <class R>
void prepare(Model<R>& model) {
    for (NamedLayer<R>& layer : model.layers)
        if (auto* const its = std::get_if<Recurrent<R>>(&layer.layer)) prepare(*its);
}

template <class R>
ModelForward<R> forward(const Model<R>& model, const AnyIn<R>& x, const ModelState<R>& state,
                        const Steps& steps, Random* random) {
    return chain("Model.forward", model, x, state, true,
                 [&](const auto& layer, const auto& input, const LayerState<R>& its) {
                     if constexpr (has_state<std::decay_t<decltype(layer)>>) {
                         Masks masks;
                         if (random != nullptr && input.shape.rank == 3)
                             masks = dropout_masks(layer, input.shape[0], input.shape[1], *random);
                         return forward(layer, input, its, steps, std::move(masks));
                     } else {
                         return forward(layer, input);
                     }
                 });
}

template <class R>
ModelForward<R> predict(const Model<R>& model, const AnyIn<R>& x, const ModelState<R>& state,
                        const Steps& steps) {
    return chain("Model.predict", model, x, state, false,
                 [&](const auto& layer, const auto& input, const LayerState<R>& its) {
                     if constexpr (has_state<std::decay_t<decltype(layer)>>)
                         return predict(layer, input, its, steps);
                     else
                         return only_y(predict(layer, input));
                 });
}

template <class R>
ModelForward<R> step(const Model<R>& model, const AnyIn<R>& x, const ModelState<R>& state) {
    return chain("Model.step", model, x, state, false,
                 [](const auto& layer, const auto& input, const LayerState<R>& its) {
                     if constexpr (has_state<std::decay_t<decltype(layer)>>)
                         return step(layer, input, its);
                     else
                         return only_y(predict(layer, input));
                 });
}

template <class R>
ModelGradients<R> backward(const Model<R>& model, ModelTape<R>& tape, In<R> dy, const ModelState<R>& dstate,
                           bool retain) {
    const validate::Caller caller("Model.backward");
    layers(caller, model);
    entries(caller, tape, "tape", model);
    states(caller, dstate, "dstate", model);
    ready<R>(model, tape, dy, dstate);
    std::vector<LayerGradients<R>> found(model.layers.size());
    Array<R> dx;
    for (std::size_t i = model.layers.size(); i-- > 0;) {
        const View<const R> its_dy = i + 1 == model.layers.size() ? dy : View<const R>(dx);
        found[i] = std::visit(
            [&](const auto& layer) {
                if constexpr (has_state<std::decay_t<decltype(layer)>>)
                    return backward(layer, tape[i], its_dy, entry(dstate, i), retain);
                else
                    return backward(layer, tape[i], its_dy, retain);
            },
            model.layers[i].layer);
        dx = std::move(found[i].x);
        if (!retain) tape[i].below = Array<R>();
    }
    ModelGradients<R> out;
    out.x = std::move(dx);
    for (std::size_t i = 0; i < found.size(); ++i) {
        out.state.push_back(std::move(found[i].state));
        for (NamedArray<R>& gradient : found[i].parameters)
            out.parameters.push_back({model.layers[i].name + "." + gradient.name, std::move(gradient.value)});
    }
    return out;
}

#define BPTT_MODEL(R)                                                                                       \
    template Model<R> sequential(std::vector<Layer<R>>);                                                    \
    template void initialize(Model<R>&, Random&);                                                           \
    template NamedArrays<R> parameters(const Layer<R>&);                                                    \
    template void prepare(Model<R>&);                                                                       \
    template NamedArrays<R> parameters(const Model<R>&);                                                    \
    template ModelForward<R> forward(const Model<R>&, const AnyIn<R>&, const ModelState<R>&, const Steps&,  \
                                     Random*);                                                              \
    template ModelForward<R> predict(const Model<R>&, const AnyIn<R>&, const ModelState<R>&, const Steps&); \
    template ModelForward<R> step(const Model<R>&, const AnyIn<R>&, const ModelState<R>&);                  \
    template ModelGradients<R> backward(const Model<R>&, ModelTape<R>&, In<R>, const ModelState<R>&, bool);
BPTT_MODEL(float)
BPTT_MODEL(double)

}  // namespace bptt
