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

// to[i] += matrix[i, :] . v for i < rows; matrix (rows, K).
template <class R>
BPTT_SHARED void add_products(const R* matrix, Index rows, Index K, const R* v, R* to) {
    constexpr int W = Vec<R>::size;
    for (Index i = 0; i < rows; i += W) {
        const int count = static_cast<int>(smaller<Index>(W, rows - i));
        const R* row[W];
        V<R> sum[W];
        unroll<W>([&](auto r) {
            row[r] = matrix + (i + smaller<Index>(r, count - 1)) * K;  // no row beyond the last is read
            sum[r] = all(R(0));
        });
        Index k = 0;
        for (; k + W <= K; k += W) {
            const V<R> x = load(v + k);
            unroll<W>([&](auto r) { sum[r] = ei::pmadd(load(row[r] + k), x, sum[r]); });
        }
        if (k < K) {
            const int rest = static_cast<int>(K - k);
            const V<R> x = load_first(v + k, rest);
            unroll<W>([&](auto r) { sum[r] = ei::pmadd(load_first(row[r] + k, rest), x, sum[r]); });
        }
        transpose<R>(sum);
        for (int half = W / 2; half > 0; half /= 2)
            for (int r = 0; r < half; ++r) sum[r] = ei::padd(sum[r], sum[r + half]);
        store_lanes(to + i, ei::padd(load_lanes(to + i, count), sum[0]), count);
    }
}

// to[j] = bias[j] + other[j] for j < H; null: zero.
template <class R>
BPTT_SHARED void start_from(R* to, Index H, const R* bias, const R* other) {
    for (Index j = 0; j < H; ++j)
        to[j] = (bias != nullptr ? bias[j] : R(0)) + (other != nullptr ? other[j] : R(0));
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
        fill<R>(row, Cell::columns * H, R(0));
        unroll<Cell::gates>([&](auto gate) {
            constexpr int g = decltype(gate)::value;
            constexpr bool apart = sides_apart<Cell>(g);
            const R* const hidden = a.bias_hh != nullptr ? a.bias_hh + g * H : nullptr;
            R* const to = row + Cell::ih_column[g] * H;
            start_from<R>(to, H, a.bias_ih != nullptr ? a.bias_ih + g * H : nullptr,
                          apart ? nullptr : hidden);
            if (apart) start_from<R>(row + Cell::hh_column[g] * H, H, hidden, nullptr);
            add_products(a.weight_ih + g * H * a.D, H, a.D, a.x + n * a.D, to);
        });
        unroll<Cell::phases>([&](auto phase) {
            constexpr int p = decltype(phase)::value;
            const R* const from = p == 0 ? h : row + Cell::source_column[p] * H;
            unroll<Cell::gates>([&](auto gate) {
                constexpr int g = decltype(gate)::value;
                if constexpr (Cell::phase_of[g] == p)
                    add_products(a.weight_hh + g * H * H, H, H, from, row + Cell::hh_column[g] * H);
            });
            forward_pointwise<Cell, p>(H, Range{0, H}, false, row, h, c, a.h_next + n * H,
                                       Cell::has_c ? a.c_next + n * H : nullptr);
        });
    }
}

}  // namespace bptt::BPTT_SET
