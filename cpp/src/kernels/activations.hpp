// Activations: each number by itself, or the softmax of each row.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/nonlinearities.hpp"
#include "kernels/softmax.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

constexpr Index kActivationBlock = 4096;  // elements of a block; of the softmax about, in whole rows

// ---- each number by itself -------------------------------------------------------------------------

template <class Phi>
struct Pointwise {
    static constexpr bool by_rows = false;
    static constexpr double cycles = 24;  // a vector

    template <class R>
    BPTT_INLINE static void forward(const R* x, R* y, Index count) {
        for_each_vector<R>(Range{0, count},
                           [=](int, auto get, auto put) BPTT_ALWAYS { put(y, Phi::value(get(x))); });
    }
    template <class R>
    BPTT_INLINE static void backward(const R* y, const R* dy, R* dx, Index count) {
        for_each_vector<R>(Range{0, count}, [=](int, auto get, auto put)
                                                BPTT_ALWAYS { put(dx, Phi::backward(get(y), get(dy))); });
    }
};

// ---- each row --------------------------------------------------------------------------------------

struct Softmax {
    static constexpr bool by_rows = true;
    static constexpr double cycles = 32;

    template <class R>
    BPTT_INLINE static void forward(const R* x, R* y, Index V) {
        const double sum = row_exponentials(x, row_maximum(x, V), V, y);
        scale_row(y, static_cast<R>(1 / sum), V);
    }
    // dx = y * (dy - the sum of y*dy).
    template <class R>
    BPTT_INLINE static void backward(const R* y, const R* dy, R* dx, Index V) {
        DoubleSum sum;
        for_each_vector<R>(Range{0, V}, [&](int, auto get, auto) BPTT_ALWAYS { sum.add(get(y) * get(dy)); });
        const Lanes<R> mean(static_cast<R>(sum.total()));
        for_each_vector<R>(Range{0, V},
                           [=](int, auto get, auto put) BPTT_ALWAYS { put(dx, get(y) * (get(dy) - mean)); });
    }
};

// ---- whole arrays, and one row in real time ----------------------------------------------------------

// body(first, count) for pieces that may be taken one by one: a row, or so many elements.
template <class Of, class R, class Body>
void for_each_piece(const kernels::ActivationArgs<R>& a, Body&& body) {
    const Index all = a.M * a.V, width = Of::by_rows ? a.V : kActivationBlock;
    const Index height = Of::by_rows ? larger<Index>(1, kActivationBlock / a.V) : 1;
    const double cycles = static_cast<double>(all / Vec<R>::size + a.M) * Of::cycles;
    for_each_block(ceil_div(all, height * width), cycles, a.threads, [&](Index block) {
        const Index last = smaller((block + 1) * height * width, all);
        for (Index i = block * height * width; i < last; i += width) body(i, smaller(width, last - i));
    });
}

template <class Of, class R>
void activation_forward(const kernels::ActivationArgs<R>& a) {
    for_each_piece<Of>(a, [&](Index i, Index count) { Of::forward(a.x + i, a.out + i, count); });
}

template <class Of, class R>
void activation_backward(const kernels::ActivationArgs<R>& a) {
    for_each_piece<Of>(a, [&](Index i, Index count) { Of::backward(a.y + i, a.dy + i, a.out + i, count); });
}

template <class Of, class R>
void activation_step(const R* x, R* y, Index V) noexcept {
    const DenormalsAreZero mode;
    Of::forward(x, y, V);
}

template <class... Of>
struct Activations {
    template <class R>
    static constexpr kernels::ActivationTable<R> table() {
        return {{activation_forward<Of, R>...}, {activation_backward<Of, R>...}, {activation_step<Of, R>...}};
    }
};

// In the order of bptt::Nonlinearity.
using AllActivations =
    Activations<Pointwise<Tanh>, Pointwise<Relu>, Pointwise<Sigmoid>, Pointwise<Elu>, Softmax>;

}  // namespace bptt::BPTT_SET
