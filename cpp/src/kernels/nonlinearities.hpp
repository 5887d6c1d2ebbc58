// The functions of one number that cells and layers share. The derivative of each is a function of its value,
// so nothing but that is kept.
#pragma once

#include "kernels/elementary.hpp"

namespace bptt::BPTT_SET {

struct Tanh {
    template <class R>
    BPTT_INLINE static Lanes<R> value(Lanes<R> a) {
        return tanh(a);
    }
    template <class R>
    BPTT_INLINE static Lanes<R> backward(Lanes<R> y, Lanes<R> dy) {
        return dy * fnma(y, y, Lanes<R>(R(1)));
    }
};

struct Relu {
    template <class R>
    BPTT_INLINE static Lanes<R> value(Lanes<R> a) {
        return relu(a);
    }
    template <class R>
    BPTT_INLINE static Lanes<R> backward(Lanes<R> y, Lanes<R> dy) {
        return zero_where_not_positive(y, dy);
    }
};

struct Identity {
    template <class R>
    BPTT_INLINE static Lanes<R> value(Lanes<R> a) {
        return a;
    }
    template <class R>
    BPTT_INLINE static Lanes<R> backward(Lanes<R>, Lanes<R> dy) {
        return dy;
    }
};

struct Sigmoid {
    template <class R>
    BPTT_INLINE static Lanes<R> value(Lanes<R> a) {
        return sigmoid(a);
    }
    template <class R>
    BPTT_INLINE static Lanes<R> backward(Lanes<R> y, Lanes<R> dy) {
        return dy * (y * (Lanes<R>(R(1)) - y));
    }
};

// Clevert et al. 2016, with alpha = 1.
struct Elu {
    template <class R>
    BPTT_INLINE static Lanes<R> value(Lanes<R> a) {
        return where_positive(a, a, expm1_within_limit(a));
    }
    template <class R>
    BPTT_INLINE static Lanes<R> backward(Lanes<R> y, Lanes<R> dy) {
        return where_positive(y, dy, fma(dy, y, dy));
    }
};

}  // namespace bptt::BPTT_SET
