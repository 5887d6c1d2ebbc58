#include "bind.hpp"
#include "bptt/activations.hpp"

namespace bptt::bindings {
namespace {

template <class R>
py::object activation_forward_of(Nonlinearity nonlinearity, py::handle x) {
    const Input<R> x_in("activation_forward", "x", x);
    Array<R> y;
    {
        py::gil_scoped_release without_gil;
        y = activation_forward<R>(nonlinearity, x_in);
    }
    return to_numpy(y);
}

template <class R>
py::object activation_backward_of(Nonlinearity nonlinearity, py::handle y, py::handle dy) {
    const std::string caller = "activation_backward";
    const Input<R> y_in(caller, "y", y), dy_in(caller, "dy", dy);
    Array<R> dx;
    {
        py::gil_scoped_release without_gil;
        dx = activation_backward<R>(nonlinearity, y_in, dy_in);
    }
    return to_numpy(dx);
}

}  // namespace

void register_activations(py::module_& module) {
    module.def(
        "activation_forward",
        [](const std::string& nonlinearity, py::object x) {
            const Nonlinearity its = nonlinearity_from_name(nonlinearity);
            return is_single("activation_forward", "x", x) ? activation_forward_of<float>(its, x)
                                                           : activation_forward_of<double>(its, x);
        },
        py::arg("nonlinearity"), py::arg("x"));
    module.def(
        "activation_backward",
        [](const std::string& nonlinearity, py::object y, py::object dy) {
            const Nonlinearity its = nonlinearity_from_name(nonlinearity);
            return is_single("activation_backward", "y", y) ? activation_backward_of<float>(its, y, dy)
                                                            : activation_backward_of<double>(its, y, dy);
        },
        py::arg("nonlinearity"), py::arg("y"), py::arg("dy"));
}

}  // namespace bptt::bindings
