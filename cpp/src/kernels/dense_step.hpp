// The linear map of one row, for real time, with weights that were packed once.
#pragma once

#include "kernels/dense.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

template <class R>
class LinearStep {
public:
    explicit LinearStep(const kernels::LinearArgs<R>& a) : weight_(columns_run(a.V), a.D) {
        weight_.pack_transposed(a.weight, 0, 1);
        weight_.start_from([&](Index row) { return a.bias != nullptr ? a.bias[row] : R(0); },
                           [](Index) { return true; }, 0, 1);
    }

    // x (D,), y (V,). Takes nothing from anywhere: no lock, no memory, no system call.
    void step(const R* x, R* y) const noexcept {
        const DenormalsAreZero mode;
        times(weight_.panels(), x, y);
    }

private:
    PackedWeights<R> weight_;
};

template <class R>
void* linear_new(const kernels::LinearArgs<R>& args) {
    return new LinearStep<R>(args);
}

template <class R>
void linear_delete(void* prepared) noexcept {
    delete static_cast<LinearStep<R>*>(prepared);
}

template <class R>
void linear_step(const void* prepared, const R* x, R* y) noexcept {
    static_cast<const LinearStep<R>*>(prepared)->step(x, y);
}

template <class R>
constexpr kernels::DenseTable<R> dense_table() {
    return {linear_forward<R>, linear_backward<R>, embedding_forward<R>, embedding_backward<R>,
            linear_new<R>,     linear_delete<R>,   linear_step<R>};
}

}  // namespace bptt::BPTT_SET
