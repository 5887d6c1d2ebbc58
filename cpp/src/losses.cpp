#include "bptt/losses.hpp"

#include <algorithm>

#include "bptt/runtime.hpp"
#include "dispatch.hpp"
#include "validate.hpp"

namespace bptt {
namespace {

// What the sum over valid elements is multiplied with. None valid: value and gradient are zero.
double factor_of(Index count, const View<const bool>& mask, Index mask_width, Reduction reduction) {
    if (reduction == Reduction::sum) return 1;
    if (mask) count = std::count(mask.data, mask.data + mask.elements(), true) * mask_width;
    return count > 0 ? 1 / static_cast<double>(count) : 0;
}

template <class R>
Loss<R> element_loss(const char* name, double (*kernel)(const kernels::ElementLossArgs<R>&),
                     const View<const R>& prediction, const View<const R>& target,
                     const View<const bool>& mask, Reduction reduction) {
    const Index mask_width = validate::element_loss(validate::Caller(name), prediction, target, mask);
    const Index count = prediction.elements();
    Loss<R> loss;
    loss.gradient = Array<R>(prediction.shape);
    if (count == 0) return loss;
    const double factor = factor_of(count, mask, mask_width, reduction);
    loss.value = factor * kernel({count, prediction.data, target.data, mask.data, mask_width,
                                  loss.gradient.data(), factor, static_cast<int>(get_num_threads())});
    return loss;
}

}  // namespace

template <class R>
Loss<R> mse(View<const R> prediction, View<const R> target, View<const bool> mask, Reduction reduction) {
    return element_loss("mse", detail::table_of<R>().losses.mse, prediction, target, mask, reduction);
}

template <class R>
Loss<R> binary_cross_entropy_with_logits(View<const R> prediction, View<const R> target,
                                         View<const bool> mask, Reduction reduction) {
    return element_loss("binary_cross_entropy_with_logits",
                        detail::table_of<R>().losses.binary_cross_entropy_with_logits, prediction, target,
                        mask, reduction);
}

template <class R>
Loss<R> softmax_cross_entropy(View<const R> prediction, View<const std::int64_t> target,
                              View<const bool> mask, Reduction reduction) {
    validate::softmax_loss(validate::Caller("softmax_cross_entropy"), prediction, target, mask);
    const Index M = target.elements(), V = prediction.shape[prediction.shape.rank - 1];
    Loss<R> loss;
    loss.gradient = Array<R>(prediction.shape);
    if (M == 0) return loss;
    const double factor = factor_of(M, mask, 1, reduction);
    loss.value = factor * detail::table_of<R>().losses.softmax_cross_entropy(
                              {M, V, prediction.data, target.data, mask.data, loss.gradient.data(), factor,
                               static_cast<int>(get_num_threads())});
    return loss;
}

template Loss<float> mse(View<const float>, View<const float>, View<const bool>, Reduction);
template Loss<double> mse(View<const double>, View<const double>, View<const bool>, Reduction);
template Loss<float> binary_cross_entropy_with_logits(View<const float>, View<const float>, View<const bool>,
                                                      Reduction);
template Loss<double> binary_cross_entropy_with_logits(View<const double>, View<const double>,
                                                       View<const bool>, Reduction);
template Loss<float> softmax_cross_entropy(View<const float>, View<const std::int64_t>, View<const bool>,
                                           Reduction);
template Loss<double> softmax_cross_entropy(View<const double>, View<const std::int64_t>, View<const bool>,
                                            Reduction);

}  // namespace bptt
