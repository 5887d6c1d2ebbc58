// The GRU (Cho et al. 2014) in its two variants: h = (1-z)*n + z*h_prev, and the candidate n is
//   reset after:   n = tanh(a_ih + r * a_hh)               r, z = sigmoid(a)
//   reset before:  n = tanh(a_ih + W_hn (r*h_prev) + b_hn)
#pragma once

#include "kernels/cells/cell.hpp"

namespace bptt::BPTT_SET {

// Columns: n's input side, r, z, n's hidden side. So W_ih's columns are neighbours, and W_hh's are.
struct Gru : OneCell<Gru> {
    static constexpr int gates = 3, columns = 4, kept = 4, phases = 1;
    static constexpr bool has_c = false, passes_h = true;
    static constexpr int ih_column[] = {1, 2, 0}, hh_column[] = {1, 2, 3}, phase_of[] = {0, 0, 0},
                         source_column[] = {-1};
    static constexpr unsigned writes[] = {0b0110}, output_writes = 0b0001, read_again = 0b0110;

    template <int, class R>
    BPTT_INLINE static void forward(Lanes<R> (&a)[columns], Lanes<R>, Lanes<R>, Lanes<R>&) {
        a[1] = sigmoid(a[1]);
        a[2] = sigmoid(a[2]);
    }

    template <class R>
    BPTT_INLINE static Lanes<R> output(Lanes<R> (&a)[columns], Lanes<R> h_prev, Lanes<R>) {
        a[0] = tanh(fma(a[1], a[3], a[0]));
        return fma(a[2], h_prev - a[0], a[0]);
    }

    template <int, class R>
    BPTT_INLINE static void backward(const Lanes<R> (&a)[columns], const States<R>& s, Lanes<R> dh, Lanes<R>&,
                                     Lanes<R> (&delta)[columns], Lanes<R>& pass) {
        const Lanes<R> one(R(1));
        const Lanes<R> n = a[0], r = a[1], z = a[2], n_hh = a[3];
        delta[0] = dh * (one - z) * fnma(n, n, one);
        delta[1] = delta[0] * n_hh * (r * (one - r));
        delta[2] = dh * (s.h_prev - n) * (z * (one - z));
        delta[3] = delta[0] * r;
        pass = dh * z;
    }
};

// Columns: r, z, n, and r*h_prev, the source of the second product.
struct GruResetBefore : OneCell<GruResetBefore> {
    static constexpr int gates = 3, columns = 4, kept = 4, phases = 2;
    static constexpr bool has_c = false, passes_h = true;
    static constexpr int ih_column[] = {0, 1, 2}, hh_column[] = {0, 1, 2}, phase_of[] = {0, 0, 1},
                         source_column[] = {-1, 3};
    static constexpr unsigned writes[] = {0b1011, 0}, output_writes = 0b0100, read_again = 0b1010;

    template <int phase, class R>
    BPTT_INLINE static void forward(Lanes<R> (&a)[columns], Lanes<R> h_prev, Lanes<R>, Lanes<R>&) {
        if constexpr (phase == 0) {
            a[0] = sigmoid(a[0]);
            a[1] = sigmoid(a[1]);
            a[3] = a[0] * h_prev;
        }
    }

    template <class R>
    BPTT_INLINE static Lanes<R> output(Lanes<R> (&a)[columns], Lanes<R> h_prev, Lanes<R>) {
        a[2] = tanh(a[2]);
        return fma(a[1], h_prev - a[2], a[2]);
    }

    template <int phase, class R>
    BPTT_INLINE static void backward(const Lanes<R> (&a)[columns], const States<R>& s, Lanes<R> dh, Lanes<R>&,
                                     Lanes<R> (&delta)[columns], Lanes<R>& pass) {
        const Lanes<R> one(R(1));
        const Lanes<R> r = a[0], z = a[1], n = a[2];
        if constexpr (phase == 1) {
            delta[1] = dh * (s.h_prev - n) * (z * (one - z));
            delta[2] = dh * (one - z) * fnma(n, n, one);
            pass = dh * z;
        } else {
            delta[0] = delta[3] * s.h_prev * (r * (one - r));
            pass = fma(delta[3], r, pass);
        }
    }
};

}  // namespace bptt::BPTT_SET
