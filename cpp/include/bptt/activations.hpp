// Activations by themselves, as they stand behind a linear map.
#pragma once

#include "bptt/types.hpp"

namespace bptt {

// y (..., V) of x (..., V), V >= 1: each number by itself, the softmax over the last dimension.
template <class R>
BPTT_API Array<R> activation_forward(Nonlinearity nonlinearity, View<const R> x);

// dL/dx from y, which forward gave, and dy = dL/dy; all (..., V).
template <class R>
BPTT_API Array<R> activation_backward(Nonlinearity nonlinearity, View<const R> y, View<const R> dy);

}  // namespace bptt
