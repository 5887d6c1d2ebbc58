// What stands around a recurrent layer: the linear map and the embedding.
#pragma once

#include "bptt/types.hpp"

namespace bptt {

template <class R>
struct LinearGradients {
    Array<R> x, weight, bias;
};

// y = x @ weight^T + bias; x (..., D), weight (V, D), bias (V,) or not given, y (..., V).
template <class R>
BPTT_API Array<R> linear_forward(View<const R> x, View<const R> weight, View<const R> bias = {});

// dy (..., V). The bias's gradient is made where `bias` is true.
template <class R>
BPTT_API LinearGradients<R> linear_backward(View<const R> x, View<const R> weight, View<const R> dy,
                                            bool bias = true);

// y[..., :] = weight[index[...], :]; weight (V, E). An index outside 0..V-1 is an error.
template <class R>
BPTT_API Array<R> embedding_forward(View<const std::int64_t> index, View<const R> weight);

// The gradient (num_embeddings, E) of the weight from dy (..., E).
template <class R>
BPTT_API Array<R> embedding_backward(View<const std::int64_t> index, View<const R> dy, Index num_embeddings);

}  // namespace bptt
