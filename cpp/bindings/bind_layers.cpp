// The recurrent layer as Python's layers hold it: the core's stack over NumPy's memory.
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "bind.hpp"
#include "bptt/layers.hpp"
#include "tape.hpp"

namespace bptt::bindings {
namespace {

// Memory that is kept alive by other means than the array. The core may let go of it on any thread, without
// the GIL.
template <class R>
Array<R> borrowed(const View<R>& view) {
    static int anything;
    static const std::shared_ptr<void> nobody(&anything, [](void*) {});
    return view ? Array<R>(view, nobody) : Array<R>();
}

template <class R>
struct HeldLayerTape {
    LayerTape<R> tape;
    py::object parameters;  // the layer's, and
    py::list masks;         // the masks that the tape refers to
    Input<R> x;
    IndexInput lengths;
    Input<bool> reset;
};

class PyLayerTape {
public:
    std::variant<HeldLayerTape<float>, HeldLayerTape<double>> held;
    bool busy = false;

    // Of each layer in each direction, sharing the memory.
    static py::list tapes(const std::shared_ptr<PyLayerTape>& self) {
        py::list all;
        std::visit([&](const auto& its) { add_rows(its, py::cast(self), all); }, self->held);
        return all;
    }
    py::list masks() const {
        return std::visit([](const auto& its) { return its.masks; }, held);
    }

private:
    template <class R>
    static void add_rows(const HeldLayerTape<R>& its, const py::object& self, py::list& all) {
        for (const Tape<R>& row : its.tape.rows) {
            auto one = std::make_unique<HeldTape<R>>();
            one->tape = row;
            one->owner = self;
            all.append(py::cast(std::make_unique<PyTape>(std::move(one))));
        }
    }
};

std::string shape_text(py::handle array) { return py::cast<std::string>(py::str(array.attr("shape"))); }

// A stacked state, or the gradient with respect to one: h, or for the LSTM the pair (h, c).
template <class R>
class StackedState {
public:
    StackedState(const std::string& caller, const Recurrent<R>& layer, const char* name, py::handle object) {
        if (object.is_none()) return;
        const bool sequence = py::isinstance<py::tuple>(object) || py::isinstance<py::list>(object);
        const std::string what = name;
        if (!cell_has_c(layer.cell)) {
            if (!py::isinstance<py::array>(object))
                type_error(caller, what + " is a " + type_name(object) +
                                       ", expected an array (num_layers*directions, N, H) = (" +
                                       std::to_string(layer.rows.size()) + ", N, " +
                                       std::to_string(layer.hidden_size()) + ")");
            h_ = Input<R>(caller, name, object);
            return;
        }
        if (py::isinstance<py::array>(object))
            throw py::value_error(caller + ": " + what + " has shape " + shape_text(object) +
                                  ", expected a pair (h, c)");
        if (!sequence || py::len(object) != 2)
            type_error(caller, what + " is a " + type_name(object) + ", expected a pair (h, c)");
        h_ = Input<R>(caller, (what + "[0]").c_str(), object[py::int_(0)]);
        c_ = Input<R>(caller, (what + "[1]").c_str(), object[py::int_(1)]);
    }
    operator State<R>() const { return {h_, c_}; }

private:
    Input<R> h_, c_;
};

template <class R>
py::object to_python(const LayerState<R>& state) {
    py::object h = to_numpy(state.h);
    return state.c ? py::object(py::make_tuple(h, to_numpy(state.c))) : h;
}

class PyRecurrent {
public:
    PyRecurrent(std::string name, const std::string& cell, Index num_layers, bool bidirectional,
                double dropout, const py::list& rows, py::object initial_h, py::object initial_c)
        : name_(std::move(name)), held_(py::make_tuple(rows, initial_h, initial_c)) {
        const py::tuple first = rows[0];
        if (is_single(name_, "weight_ih", first[0]))
            layer_ = make<float>(cell, num_layers, bidirectional, dropout, rows, initial_h, initial_c);
        else
            layer_ = make<double>(cell, num_layers, bidirectional, dropout, rows, initial_h, initial_c);
        std::visit(
            [this](const auto& layer) {
                for (const auto& parameter : parameters(layer)) parameters_.append(py::str(parameter.name));
            },
            layer_);
    }

    // masks: of the dropout, as many as there are layers above the first, or none. Returns y, the state and
    // the tape.
    py::tuple forward(py::object x, py::object state, py::object lengths, py::object reset,
                      const py::list& masks) const {
        return std::visit(
            [&](const auto& layer) { return forward_of(layer, x, state, lengths, reset, masks); }, layer_);
    }
    py::tuple predict(py::object x, py::object state, py::object lengths, py::object reset) const {
        return std::visit([&](const auto& layer) { return predict_of(layer, x, state, lengths, reset); },
                          layer_);
    }
    py::tuple step(py::object x_t, py::object state) const {
        return std::visit([&](const auto& layer) { return step_of(layer, x_t, state); }, layer_);
    }
    void prepare() {
        std::visit([](auto& layer) { bptt::prepare(layer); }, layer_);
    }
    // Raises what `backward` would raise for this tape and dstate.
    void check_backward(PyLayerTape& tape, py::object dstate) const {
        std::visit([&](const auto& layer) { check_of(layer, tape, dstate); }, layer_);
    }
    py::tuple backward(PyLayerTape& tape, py::object dy, py::object dstate, bool retain) const {
        return std::visit([&](const auto& layer) { return backward_of(layer, tape, dy, dstate, retain); },
                          layer_);
    }

private:
    template <class R>
    Recurrent<R> make(const std::string& cell, Index num_layers, bool bidirectional, double dropout,
                      const py::list& rows, py::handle initial_h, py::handle initial_c) const {
        const auto array = [&](const char* what, py::handle object) {
            return object.is_none() ? Array<R>() : borrowed(in_place<R>(name_, what, object));
        };
        Recurrent<R> layer;
        layer.cell = cell_from_name(cell);
        layer.num_layers = num_layers;
        layer.bidirectional = bidirectional;
        layer.dropout = dropout;
        for (const py::handle row : rows) {
            const auto its = py::cast<py::tuple>(row);
            layer.rows.push_back({array("weight_ih", its[0]), array("weight_hh", its[1]),
                                  array("bias_ih", its[2]), array("bias_hh", its[3])});
        }
        layer.initial_h = array("initial_h", initial_h);
        layer.initial_c = array("initial_c", initial_c);
        return layer;
    }

    template <class R>
    py::tuple forward_of(const Recurrent<R>& layer, py::handle x, py::handle state, py::handle lengths,
                         py::handle reset, const py::list& masks) const {
        const std::string caller = name_ + ".forward";
        HeldLayerTape<R> held{
            {}, held_, masks, {caller, "x", x}, {caller, "lengths", lengths}, {caller, "reset", reset}};
        const StackedState<R> its_state(caller, layer, "state", state);
        Masks its_masks;
        for (const py::handle mask : masks)
            its_masks.push_back(borrowed(in_place<bool>(caller, "masks", mask)));
        LayerForward<R> result;
        {
            py::gil_scoped_release without_gil;
            result =
                bptt::forward<R>(layer, held.x, its_state, {held.lengths, held.reset}, std::move(its_masks));
        }
        held.tape = std::move(result.tape);
        auto tape = std::make_shared<PyLayerTape>();
        tape->held = std::move(held);
        // In one direction y is the tape's own memory: writing to it would change the gradient.
        py::object y = to_numpy(result.y);
        return py::make_tuple(layer.bidirectional ? y : read_only(y), to_python(result.state), tape);
    }

    template <class R>
    py::tuple predict_of(const Recurrent<R>& layer, py::handle x, py::handle state, py::handle lengths,
                         py::handle reset) const {
        const std::string caller = name_ + ".predict";
        const Input<R> its_x(caller, "x", x);
        const IndexInput its_lengths(caller, "lengths", lengths);
        const Input<bool> its_reset(caller, "reset", reset);
        const StackedState<R> its_state(caller, layer, "state", state);
        LayerForward<R> result;
        {
            py::gil_scoped_release without_gil;
            result = bptt::predict<R>(layer, its_x, its_state, {its_lengths, its_reset});
        }
        return py::make_tuple(to_numpy(result.y), to_python(result.state));
    }

    template <class R>
    py::tuple step_of(const Recurrent<R>& layer, py::handle x_t, py::handle state) const {
        const std::string caller = name_ + ".step";
        const Input<R> x(caller, "x_t", x_t);
        const StackedState<R> its_state(caller, layer, "state", state);
        LayerForward<R> result;
        {
            py::gil_scoped_release without_gil;
            result = bptt::step<R>(layer, x, its_state);
        }
        return py::make_tuple(to_numpy(result.y), to_python(result.state));
    }

    template <class R>
    HeldLayerTape<R>& own(const std::string& caller, PyLayerTape& tape) const {
        auto* const held = std::get_if<HeldLayerTape<R>>(&tape.held);
        if (held == nullptr) throw py::value_error(caller + ": tape was made by another layer");
        return *held;
    }

    template <class R>
    void check_of(const Recurrent<R>& layer, PyLayerTape& tape, py::handle dstate) const {
        const std::string caller = name_ + ".backward";
        const HeldLayerTape<R>& held = own<R>(caller, tape);
        const StackedState<R> its_dstate(caller, layer, "dstate", dstate);
        bptt::check_backward<R>(layer, held.tape, {}, its_dstate);
    }

    // dx, dstate and the parameters' gradients by name.
    template <class R>
    py::tuple backward_of(const Recurrent<R>& layer, PyLayerTape& tape, py::handle dy, py::handle dstate,
                          bool retain) const {
        const std::string caller = name_ + ".backward";
        HeldLayerTape<R>& held = own<R>(caller, tape);
        const Input<R> its_dy(caller, "dy", dy);
        const StackedState<R> its_dstate(caller, layer, "dstate", dstate);
        const Reader reader(caller, tape.busy);
        LayerGradients<R> gradients;
        {
            py::gil_scoped_release without_gil;
            gradients = bptt::backward<R>(layer, held.tape, its_dy, its_dstate, retain);
        }
        py::dict found;
        for (std::size_t i = 0; i < gradients.parameters.size(); ++i)
            found[parameters_[i]] = to_numpy(gradients.parameters[i].value);
        return py::make_tuple(to_numpy(gradients.x), to_python(gradients.state), found);
    }

    std::string name_;
    py::object held_;      // what the layer's arrays are the memory of
    py::list parameters_;  // their names
    std::variant<Recurrent<float>, Recurrent<double>> layer_;
};

}  // namespace

void register_layers(py::module_& module) {
    py::class_<PyLayerTape, std::shared_ptr<PyLayerTape>>(module, "LayerTape")
        .def_property_readonly("tapes", &PyLayerTape::tapes)
        .def_property_readonly("masks", &PyLayerTape::masks);
    py::class_<PyRecurrent>(module, "Recurrent")
        .def(py::init<std::string, const std::string&, Index, bool, double, const py::list&, py::object,
                      py::object>(),
             py::arg("name"), py::arg("cell"), py::arg("num_layers"), py::arg("bidirectional"),
             py::arg("dropout"), py::arg("rows"), py::arg("initial_h").none(true),
             py::arg("initial_c").none(true))
        .def("forward", &PyRecurrent::forward, py::arg("x"), py::arg("state").none(true),
             py::arg("lengths").none(true), py::arg("reset").none(true), py::arg("masks"))
        .def("predict", &PyRecurrent::predict, py::arg("x"), py::arg("state").none(true),
             py::arg("lengths").none(true), py::arg("reset").none(true))
        .def("prepare", &PyRecurrent::prepare)
        .def("step", &PyRecurrent::step, py::arg("x_t"), py::arg("state").none(true) = py::none())
        .def("backward", &PyRecurrent::backward, py::arg("tape"), py::arg("dy").none(true),
             py::arg("dstate").none(true), py::arg("retain"))
        .def("check_backward", &PyRecurrent::check_backward, py::arg("tape"), py::arg("dstate").none(true));
}

}  // namespace bptt::bindings
