#include <array>

#include "bind.hpp"
#include "reduction.hpp"
#include "tape.hpp"

namespace bptt::bindings {
namespace {

// "lstm" of "lstm", "rnn" of "rnn_relu": what the public functions are called after.
std::string family(const std::string& cell) { return cell.substr(0, cell.find('_')); }

using Weights4 = std::array<py::object, 4>;  // weight_ih, weight_hh, bias_ih, bias_hh

template <class R>
std::unique_ptr<HeldTape<R>> hold(const std::string& caller, py::handle x, const Weights4& weights,
                                  py::handle lengths, py::handle reset) {
    auto held = std::make_unique<HeldTape<R>>();
    held->x = Input<R>(caller, "x", x);
    held->weight_ih = Input<R>(caller, "weight_ih", weights[0]);
    held->weight_hh = Input<R>(caller, "weight_hh", weights[1]);
    held->bias_ih = Input<R>(caller, "bias_ih", weights[2]);
    held->bias_hh = Input<R>(caller, "bias_hh", weights[3]);
    held->lengths = IndexInput(caller, "lengths", lengths);
    held->reset = Input<bool>(caller, "reset", reset);
    return held;
}

template <class R>
Weights<R> weights_of(const HeldTape<R>& held) {
    return {held.weight_ih, held.weight_hh, held.bias_ih, held.bias_hh};
}

// A state, or the gradient with respect to one, kept alive for a call.
template <class R>
struct HeldState {
    Input<R> h, c;
    HeldState(const std::string& caller, const std::string& name, bool pair, py::handle its_h,
              py::handle its_c)
        : h(caller, (pair ? name + "[0]" : name).c_str(), its_h), c(caller, (name + "[1]").c_str(), its_c) {}
    operator State<R>() const { return {h, c}; }
};

template <class R>
py::tuple forward_tuple(Forward<R>& result, std::unique_ptr<HeldTape<R>> held, bool keep) {
    py::object tape = py::none();
    if (keep) {
        held->tape = std::move(result.tape);
        tape = py::cast(std::make_unique<PyTape>(std::move(held)));
    }
    // With a tape y is the tape's own memory: writing to it would change the gradient.
    py::object y = to_numpy(result.y);
    return py::make_tuple(keep ? read_only(y) : y, to_numpy(result.h), to_numpy(result.c), tape);
}

template <class R>
py::tuple gradients_tuple(const Gradients<R>& grads) {
    return py::make_tuple(to_numpy(grads.x), to_numpy(grads.h), to_numpy(grads.c), to_numpy(grads.weight_ih),
                          to_numpy(grads.weight_hh), to_numpy(grads.bias_ih), to_numpy(grads.bias_hh));
}

template <class R>
py::tuple forward_of(Cell cell, const std::string& caller, py::handle x, const Weights4& weights,
                     py::handle h, py::handle c, py::handle lengths, py::handle reset, bool keep,
                     bool reverse) {
    auto held = hold<R>(caller, x, weights, lengths, reset);
    const HeldState<R> state(caller, "state", cell_has_c(cell), h, c);
    Forward<R> result;
    {
        py::gil_scoped_release without_gil;
        result =
            forward<R>(cell, held->x, weights_of(*held), state, {held->lengths, held->reset, reverse}, keep);
    }
    return forward_tuple(result, std::move(held), keep);
}

template <class R>
py::tuple backward_of(PyTape& owner, HeldTape<R>& held, const std::string& caller, py::handle dy,
                      py::handle dh, py::handle dc, Reduction reduction, bool retain,
                      Trace<R>* trace = nullptr) {
    const Input<R> dy_in(caller, "dy", dy);
    const HeldState<R> dstate(caller, "dstate", cell_has_c(held.tape.cell), dh, dc);
    const Reader reader(caller, owner.busy);
    Gradients<R> grads;
    {
        py::gil_scoped_release without_gil;
        grads = backward<R>(held.tape, dy_in, dstate, reduction, retain, trace);
    }
    return gradients_tuple(grads);
}

PyTape& tape_of(const std::string& caller, const std::string& cell, const py::object& tape) {
    if (!py::isinstance<PyTape>(tape))
        type_error(caller, "tape is a " + type_name(tape) + ", expected a Tape");
    PyTape& its = tape.cast<PyTape&>();
    its.visit([&](auto& held) {
        if (family(cell_name(held.tape.cell)) != cell)
            throw py::value_error(caller + ": tape is of the cell " + cell_name(held.tape.cell) +
                                  ", expected one of " + cell);
    });
    return its;
}

}  // namespace

void register_recurrent(py::module_& module) {
    py::class_<PyTape>(module, "Tape",
                       "What a forward call keeps for its backward call: a value that the caller holds.\n\n"
                       "It refers to x and the weights, which must stay as they were until then.")
        .def_property_readonly(
            "cell", [](const PyTape& t) { return t.visit([](auto& h) { return cell_name(h.tape.cell); }); })
        .def_property_readonly("shape",
                               [](const PyTape& t) {
                                   return t.visit([](auto& h) {
                                       const Dims& d = h.tape.dims;
                                       return py::make_tuple(d.T, d.N, d.D, d.H);
                                   });
                               })
        .def_property_readonly("dtype",
                               [](const PyTape& t) {
                                   return t.visit([](auto& h) {
                                       return py::dtype::of<typename std::decay_t<decltype(h)>::Scalar>();
                                   });
                               })
        .def_property_readonly(
            "consumed", [](const PyTape& t) { return t.visit([](auto& h) { return h.tape.consumed; }); })
        .def_property_readonly(
            "nbytes", [](const PyTape& t) { return t.visit([](auto& h) { return h.tape.bytes(); }); })
        .def_property_readonly(
            "h",
            [](const PyTape& t) { return t.visit([](auto& h) { return read_only(to_numpy(h.tape.h)); }); },
            "(T+1, N, H): the initial state (in reverse the last slot) and the hidden states of all steps, "
            "read-only.");

    module.def(
        "forward",
        [](const std::string& cell, py::object x, py::object weight_ih, py::object weight_hh,
           py::object bias_ih, py::object bias_hh, py::object h, py::object c, py::object lengths,
           py::object reset, bool keep, bool reverse) {
            const Cell which = cell_from_name(cell);
            const std::string caller = family(cell) + "_forward";
            const Weights4 weights{weight_ih, weight_hh, bias_ih, bias_hh};
            return is_single(caller, "x", x)
                       ? forward_of<float>(which, caller, x, weights, h, c, lengths, reset, keep, reverse)
                       : forward_of<double>(which, caller, x, weights, h, c, lengths, reset, keep, reverse);
        },
        py::arg("cell"), py::arg("x"), py::arg("weight_ih"), py::arg("weight_hh"),
        py::arg("bias_ih").none(true), py::arg("bias_hh").none(true), py::arg("h").none(true),
        py::arg("c").none(true), py::arg("lengths").none(true), py::arg("reset").none(true), py::arg("keep"),
        py::arg("reverse") = false);

    module.def(
        "backward_traced",
        [](PyTape& tape, py::object dy, py::object dh, py::object dc, bool full) {
            return tape.visit([&](auto& held) -> py::tuple {
                using R = typename std::decay_t<decltype(held)>::Scalar;
                Trace<R> trace;
                trace.full = full;
                const std::string caller = family(cell_name(held.tape.cell)) + "_backward";
                py::tuple grads = backward_of(tape, held, caller, dy, dh, dc, Reduction::sum, true, &trace);
                return py::make_tuple(grads, to_numpy(trace.recurrent), to_numpy(trace.c),
                                      to_numpy(trace.norms),
                                      py::make_tuple(to_numpy(trace.weight_ih), to_numpy(trace.weight_hh),
                                                     to_numpy(trace.bias_ih), to_numpy(trace.bias_hh)),
                                      to_numpy(trace.delta));
            });
        },
        py::arg("tape"), py::arg("dy").none(true), py::arg("dh").none(true), py::arg("dc").none(true),
        py::arg("full"));

    module.def(
        "backward",
        [](py::object tape, const std::string& cell, py::object dy, py::object dh, py::object dc,
           py::object reduction, bool retain) {
            const std::string caller = cell + "_backward";
            const Reduction how = reduction_of(caller, reduction);
            PyTape& its = tape_of(caller, cell, tape);
            return its.visit(
                [&](auto& held) { return backward_of(its, held, caller, dy, dh, dc, how, retain); });
        },
        py::arg("tape"), py::arg("cell"), py::arg("dy").none(true), py::arg("dh").none(true),
        py::arg("dc").none(true), py::arg("reduction"), py::arg("retain"));
}

}  // namespace bptt::bindings
