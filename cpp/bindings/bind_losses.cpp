#include "bind.hpp"
#include "bptt/losses.hpp"
#include "reduction.hpp"

namespace bptt::bindings {
namespace {

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
        loss = loss_of(prediction_in.view(), target_in.view(), mask_in.view(), reduce);
    }
    return py::make_tuple(loss.value, to_numpy(loss.gradient));
}

// Losses whose target is of the prediction's dtype. Option: the type of the one that the loss has of its own.
template <class... Option, class OfSingle, class OfDouble, class... Name>
void define(py::module_& module, const char* name, OfSingle of_single, OfDouble of_double,
            Name... option_name) {
    module.def(
        name,
        [=](py::object prediction, py::object target, py::object mask, py::object reduction,
            Option... option) {
            const auto with_option = [=](auto loss) {
                return [=](auto... arguments) { return loss(arguments..., option...); };
            };
            return is_single(name, "prediction", prediction)
                       ? loss_of<float, Input<float>>(name, with_option(of_single), prediction, target, mask,
                                                      reduction)
                       : loss_of<double, Input<double>>(name, with_option(of_double), prediction, target,
                                                        mask, reduction);
        },
        py::arg("prediction"), py::arg("target"), py::arg("mask").none(true), py::arg("reduction"),
        option_name...);
}

template <class R>
py::tuple cross_entropy(py::handle prediction, py::handle target, py::handle mask, py::handle reduction,
                        py::handle class_weights, double label_smoothing,
                        std::optional<std::int64_t> ignore_index) {
    constexpr const char* name = "softmax_cross_entropy";
    const Input<R> weights(name, "class_weights", class_weights);
    const SoftmaxOptions<R> options{weights, label_smoothing, ignore_index};
    const auto loss = [&](View<const R> logits, View<const std::int64_t> indices, View<const bool> valid,
                          Reduction how) {
        return softmax_cross_entropy<R>(logits, indices, valid, how, options);
    };
    return loss_of<R, IndexInput>(name, loss, prediction, target, mask, reduction);
}

}  // namespace

void register_losses(py::module_& module) {
    define(module, "mse", mse<float>, mse<double>);
    define<double>(module, "huber", huber<float>, huber<double>, py::arg("delta"));
    define<bool>(module, "gaussian_nll", gaussian_nll<float>, gaussian_nll<double>, py::arg("full"));
    define(module, "binary_cross_entropy_with_logits", binary_cross_entropy_with_logits<float>,
           binary_cross_entropy_with_logits<double>);
    module.def(
        "softmax_cross_entropy",
        [](py::object prediction, py::object target, py::object mask, py::object reduction,
           py::object class_weights, double label_smoothing, std::optional<std::int64_t> ignore_index) {
            return (is_single("softmax_cross_entropy", "prediction", prediction)
                        ? cross_entropy<float>
                        : cross_entropy<double>)(prediction, target, mask, reduction, class_weights,
                                                 label_smoothing, ignore_index);
        },
        py::arg("prediction"), py::arg("target"), py::arg("mask").none(true), py::arg("reduction"),
        py::arg("class_weights").none(true), py::arg("label_smoothing"), py::arg("ignore_index").none(true));
}

}  // namespace bptt::bindings
