// The LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000):
//   i, f, o = sigmoid(a), g = tanh(a);  c = f*c_prev + i*g;  h = o*tanh(c).
#pragma once

#include "kernels/cells/cell.hpp"

namespace bptt::BPTT_SET {

struct Lstm : OneCell<Lstm> {
    static constexpr int gates = 4, columns = 4, kept = 4, phases = 1;
    static constexpr unsigned writes[] = {0b1111}, output_writes = 0, read_again = 0b1000;
    static constexpr bool has_c = true, passes_h = false;
    static constexpr int ih_column[] = {0, 1, 2, 3}, hh_column[] = {0, 1, 2, 3}, phase_of[] = {0, 0, 0, 0},
                         source_column[] = {-1};

    template <int, class R>
    BPTT_INLINE static void forward(Lanes<R> (&a)[columns], Lanes<R>, Lanes<R> c_prev, Lanes<R>& c) {
        a[0] = sigmoid(a[0]);
        a[1] = sigmoid(a[1]);
        a[2] = tanh(a[2]);
        a[3] = sigmoid(a[3]);
        c = fma(a[1], c_prev, a[0] * a[2]);
    }

    template <class R>
    BPTT_INLINE static Lanes<R> output(Lanes<R> (&a)[columns], Lanes<R>, Lanes<R> c) {
        return a[3] * tanh(c);
    }

    template <int, class R>
    BPTT_INLINE static void backward(const Lanes<R> (&a)[columns], const States<R>& s, Lanes<R> dh,
                                     Lanes<R>& dc, Lanes<R> (&delta)[columns], Lanes<R>&) {
        const Lanes<R> one(R(1));
        const Lanes<R> i = a[0], f = a[1], g = a[2], o = a[3], tanh_c = tanh(s.c);
        dc = fma(dh * o, fnma(tanh_c, tanh_c, one), dc);
        delta[0] = dc * g * (i * (one - i));
        delta[1] = dc * s.c_prev * (f * (one - f));
        delta[2] = dc * i * fnma(g, g, one);
        delta[3] = dh * tanh_c * (o * (one - o));
    }

    template <class R>
    BPTT_INLINE static Lanes<R> handed_back(const Lanes<R> (&a)[columns], Lanes<R> dc) {
        return dc * a[1];
    }
};

}  // namespace bptt::BPTT_SET
