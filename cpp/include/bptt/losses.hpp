// Losses: the value and its gradient with respect to the prediction in one pass.
//
// `mask` marks the valid elements by true; it has the target's shape or, for element-wise losses, the
// target's shape without its last dimension (then it speaks of whole rows). Reduction::sum adds up
// the losses of valid elements, Reduction::mean divides that by their number, Reduction::mean_sequences by
// the number of sequences that have one: sequences are dimension 1 of a prediction (T, N, ..., V), dimension
// 0 of a prediction (N, V), and a prediction of lower rank has none, which is an error. Where nothing is
// valid, value and gradient are zero.
#pragma once

#include <optional>

#include "bptt/types.hpp"

namespace bptt {

template <class R>
struct Loss {
    double value = 0;
    Array<R> gradient;  // the prediction's shape
};

// (prediction - target)^2. Both have the same shape.
template <class R>
BPTT_API Loss<R> mse(View<const R> prediction, View<const R> target, View<const bool> mask = {},
                     Reduction reduction = Reduction::mean);

// d^2 / 2 where |d| <= delta, else delta * (|d| - delta/2), with d = prediction - target of the same shape
// and delta > 0 (Huber 1964).
template <class R>
BPTT_API Loss<R> huber(View<const R> prediction, View<const R> target, View<const bool> mask = {},
                       Reduction reduction = Reduction::mean, double delta = 1);

// The negative logarithm of a normal distribution's density at the target (..., F). The prediction (..., 2F)
// is means and then logarithms of variances. Without `full`, log(2 pi) / 2 an element is left out.
template <class R>
BPTT_API Loss<R> gaussian_nll(View<const R> prediction, View<const R> target, View<const bool> mask = {},
                              Reduction reduction = Reduction::mean, bool full = false);

// What softmax_cross_entropy may be told beside its mask.
template <class R>
struct SoftmaxOptions {
    View<const R> class_weights;  // (V,), >= 0: each element counts as often as its target's weight says
    double label_smoothing = 0;   // in [0, 1]: so much of the target is spread over all classes evenly
    std::optional<std::int64_t> ignore_index;  // elements with this target are not valid
};

// prediction (..., V) holds logits, target (...) indices in 0..V-1 (not read where masked out). With class
// weights, Reduction::mean divides by the sum of the valid targets' weights.
template <class R>
BPTT_API Loss<R> softmax_cross_entropy(View<const R> prediction, View<const std::int64_t> target,
                                       View<const bool> mask = {}, Reduction reduction = Reduction::mean,
                                       const SoftmaxOptions<R>& options = {});

// prediction holds logits, target probabilities in [0, 1] of the same shape.
template <class R>
BPTT_API Loss<R> binary_cross_entropy_with_logits(View<const R> prediction, View<const R> target,
                                                  View<const bool> mask = {},
                                                  Reduction reduction = Reduction::mean);

}  // namespace bptt
