#include "bind.hpp"
#include "bptt/losses.hpp"

namespace bptt::bindings {
namespace {

Reduction reduction_of(const std::string& caller, py::handle reduction) {
    if (!py::isinstance<py::str>(reduction))
        type_error(caller, "reduction is a " + type_name(reduction) + ", expected a str");
    const std::string name = py::cast<std::string>(reduction);
    if (name == "mean") return Reduction::mean;
    if (name == "sum") return Reduction::sum;
    throw py::value_error(caller + ": reduction is \"" + name + "\", expected \"mean\" or \"sum\"");
}

// Target: how the target comes in. The loss is called without the GIL.
template <class R, class Target, class LossOf>
py::tuple loss_of(const std::string& caller, LossOf loss_of, py::handle prediction, py::handle target,
                  py::handle mask, py::handle reduction) {
    const Input<R> prediction_in(caller, "prediction", prediction);
    const Target target_in(caller, "target", target);
    const Input<bool> mask_in(caller, "mask", mask);
    const Reduction reduce = reduction_of(caller, reduction);
    Loss<R> loss;
    {
        py::gil_scoped_release without_gil;
        loss = loss_of(prediction_in, target_in, mask_in, reduce);
    }
    return py::make_tuple(loss.value, to_numpy(loss.gradient));
}

template <class Single, class Double, class OfSingle, class OfDouble>
void define(py::module_& module, const char* name, OfSingle of_single, OfDouble of_double) {
    module.def(
        name,
        [=](py::object prediction, py::object target, py::object mask, py::object reduction) {
            return is_single(name, "prediction", prediction)
                       ? loss_of<float, Single>(name, of_single, prediction, target, mask, reduction)
                       : loss_of<double, Double>(name, of_double, prediction, target, mask, reduction);
        },
        py::arg("prediction"), py::arg("target"), py::arg("mask").none(true), py::arg("reduction"));
}

}  // namespace

void register_losses(py::module_& module) {
    define<IndexInput, IndexInput>(module, "softmax_cross_entropy", softmax_cross_entropy<float>,
                                   softmax_cross_entropy<double>);
    define<Input<float>, Input<double>>(module, "mse", mse<float>, mse<double>);
    define<Input<float>, Input<double>>(module, "binary_cross_entropy_with_logits",
                                        binary_cross_entropy_with_logits<float>,
                                        binary_cross_entropy_with_logits<double>);
}

}  // namespace bptt::bindings
