// Optimizer steps: one fused pass each over a list of arrays.
//
// The list is cut into blocks as if its arrays stood one behind the other, so that threads get equal
// shares of large and small arrays alike.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

constexpr Index kListBlock = 16384;  // elements

template <class R>
Index list_elements(const kernels::List<R>& list) {
    Index sum = 0;
    for (Index i = 0; i < list.count; ++i) sum += list.entry[i].count;
    return sum;
}

// body(entry, range) for the pieces of arrays that a block is made of.
template <class R, class Body>
BPTT_INLINE void for_each_piece(const kernels::List<R>& list, Index block, Body&& body) {
    const Index first = block * kListBlock, last = first + kListBlock;
    for (Index i = 0, before = 0; i < list.count && before < last; before += list.entry[i++].count) {
        const kernels::ListEntry<R> entry = list.entry[i];
        const Range piece{larger<Index>(first - before, 0), smaller(last - before, entry.count)};
        if (piece.first < piece.last) body(entry, piece);
    }
}

// body(entry, get, put) for all vectors of the list. moved: numbers read and written for an element.
template <class R, class Body>
void for_each_in_list(const kernels::List<R>& list, int moved, Body body) {
    const Index count = list_elements(list);
    const double cycles = static_cast<double>(count * moved) * sizeof(R) / kStreamBytesPerCycle;
    for_each_block(ceil_div(count, kListBlock), cycles, list.threads, [&](Index block) {
        for_each_piece(list, block, [&](const kernels::ListEntry<R>& entry, Range piece) {
            for_each_vector<R>(piece, [&](int, auto get, auto put) BPTT_ALWAYS { body(entry, get, put); });
        });
    });
}

template <class R>
void sgd(const kernels::List<R>& list, const kernels::SgdStep& step) {
    using L = Lanes<R>;
    const L lr(static_cast<R>(step.lr)), momentum(static_cast<R>(step.momentum));
    if (step.momentum == 0) {
        for_each_in_list(list, 3, [=](const auto& e, auto get, auto put) BPTT_ALWAYS {
            const L p = get(e.value), g = fma(L(e.decay), p, get(e.gradient));
            put(e.value, fnma(lr, g, p));
        });
        return;
    }
    const bool nesterov = step.nesterov;
    for_each_in_list(list, 5, [=](const auto& e, auto get, auto put) BPTT_ALWAYS {
        const L p = get(e.value), g = fma(L(e.decay), p, get(e.gradient)), v = fma(momentum, get(e.first), g);
        put(e.first, v);
        put(e.value, fnma(lr, nesterov ? fma(momentum, v, g) : v, p));
    });
}

template <class R>
void rmsprop(const kernels::List<R>& list, const kernels::RmspropStep& step) {
    using L = Lanes<R>;
    const L lr(static_cast<R>(step.lr)), alpha(static_cast<R>(step.alpha)),
        rest(static_cast<R>(1 - step.alpha)), eps(static_cast<R>(step.eps));
    for_each_in_list(list, 5, [=](const auto& e, auto get, auto put) BPTT_ALWAYS {
        const L p = get(e.value), g = fma(L(e.decay), p, get(e.gradient));
        const L s = fma(alpha, get(e.first), rest * g * g);
        put(e.first, s);
        put(e.value, p - lr * g / (square_root(s) + eps));
    });
}

template <class R>
void adagrad(const kernels::List<R>& list, const kernels::AdagradStep& step) {
    using L = Lanes<R>;
    const L lr(static_cast<R>(step.lr)), eps(static_cast<R>(step.eps));
    for_each_in_list(list, 5, [=](const auto& e, auto get, auto put) BPTT_ALWAYS {
        const L p = get(e.value), g = fma(L(e.decay), p, get(e.gradient));
        const L s = fma(g, g, get(e.first));
        put(e.first, s);
        put(e.value, p - lr * g / (square_root(s) + eps));
    });
}

template <class R>
void adam(const kernels::List<R>& list, const kernels::AdamStep& step) {
    using L = Lanes<R>;
    const L beta1(static_cast<R>(step.beta1)), rest1(static_cast<R>(1 - step.beta1)),
        beta2(static_cast<R>(step.beta2)), rest2(static_cast<R>(1 - step.beta2)),
        rate(static_cast<R>(step.rate)), root(static_cast<R>(step.root)), eps(static_cast<R>(step.eps));
    for_each_in_list(list, 7, [=](const auto& e, auto get, auto put) BPTT_ALWAYS {
        const L p = get(e.value), g = fma(L(e.decay), p, get(e.gradient));
        const L m = fma(beta1, get(e.first), rest1 * g);
        const L v = fma(beta2, get(e.second), rest2 * g * g);
        put(e.first, m);
        put(e.second, v);
        put(e.value, p * L(e.keep) - rate * m / fma(square_root(v), root, eps));
    });
}

template <class R>
double square_sum(const kernels::List<R>& list) {
    const Index count = list_elements(list);
    const double cycles = static_cast<double>(count) * sizeof(R) / kStreamBytesPerCycle;
    return sum_of_blocks(ceil_div(count, kListBlock), cycles, list.threads, [&](Index block) {
        DoubleSum sum;
        for_each_piece(list, block, [&](const kernels::ListEntry<R>& entry, Range piece) BPTT_ALWAYS {
            for_each_vector<R>(piece,
                               [&](int, auto get, auto) BPTT_ALWAYS { sum.add_square(get(entry.gradient)); });
        });
        return sum.total();
    });
}

template <class R>
void scale(const kernels::List<R>& list, double factor) {
    const Lanes<R> by(static_cast<R>(factor));
    for_each_in_list(list, 2,
                     [=](const auto& e, auto get, auto put) BPTT_ALWAYS { put(e.value, get(e.value) * by); });
}

template <class R>
void clip_by_value(const kernels::List<R>& list, double limit) {
    const R most = static_cast<R>(limit);
    for_each_in_list(list, 2, [=](const auto& e, auto get, auto put) BPTT_ALWAYS {
        put(e.value, clamp(get(e.value), -most, most));
    });
}

template <class R>
constexpr kernels::OptimTable<R> optim_table() {
    return {sgd<R>, rmsprop<R>, adagrad<R>, adam<R>, square_sum<R>, scale<R>, clip_by_value<R>};
}

}  // namespace bptt::BPTT_SET
