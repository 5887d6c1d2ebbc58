// One step of few sequences, from the weights as they stand.
//
// Packing costs as much as reading all weights several times, which pays over many steps or many rows. Here
// each weight is read once: a row of W times a vector, a vector of rows at a time. So the sums are made of
// lanes, and a step equals the loop's to rounding, not to the bit.
#pragma once

#include "kernels/forward_step.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

// A matrix (rows, K) and what it is multiplied with.
template <class R>
struct Term {
    const R* matrix;
    Index K;
    const R* v;
};

// sum[r] += of each lane, the products of row i+r of a term with its vector; rows beyond the last are it
// again.
template <class R>
BPTT_INLINE void add_term(const Term<R>& term, Index i, int count, V<R> (&sum)[Vec<R>::size]) {
    constexpr int W = Vec<R>::size;
    const R* row[W];
    unroll<W>([&](auto r) { row[r] = term.matrix + (i + smaller<Index>(r, count - 1)) * term.K; });
    Index k = 0;
    for (; k + W <= term.K; k += W) {
        const V<R> v = load(term.v + k);
        unroll<W>([&](auto r) { sum[r] = ei::pmadd(load(row[r] + k), v, sum[r]); });
    }
    if (k == term.K) return;
    const int rest = static_cast<int>(term.K - k);
    const V<R> v = load_first(term.v + k, rest);
    unroll<W>([&](auto r) { sum[r] = ei::pmadd(load_first(row[r] + k, rest), v, sum[r]); });
}

// to[i] = the biases' i-th numbers + matrix[i, :] . v of each term, for i < rows. A bias may be null.
template <int terms, int biases, class R>
BPTT_SHARED void sum_of_products(Index rows, const Term<R> (&term)[terms], const R* const (&bias)[biases],
                                 R* to) {
    constexpr int W = Vec<R>::size;
    for (Index i = 0; i < rows; i += W) {
        const int count = static_cast<int>(smaller<Index>(W, rows - i));
        V<R> sum[W];
        unroll<W>([&](auto r) { sum[r] = all(R(0)); });
        unroll<terms>([&](auto t) { add_term(term[t], i, count, sum); });
        transpose<R>(sum);
        for (int half = W / 2; half > 0; half /= 2)
            for (int r = 0; r < half; ++r) sum[r] = ei::padd(sum[r], sum[r + half]);
        unroll<biases>([&](auto b) {
            if (bias[b] != nullptr) sum[0] = ei::padd(sum[0], load_lanes(bias[b] + i, count));
        });
        store_lanes(to + i, sum[0], count);
    }
}

template <class Cell, class R>
void single_step(const kernels::StepArgs<R>& a) {
    const DenormalsAreZero mode;
    const Index H = a.H;
    const Space<R> space(Cell::columns * H);
    R* const row = space.data();
    for (Index n = 0; n < a.N; ++n) {
        const R* const h = a.h + n * H;
        const R* const c = Cell::has_c ? a.c + n * H : h;
        unroll<Cell::phases>([&](auto phase) {
            constexpr int p = decltype(phase)::value;
            const R* const from = p == 0 ? h : row + Cell::source_column[p] * H;
            unroll<Cell::gates>([&](auto gate) {
                constexpr int g = decltype(gate)::value;
                if constexpr (Cell::phase_of[g] == p) {
                    const Term<R> input{a.weight_ih + g * H * a.D, a.D, a.x + n * a.D},
                        hidden{a.weight_hh + g * H * H, H, from};
                    const R *const of_input = a.bias_ih != nullptr ? a.bias_ih + g * H : nullptr,
                                   *const of_hidden = a.bias_hh != nullptr ? a.bias_hh + g * H : nullptr;
                    R *const to = row + Cell::ih_column[g] * H, *const to_hidden =
                                                                    row + Cell::hh_column[g] * H;
                    if constexpr (sides_apart<Cell>(g)) {
                        sum_of_products<1, 1, R>(H, {input}, {of_input}, to);
                        sum_of_products<1, 1, R>(H, {hidden}, {of_hidden}, to_hidden);
                    } else {
                        sum_of_products<2, 2, R>(H, {input, hidden}, {of_input, of_hidden}, to);
                    }
                }
            });
            forward_pointwise<Cell, p>(a.cell, H, row, h, c, a.h_next + n * H,
                                       Cell::has_c ? a.c_next + n * H : nullptr);
        });
    }
}

}  // namespace bptt::BPTT_SET
