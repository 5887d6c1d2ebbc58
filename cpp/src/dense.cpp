#include "bptt/dense.hpp"

#include "bptt/runtime.hpp"
#include "dispatch.hpp"
#include "validate.hpp"

namespace bptt {
namespace {

// How many rows a view (..., last) has, its last size being at least one.
Index rows_of(const Shape& shape) { return shape.elements() / shape[shape.rank - 1]; }

int threads() { return static_cast<int>(get_num_threads()); }

}  // namespace

template <class R>
Array<R> linear_forward(View<const R> x, View<const R> weight, View<const R> bias) {
    const validate::Caller caller("linear_forward");
    validate::linear(caller, x, weight);
    const Index V = weight.shape[0], D = weight.shape[1];
    if (bias) caller.shape(bias, "bias", {V}, "(V,)");

    Array<R> y(validate::with_last(caller, "x", x.shape, x.shape.rank - 1, V));
    kernels::LinearArgs<R> args{};
    args.M = rows_of(x.shape);
    args.D = D;
    args.V = V;
    args.x = x.data;
    args.weight = weight.data;
    args.bias = bias.data;
    args.y = y.data();
    args.threads = threads();
    detail::table<kernels::DenseTable<R>>().linear_forward(args);
    return y;
}

template <class R>
LinearGradients<R> linear_backward(View<const R> x, View<const R> weight, View<const R> dy, bool bias) {
    const validate::Caller caller("linear_backward");
    validate::linear(caller, x, weight);
    const Index V = weight.shape[0], D = weight.shape[1];
    caller.present(dy, "dy");
    caller.shape(dy, "dy", validate::with_last(caller, "x", x.shape, x.shape.rank - 1, V), "(..., V)");

    LinearGradients<R> grads;
    grads.x = Array<R>(x.shape);
    grads.weight = Array<R>(weight.shape);
    if (bias) grads.bias = Array<R>({V});
    kernels::LinearArgs<R> args{};
    args.M = rows_of(x.shape);
    args.D = D;
    args.V = V;
    args.x = x.data;
    args.weight = weight.data;
    args.dy = dy.data;
    args.dx = grads.x.data();
    args.dweight = grads.weight.data();
    args.dbias = grads.bias.data();
    args.threads = threads();
    detail::table<kernels::DenseTable<R>>().linear_backward(args);
    return grads;
}

template <class R>
Array<R> embedding_forward(View<const std::int64_t> index, View<const R> weight) {
    const validate::Caller caller("embedding_forward");
    caller.rank(weight, "weight", 2, "(V, E)");
    const Index V = weight.shape[0], E = weight.shape[1];
    caller.at_least_one(V, "weight", "V");
    caller.at_least_one(E, "weight", "E");
    caller.present(index, "index");
    validate::indices(caller, index, "index", V);

    Array<R> y(validate::with_last(caller, "index", index.shape, index.shape.rank, E));
    kernels::EmbeddingArgs<R> args{};
    args.M = index.elements();
    args.V = V;
    args.E = E;
    args.index = index.data;
    args.weight = weight.data;
    args.y = y.data();
    args.threads = threads();
    detail::table<kernels::DenseTable<R>>().embedding_forward(args);
    return y;
}

template <class R>
Array<R> embedding_backward(View<const std::int64_t> index, View<const R> dy, Index num_embeddings) {
    const validate::Caller caller("embedding_backward");
    caller.at_least_one(num_embeddings, "num_embeddings", "V");
    caller.present(index, "index");
    caller.present(dy, "dy");
    if (dy.shape.rank < 1) caller.fail("dy has shape (), expected (..., E)");
    const Index E = dy.shape[dy.shape.rank - 1];
    caller.at_least_one(E, "dy", "E");
    caller.shape(dy, "dy", validate::with_last(caller, "index", index.shape, index.shape.rank, E),
                 "index's (...) and E");
    validate::indices(caller, index, "index", num_embeddings);

    Array<R> dweight({num_embeddings, E});
    kernels::EmbeddingArgs<R> args{};
    args.M = index.elements();
    args.V = num_embeddings;
    args.E = E;
    args.index = index.data;
    args.dy = dy.data;
    args.dweight = dweight.data();
    args.threads = threads();
    detail::table<kernels::DenseTable<R>>().embedding_backward(args);
    return dweight;
}

template Array<float> linear_forward(View<const float>, View<const float>, View<const float>);
template Array<double> linear_forward(View<const double>, View<const double>, View<const double>);
template LinearGradients<float> linear_backward(View<const float>, View<const float>, View<const float>,
                                                bool);
template LinearGradients<double> linear_backward(View<const double>, View<const double>, View<const double>,
                                                 bool);
template Array<float> embedding_forward(View<const std::int64_t>, View<const float>);
template Array<double> embedding_forward(View<const std::int64_t>, View<const double>);
template Array<float> embedding_backward(View<const std::int64_t>, View<const float>, Index);
template Array<double> embedding_backward(View<const std::int64_t>, View<const double>, Index);

}  // namespace bptt
