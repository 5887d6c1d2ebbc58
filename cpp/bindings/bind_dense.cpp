#include "bind.hpp"
#include "bptt/dense.hpp"

namespace bptt::bindings {
namespace {

template <class R>
py::object linear_forward_of(py::handle x, py::handle weight, py::handle bias) {
    const std::string caller = "linear_forward";
    const Input<R> x_in(caller, "x", x), weight_in(caller, "weight", weight), bias_in(caller, "bias", bias);
    Array<R> y;
    {
        py::gil_scoped_release without_gil;
        y = linear_forward<R>(x_in, weight_in, bias_in);
    }
    return to_numpy(y);
}

template <class R>
py::tuple linear_backward_of(py::handle x, py::handle weight, py::handle dy, bool bias) {
    const std::string caller = "linear_backward";
    const Input<R> x_in(caller, "x", x), weight_in(caller, "weight", weight), dy_in(caller, "dy", dy);
    LinearGradients<R> grads;
    {
        py::gil_scoped_release without_gil;
        grads = linear_backward<R>(x_in, weight_in, dy_in, bias);
    }
    return py::make_tuple(to_numpy(grads.x), to_numpy(grads.weight), to_numpy(grads.bias));
}

template <class R>
py::object embedding_forward_of(py::handle index, py::handle weight) {
    const std::string caller = "embedding_forward";
    const IndexInput index_in(caller, "index", index);
    const Input<R> weight_in(caller, "weight", weight);
    Array<R> y;
    {
        py::gil_scoped_release without_gil;
        y = embedding_forward<R>(index_in, weight_in);
    }
    return to_numpy(y);
}

template <class R>
py::object embedding_backward_of(py::handle index, py::handle dy, Index num_embeddings) {
    const std::string caller = "embedding_backward";
    const IndexInput index_in(caller, "index", index);
    const Input<R> dy_in(caller, "dy", dy);
    Array<R> dweight;
    {
        py::gil_scoped_release without_gil;
        dweight = embedding_backward<R>(index_in, dy_in, num_embeddings);
    }
    return to_numpy(dweight);
}

}  // namespace

void register_dense(py::module_& module) {
    module.def(
        "linear_forward",
        [](py::object x, py::object weight, py::object bias) {
            return is_single("linear_forward", "x", x) ? linear_forward_of<float>(x, weight, bias)
                                                       : linear_forward_of<double>(x, weight, bias);
        },
        py::arg("x"), py::arg("weight"), py::arg("bias").none(true));
    module.def(
        "linear_backward",
        [](py::object x, py::object weight, py::object dy, bool bias) {
            return is_single("linear_backward", "x", x) ? linear_backward_of<float>(x, weight, dy, bias)
                                                        : linear_backward_of<double>(x, weight, dy, bias);
        },
        py::arg("x"), py::arg("weight"), py::arg("dy"), py::arg("bias"));
    module.def(
        "embedding_forward",
        [](py::object index, py::object weight) {
            return is_single("embedding_forward", "weight", weight)
                       ? embedding_forward_of<float>(index, weight)
                       : embedding_forward_of<double>(index, weight);
        },
        py::arg("index"), py::arg("weight"));
    module.def(
        "embedding_backward",
        [](py::object index, py::object dy, Index num_embeddings) {
            return is_single("embedding_backward", "dy", dy)
                       ? embedding_backward_of<float>(index, dy, num_embeddings)
                       : embedding_backward_of<double>(index, dy, num_embeddings);
        },
        py::arg("index"), py::arg("dy"), py::arg("num_embeddings"));
}

}  // namespace bptt::bindings
