// Optimizer steps over lists of arrays, in place, one fused pass each. List entries correspond:
// parameters[i], gradients[i] and the optimizer's own arrays have the same shape, and nothing is
// written before everything is checked. `spared` says of each parameter whether weight decay leaves it
// alone, as biases; empty: of none. Throws std::invalid_argument.
#pragma once

#include <vector>

#include "bptt/types.hpp"

namespace bptt {

template <class R>
using Arrays = std::vector<View<R>>;

// v = momentum*v + g; p -= lr*v, or with nesterov p -= lr*(g + momentum*v); g includes weight_decay*p.
// `velocity` may be empty where momentum is 0.
template <class R>
BPTT_API void sgd(const Arrays<R>& parameters, const Arrays<const R>& gradients, const Arrays<R>& velocity,
                  double lr, double momentum, bool nesterov, double weight_decay,
                  const std::vector<bool>& spared = {});

// s = alpha*s + (1-alpha)*g^2; p -= lr*g / (sqrt(s) + eps).  Tieleman & Hinton 2012.
template <class R>
BPTT_API void rmsprop(const Arrays<R>& parameters, const Arrays<const R>& gradients,
                      const Arrays<R>& square_average, double lr, double alpha, double eps,
                      double weight_decay, const std::vector<bool>& spared = {});

// s += g^2; p -= lr*g / (sqrt(s) + eps).  Duchi et al. 2011.
template <class R>
BPTT_API void adagrad(const Arrays<R>& parameters, const Arrays<const R>& gradients,
                      const Arrays<R>& square_sum, double lr, double eps, double weight_decay,
                      const std::vector<bool>& spared = {});

// Adam (Kingma & Ba 2015) at step 1, 2, ...; with `decoupled` the weight decay is AdamW's
// (Loshchilov & Hutter 2019): p -= lr*weight_decay*p beside the step instead of within the gradient.
template <class R>
BPTT_API void adam(const Arrays<R>& parameters, const Arrays<const R>& gradients,
                   const Arrays<R>& first_moment, const Arrays<R>& second_moment, Index step, double lr,
                   double beta1, double beta2, double eps, double weight_decay, bool decoupled,
                   const std::vector<bool>& spared = {});

// The square root of the sum of all squares, summed in double in a fixed order.
template <class R>
BPTT_API double global_norm(const Arrays<const R>& arrays);

template <class R>
BPTT_API void scale(const Arrays<R>& arrays, double factor);

// Every element into [-limit, limit]; NaN stays NaN.
template <class R>
BPTT_API void clip_by_value(const Arrays<R>& arrays, double limit);

}  // namespace bptt
