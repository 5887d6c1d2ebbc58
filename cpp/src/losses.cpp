#include "bptt/losses.hpp"

#include <algorithm>
#include <memory>
#include <numeric>

#include "bptt/runtime.hpp"
#include "dispatch.hpp"
#include "validate.hpp"

namespace bptt {
namespace {

// The valid elements of a loss: all, or those that the mask marks, each entry `width` of them.
struct Valid {
    View<const bool> mask;
    Index width = 1;
    Index elements = 0;  // valid or not

    bool at(Index entry) const { return !mask || mask.data[entry]; }
    Index entries() const { return elements / width; }
    Index count() const {
        return mask ? std::count(mask.data, mask.data + entries(), true) * width : elements;
    }
    // How many of N sequences have a valid element; entries are (T, N, ...).
    Index sequences(Index T, Index N) const {
        const Index inner = entries() / (T * N);
        Index sum = 0;
        for (Index n = 0; n < N; ++n) {
            bool found = false;
            for (Index t = 0; t < T && !found; ++t)
                for (Index i = 0; i < inner && !found; ++i) found = at((t * N + n) * inner + i);
            sum += found;
        }
        return sum;
    }
};

// What the sum over valid elements is multiplied with. total: what "mean" divides by. None valid: zero.
template <class Total>
double factor_of(const Shape& prediction, const Valid& valid, Reduction reduction, Total total) {
    if (reduction == Reduction::sum) return 1;
    double count;
    if (reduction == Reduction::mean)
        count = static_cast<double>(total());
    else
        count = static_cast<double>(prediction.rank > 2 ? valid.sequences(prediction[0], prediction[1])
                                                        : valid.sequences(1, prediction[0]));
    return count > 0 ? 1 / count : 0;
}

// parameter: the kernel's own; parts: how many predictions stand for one target.
template <class R>
Loss<R> element_loss(const char* name, double (*kernel)(const kernels::ElementLossArgs<R>&),
                     const View<const R>& prediction, const View<const R>& target,
                     const View<const bool>& mask, Reduction reduction, double parameter = 0,
                     Index parts = 1) {
    const validate::Caller caller(name);
    Valid valid;
    valid.width = validate::element_loss(caller, prediction, target, mask, parts);
    valid.elements = target.elements();
    valid.mask = mask;
    validate::sequences(caller, prediction.shape, reduction);
    Loss<R> loss;
    loss.gradient = Array<R>(prediction.shape);
    if (valid.elements == 0) return loss;
    const double factor = factor_of(prediction.shape, valid, reduction, [&] { return valid.count(); });
    const Index row = target.shape.rank > 0 ? target.shape[target.shape.rank - 1] : 1;
    loss.value =
        factor * kernel({valid.elements, prediction.data, target.data, mask.data, valid.width,
                         loss.gradient.data(), factor, static_cast<int>(get_num_threads()), parameter, row});
    return loss;
}

}  // namespace

template <class R>
Loss<R> mse(View<const R> prediction, View<const R> target, View<const bool> mask, Reduction reduction) {
    return element_loss("mse", detail::table<kernels::LossTable<R>>().mse, prediction, target, mask,
                        reduction);
}

template <class R>
Loss<R> huber(View<const R> prediction, View<const R> target, View<const bool> mask, Reduction reduction,
              double delta) {
    return element_loss("huber", detail::table<kernels::LossTable<R>>().huber, prediction, target, mask,
                        reduction, delta);
}

template <class R>
Loss<R> gaussian_nll(View<const R> prediction, View<const R> target, View<const bool> mask,
                     Reduction reduction, bool full) {
    constexpr double half_log_two_pi = 0.918938533204672741780329736406;
    return element_loss("gaussian_nll", detail::table<kernels::LossTable<R>>().gaussian_nll, prediction,
                        target, mask, reduction, full ? half_log_two_pi : 0, 2);
}

template <class R>
Loss<R> binary_cross_entropy_with_logits(View<const R> prediction, View<const R> target,
                                         View<const bool> mask, Reduction reduction) {
    constexpr const char* name = "binary_cross_entropy_with_logits";
    const validate::Caller caller(name);
    const Index width = validate::element_loss(caller, prediction, target, mask);
    validate::probabilities(caller, target, mask, width);
    return element_loss(name, detail::table<kernels::LossTable<R>>().binary_cross_entropy_with_logits,
                        prediction, target, mask, reduction);
}

template <class R>
Loss<R> softmax_cross_entropy(View<const R> prediction, View<const std::int64_t> target,
                              View<const bool> mask, Reduction reduction, const SoftmaxOptions<R>& options) {
    const validate::Caller caller("softmax_cross_entropy");
    validate::softmax_shapes(caller, prediction, target, mask, options.class_weights);
    validate::sequences(caller, prediction.shape, reduction);
    const Index M = target.elements(), V = prediction.shape[prediction.shape.rank - 1];

    std::unique_ptr<bool[]> not_ignored;
    Valid valid;
    valid.mask = mask;
    valid.elements = M;
    if (options.ignore_index) {
        not_ignored.reset(new bool[static_cast<std::size_t>(M)]);
        for (Index m = 0; m < M; ++m)
            not_ignored[static_cast<std::size_t>(m)] = valid.at(m) && target.data[m] != *options.ignore_index;
        valid.mask = View<const bool>(not_ignored.get(), target.shape);
    }
    validate::indices(caller, target, "target", V, valid.mask);

    Loss<R> loss;
    loss.gradient = Array<R>(prediction.shape);
    if (M == 0) return loss;
    const R* const weight = options.class_weights.data;
    const double factor = factor_of(prediction.shape, valid, reduction, [&] {
        if (weight == nullptr) return static_cast<double>(valid.count());
        double sum = 0;
        for (Index m = 0; m < M; ++m)
            if (valid.at(m)) sum += static_cast<double>(weight[target.data[m]]);
        return sum;
    });
    const double weight_sum =
        weight != nullptr ? std::accumulate(weight, weight + V, 0.0) : static_cast<double>(V);
    loss.value =
        factor * detail::table<kernels::LossTable<R>>().softmax_cross_entropy(
                     {M, V, prediction.data, target.data, valid.mask.data, loss.gradient.data(), factor,
                      static_cast<int>(get_num_threads()), weight, weight_sum, options.label_smoothing});
    return loss;
}

#define BPTT_INSTANTIATE(R)                                                                           \
    template Loss<R> mse(View<const R>, View<const R>, View<const bool>, Reduction);                  \
    template Loss<R> huber(View<const R>, View<const R>, View<const bool>, Reduction, double);        \
    template Loss<R> gaussian_nll(View<const R>, View<const R>, View<const bool>, Reduction, bool);   \
    template Loss<R> binary_cross_entropy_with_logits(View<const R>, View<const R>, View<const bool>, \
                                                      Reduction);                                     \
    template Loss<R> softmax_cross_entropy(View<const R>, View<const std::int64_t>, View<const bool>, \
                                           Reduction, const SoftmaxOptions<R>&);
BPTT_INSTANTIATE(float)
BPTT_INSTANTIATE(double)
#undef BPTT_INSTANTIATE

}  // namespace bptt
