// The vanilla RNN: h = phi(a). Its derivative is a function of h, so nothing else is kept.
#pragma once

#include "kernels/cells/cell.hpp"
#include "kernels/nonlinearities.hpp"

namespace bptt::BPTT_SET {

// With any phi.
struct Rnn {
    static constexpr int gates = 1, columns = 1, kept = 0, phases = 1;
    static constexpr unsigned writes[] = {0}, output_writes = 0, read_again = 0;
    static constexpr bool has_c = false, passes_h = false;
    static constexpr int ih_column[1] = {0}, hh_column[1] = {0}, phase_of[1] = {0}, source_column[1] = {-1};

    template <class Phi>
    struct Of {
        template <int, class R>
        BPTT_INLINE static void forward(Lanes<R> (&)[columns], Lanes<R>, Lanes<R>, Lanes<R>&) {}

        template <class R>
        BPTT_INLINE static Lanes<R> output(Lanes<R> (&a)[columns], Lanes<R>, Lanes<R>) {
            return Phi::value(a[0]);
        }

        template <int, class R>
        BPTT_INLINE static void backward(const Lanes<R> (&)[columns], const States<R>& s, Lanes<R> dh,
                                         Lanes<R>&, Lanes<R> (&delta)[columns], Lanes<R>&) {
            delta[0] = Phi::backward(s.h, dh);
        }
    };

    template <class Body>
    BPTT_INLINE static void choose(bptt::Cell which, Body&& body) {
        if (which == bptt::Cell::rnn_tanh)
            body(Of<Tanh>{});
        else if (which == bptt::Cell::rnn_relu)
            body(Of<Relu>{});
        else
            body(Of<Identity>{});
    }
};

}  // namespace bptt::BPTT_SET
