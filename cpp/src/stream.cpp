#include "bptt/stream.hpp"

#include <algorithm>
#include <utility>

#include "dispatch.hpp"
#include "validate.hpp"

namespace bptt {
namespace {

template <class R>
void set(const Array<R>& to, const View<const R>& from) {
    if (!to) return;
    if (from)
        std::copy_n(from.data, to.elements(), to.data());
    else
        std::fill_n(to.data(), to.elements(), R(0));
}

}  // namespace

template <class R>
Stream<R>::Stream(Cell cell, const Weights<R>& weights, const State<R>& initial) : cell_(cell) {
    const validate::Caller caller("Stream");
    validate::weights(caller, cell, weights);
    D_ = weights.weight_ih.shape[1];
    H_ = weights.weight_hh.shape[1];
    h_ = Array<R>(Shape{1, H_});
    if (cell_has_c(cell)) c_ = Array<R>(Shape{1, H_});
    reset(initial);
    const auto& table = detail::table<kernels::StreamTable<R>>();
    step_ = table.step[static_cast<int>(cell)];
    prepared_ =
        table.make[static_cast<int>(cell)]({cell, D_, H_, weights.weight_ih.data, weights.weight_hh.data,
                                            weights.bias_ih.data, weights.bias_hh.data});
}

template <class R>
Stream<R>::~Stream() {
    if (prepared_ != nullptr)
        detail::table<kernels::StreamTable<R>>().end[static_cast<int>(cell_)](prepared_);
}

template <class R>
Stream<R>::Stream(Stream&& other) noexcept {
    *this = std::move(other);
}

template <class R>
Stream<R>& Stream<R>::operator=(Stream&& other) noexcept {
    std::swap(cell_, other.cell_);
    std::swap(D_, other.D_);
    std::swap(H_, other.H_);
    std::swap(h_, other.h_);
    std::swap(c_, other.c_);
    std::swap(prepared_, other.prepared_);
    std::swap(step_, other.step_);
    return *this;
}

template <class R>
void Stream<R>::reset(const State<R>& state) {
    validate::state(validate::Caller("Stream"), state, cell_, {1, 1, D_, H_}, "state");
    set(h_, state.h);
    set(c_, state.c);
}

template class Stream<float>;
template class Stream<double>;

}  // namespace bptt
