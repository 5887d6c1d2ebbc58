// Activations: each number by itself, or the softmax of each row.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/nonlinearities.hpp"
#include "kernels/softmax.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

// ---- each number by itself -------------------------------------------------------------------------

template <class Phi>
struct Pointwise {
    static constexpr bool by_rows = false;

    template <class R>
    static void forward(const R* x, R* y, Index count) noexcept {
        for_each_vector<R>(Range{0, count},
                           [=](int, auto get, auto put) BPTT_ALWAYS { put(y, Phi::value(get(x))); });
    }
    template <class R>
    static void backward(const R* y, const R* dy, R* dx, Index count) noexcept {
        for_each_vector<R>(Range{0, count}, [=](int, auto get, auto put)
                                                BPTT_ALWAYS { put(dx, Phi::backward(get(y), get(dy))); });
    }
};

// ---- each row --------------------------------------------------------------------------------------

struct Softmax {
    static constexpr bool by_rows = true;

    template <class R>
    static void forward(const R* x, R* y, Index V) noexcept {
        const double sum = row_exponentials(x, row_maximum(x, V), V, y);
        scale_row(y, static_cast<R>(1 / sum), V);
    }
    // dx = y * (dy - the sum of y*dy).
    template <class R>
    static void backward(const R* y, const R* dy, R* dx, Index V) noexcept {
        DoubleSum sum;
        for_each_vector<R>(Range{0, V}, [&](int, auto get, auto) BPTT_ALWAYS { sum.add(get(y) * get(dy)); });
        const Lanes<R> mean(static_cast<R>(sum.total()));
        for_each_vector<R>(Range{0, V},
                           [=](int, auto get, auto put) BPTT_ALWAYS { put(dx, get(y) * (get(dy) - mean)); });
    }
};

// ---- whole arrays, and one row in real time ----------------------------------------------------------

constexpr Index kActivationBlock = 4096;  // elements of a block; by rows about, in whole ones
constexpr double kActivationCycles = 24;  // a vector, about

// What takes any piece of an array: a row, or so many elements. One loop over blocks calls them all, so that
// it is compiled once.
template <class R>
struct Pieces {
    bool by_rows;
    void (*forward)(const R* x, R* y, Index count) noexcept;
    void (*backward)(const R* y, const R* dy, R* dx, Index count) noexcept;
};

template <class R>
void activation_blocks(const kernels::ActivationArgs<R>& a, const Pieces<R>& of) {
    const Index all = a.M * a.V, width = of.by_rows ? a.V : kActivationBlock;
    const Index height = of.by_rows ? larger<Index>(1, kActivationBlock / a.V) : 1;
    const double cycles = static_cast<double>(all / Vec<R>::size + a.M) * kActivationCycles;
    for_each_block(ceil_div(all, height * width), cycles, a.threads, [&](Index block) {
        const Index last = smaller((block + 1) * height * width, all);
        for (Index i = block * height * width; i < last; i += width) {
            const Index count = smaller(width, last - i);
            if (a.x != nullptr)
                of.forward(a.x + i, a.out + i, count);
            else
                of.backward(a.y + i, a.dy + i, a.out + i, count);
        }
    });
}

template <class Of, class R>
void activation(const kernels::ActivationArgs<R>& a) {
    activation_blocks<R>(a, {Of::by_rows, Of::template forward<R>, Of::template backward<R>});
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
        return {{activation<Of, R>...}, {activation_step<Of, R>...}};
    }
};

// In the order of bptt::Nonlinearity.
using AllActivations =
    Activations<Pointwise<Tanh>, Pointwise<Relu>, Pointwise<Sigmoid>, Pointwise<Elu>, Softmax>;

}  // namespace bptt::BPTT_SET
