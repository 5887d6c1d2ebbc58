#include "bind.hpp"
#include "tape.hpp"

namespace bptt::bindings {
namespace {

// "lstm" of "lstm", "rnn" of "rnn_relu": what the public functions are called after.
std::string family(const std::string& cell) { return cell.substr(0, cell.find('_')); }

template <class R>
py::tuple forward_of(Cell cell, const std::string& caller, py::handle x, py::handle weight_ih,
                     py::handle weight_hh, py::handle bias_ih, py::handle bias_hh, py::handle h, py::handle c,
                     py::handle lengths, py::handle reset, bool keep, bool reverse) {
    auto held = std::make_unique<HeldTape<R>>();
    const char* const h_name = cell_has_c(cell) ? "state[0]" : "state";
    held->x = Input<R>(caller, "x", x);
    held->weight_ih = Input<R>(caller, "weight_ih", weight_ih);
    held->weight_hh = Input<R>(caller, "weight_hh", weight_hh);
    held->bias_ih = Input<R>(caller, "bias_ih", bias_ih);
    held->bias_hh = Input<R>(caller, "bias_hh", bias_hh);
    held->lengths = IndexInput(caller, "lengths", lengths);
    held->reset = Input<bool>(caller, "reset", reset);
    const Input<R> h0(caller, h_name, h), c0(caller, "state[1]", c);

    Forward<R> result;
    {
        py::gil_scoped_release without_gil;
        result = forward<R>(cell, held->x, {held->weight_ih, held->weight_hh, held->bias_ih, held->bias_hh},
                            {h0, c0}, {held->lengths, held->reset, reverse}, keep);
    }
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
py::tuple backward_of(PyTape& owner, HeldTape<R>& held, const std::string& caller, py::handle dy,
                      py::handle dh, py::handle dc, bool mean, bool retain, Trace<R>* trace = nullptr) {
    const bool pair = cell_has_c(held.tape.cell);
    const Input<R> dy_in(caller, "dy", dy), dh_in(caller, pair ? "dstate[0]" : "dstate", dh),
        dc_in(caller, "dstate[1]", dc);
    if (owner.busy) throw py::value_error(caller + ": tape is in use by another thread's backward call");
    Gradients<R> grads;
    owner.busy = true;
    struct Done {
        bool& busy;
        ~Done() { busy = false; }
    } done{owner.busy};
    {
        py::gil_scoped_release without_gil;
        grads = backward<R>(held.tape, dy_in, {dh_in, dc_in}, mean ? Reduction::mean : Reduction::sum, retain,
                            trace);
    }
    return py::make_tuple(to_numpy(grads.x), to_numpy(grads.h), to_numpy(grads.c), to_numpy(grads.weight_ih),
                          to_numpy(grads.weight_hh), to_numpy(grads.bias_ih), to_numpy(grads.bias_hh));
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
                               [](const PyTape& t) { return t.visit([](auto& h) { return h.x.dtype(); }); })
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
            return is_single(caller, "x", x)
                       ? forward_of<float>(which, caller, x, weight_ih, weight_hh, bias_ih, bias_hh, h, c,
                                           lengths, reset, keep, reverse)
                       : forward_of<double>(which, caller, x, weight_ih, weight_hh, bias_ih, bias_hh, h, c,
                                            lengths, reset, keep, reverse);
        },
        py::arg("cell"), py::arg("x"), py::arg("weight_ih"), py::arg("weight_hh"),
        py::arg("bias_ih").none(true), py::arg("bias_hh").none(true), py::arg("h").none(true),
        py::arg("c").none(true), py::arg("lengths").none(true), py::arg("reset").none(true), py::arg("keep"),
        py::arg("reverse") = false);

    module.def(
        "backward_traced",
        [](PyTape& tape, py::object dy, py::object dh, py::object dc, bool weight_hh, bool delta) {
            return tape.visit([&](auto& held) -> py::tuple {
                using R = typename std::decay_t<decltype(held)>::Scalar;
                Trace<R> trace;
                trace.want_weight_hh = weight_hh;
                trace.want_delta = delta;
                const std::string caller = family(cell_name(held.tape.cell)) + "_backward";
                py::tuple grads = backward_of(tape, held, caller, dy, dh, dc, false, true, &trace);
                return py::make_tuple(grads, to_numpy(trace.recurrent), to_numpy(trace.c),
                                      to_numpy(trace.norms), to_numpy(trace.weight_hh),
                                      to_numpy(trace.delta));
            });
        },
        py::arg("tape"), py::arg("dy").none(true), py::arg("dh").none(true), py::arg("dc").none(true),
        py::arg("weight_hh"), py::arg("delta"));

    module.def(
        "backward",
        [](py::object tape, const std::string& cell, py::object dy, py::object dh, py::object dc, bool mean,
           bool retain) {
            const std::string caller = cell + "_backward";
            if (!py::isinstance<PyTape>(tape))
                type_error(caller, "tape is a " + type_name(tape) + ", expected a Tape");
            PyTape& its = tape.cast<PyTape&>();
            return its.visit([&](auto& held) {
                if (family(cell_name(held.tape.cell)) != cell)
                    throw py::value_error(caller + ": tape is of the cell " + cell_name(held.tape.cell) +
                                          ", expected one of " + cell);
                return backward_of(its, held, caller, dy, dh, dc, mean, retain);
            });
        },
        py::arg("tape"), py::arg("cell"), py::arg("dy").none(true), py::arg("dh").none(true),
        py::arg("dc").none(true), py::arg("mean"), py::arg("retain"));
}

}  // namespace bptt::bindings
