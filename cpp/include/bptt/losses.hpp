// Losses: the value and its gradient with respect to the prediction in one pass.
//
// `mask` marks the valid elements by true; it has the target's shape or, for element-wise losses, the
// prediction's shape without its last dimension (then it speaks of whole rows). Reduction::mean
// divides by the number of valid elements; where none is valid, value and gradient are zero.
#pragma once

#include "bptt/types.hpp"

namespace bptt {

template <class R>
struct Loss {
    double value = 0;
    Array<R> gradient;  // the prediction's shape
};

// Mean of (prediction - target)^2. Both have the same shape.
template <class R>
BPTT_API Loss<R> mse(View<const R> prediction, View<const R> target, View<const bool> mask = {},
                     Reduction reduction = Reduction::mean);

// prediction (..., V) holds logits, target (...) indices in 0..V-1 (not read where masked out).
template <class R>
BPTT_API Loss<R> softmax_cross_entropy(View<const R> prediction, View<const std::int64_t> target,
                                       View<const bool> mask = {}, Reduction reduction = Reduction::mean);

// prediction holds logits, target probabilities in [0, 1] of the same shape.
template <class R>
BPTT_API Loss<R> binary_cross_entropy_with_logits(View<const R> prediction, View<const R> target,
                                                  View<const bool> mask = {},
                                                  Reduction reduction = Reduction::mean);

}  // namespace bptt
