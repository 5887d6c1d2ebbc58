#include "bptt/activations.hpp"

#include <stdexcept>

#include "bptt/runtime.hpp"
#include "dispatch.hpp"
#include "validate.hpp"

namespace bptt {
namespace {

constexpr const char* kNames[] = {"tanh", "relu", "sigmoid", "elu", "softmax"};
static_assert(sizeof kNames / sizeof kNames[0] == kernels::kNonlinearities, "one name a nonlinearity");

template <class R>
kernels::ActivationArgs<R> args_of(const Shape& shape, const Array<R>& out) {
    kernels::ActivationArgs<R> args{};
    args.V = shape[shape.rank - 1];
    args.M = shape.elements() / args.V;
    args.out = out.data();
    args.threads = static_cast<int>(get_num_threads());
    return args;
}

}  // namespace

const char* nonlinearity_name(Nonlinearity nonlinearity) { return kNames[static_cast<int>(nonlinearity)]; }

Nonlinearity nonlinearity_from_name(const std::string& name) {
    std::string known;
    for (int i = 0; i < kernels::kNonlinearities; ++i) {
        if (name == kNames[i]) return static_cast<Nonlinearity>(i);
        known += (i > 0 ? ", " : "") + std::string(kNames[i]);
    }
    throw std::invalid_argument("nonlinearity is \"" + name + "\", expected one of " + known);
}

template <class R>
Array<R> activation_forward(Nonlinearity nonlinearity, View<const R> x) {
    const validate::Caller caller("activation_forward");
    validate::activation(caller, x, "x");
    Array<R> y(x.shape);
    kernels::ActivationArgs<R> args = args_of(x.shape, y);
    args.x = x.data;
    detail::table<kernels::ActivationTable<R>>().whole[static_cast<int>(nonlinearity)](args);
    return y;
}

template <class R>
Array<R> activation_backward(Nonlinearity nonlinearity, View<const R> y, View<const R> dy) {
    const validate::Caller caller("activation_backward");
    validate::activation(caller, y, "y");
    caller.present(dy, "dy");
    caller.same_shape(dy, "dy", y.shape, "y");
    Array<R> dx(y.shape);
    kernels::ActivationArgs<R> args = args_of(y.shape, dx);
    args.y = y.data;
    args.dy = dy.data;
    detail::table<kernels::ActivationTable<R>>().whole[static_cast<int>(nonlinearity)](args);
    return dx;
}

template Array<float> activation_forward(Nonlinearity, View<const float>);
template Array<double> activation_forward(Nonlinearity, View<const double>);
template Array<float> activation_backward(Nonlinearity, View<const float>, View<const float>);
template Array<double> activation_backward(Nonlinearity, View<const double>, View<const double>);

}  // namespace bptt
