// What a forward step is made of: the packed weights, and the cell's pointwise pass over a row.
#pragma once

#include "kernels/cells/cell.hpp"
#include "kernels/layout.hpp"

namespace bptt::BPTT_SET {

// The weights of one part of the units, packed for the forward products.
template <class Cell, class R>
struct ForwardWeights {
    Range units;
    PackedWeights<R> ih;
    struct Phase : PackedWeights<R> {
        Phase(int phase, Index H, Range units)
            : PackedWeights<R>(gate_runs<Cell>(Cell::hh_column, phase, H, units), H) {}
    };
    Each<Phase> hh;

    ForwardWeights(int unit_part, Index D, Index H, int unit_parts)
        : units(units_of<R>(H, unit_part, unit_parts)),
          ih(gate_runs<Cell>(Cell::ih_column, -1, H, units), D),
          hh(Cell::phases, H, units) {}

    // Packs a share. The input's side starts from both biases; where a gate's sides stand apart each
    // side from its own. Biases may be null.
    void pack(Index H, const R* weight_ih, const R* weight_hh, const R* bias_ih, const R* bias_hh, int part,
              int parts) const {
        const auto bias = [](const R* values, Index row) { return values != nullptr ? values[row] : R(0); };
        const auto apart = [H](Index row) { return sides_apart<Cell>(row / H); };
        ih.pack_transposed(weight_ih, part, parts);
        ih.start_from(
            [&](Index row) { return bias(bias_ih, row) + (apart(row) ? R(0) : bias(bias_hh, row)); },
            [](Index) { return true; }, part, parts);
        for (int p = 0; p < Cell::phases; ++p) {
            hh[p].pack_transposed(weight_hh, part, parts);
            hh[p].start_from([&](Index row) { return bias(bias_hh, row); }, apart, part, parts);
        }
    }
};

template <class Cell, int phase, class R, class Load, class Store>
BPTT_INLINE void forward_lanes(Index H, Index j, R* row, const R* h_prev, const R* c_prev, R* h_next,
                               R* c_next, Load get, Store put) {
    Lanes<R> a[Cell::columns], h_now, c_now;
    unroll<Cell::columns>([&](auto i) { a[i] = get(row + i * H + j); });
    const Lanes<R> h_old = get(h_prev + j);
    const Lanes<R> c_old = Cell::has_c ? get(c_prev + j) : h_old;
    Cell::template forward<phase>(a, h_old, c_old, h_now, c_now);
    if constexpr (Cell::kept > 0 || phase + 1 < Cell::phases)
        unroll<Cell::columns>([&](auto i) { put(row + i * H + j, a[i]); });
    if constexpr (phase + 1 == Cell::phases) {
        put(h_next + j, h_now);
        if constexpr (Cell::has_c) put(c_next + j, c_now);
    }
}

// The cell's pass of one phase over the units of one row. h_next may be h_prev, and c_next c_prev.
template <class Cell, int phase, class R>
BPTT_INLINE void forward_pointwise(Index H, Range units, R* row, const R* h_prev, const R* c_prev, R* h_next,
                                   R* c_next) {
    constexpr Index W = Vec<R>::size;
    Index j = units.first;
    for (; j + W <= units.last; j += W)
        forward_lanes<Cell, phase>(
            H, j, row, h_prev, c_prev, h_next, c_next, [](const R* p) { return Lanes<R>(load(p)); },
            [](R* p, Lanes<R> v) { store(p, v.v); });
    if (j < units.last) {
        const int rest = static_cast<int>(units.last - j);
        forward_lanes<Cell, phase>(
            H, j, row, h_prev, c_prev, h_next, c_next,
            [rest](const R* p) { return Lanes<R>(load_first(p, rest)); },
            [rest](R* p, Lanes<R> v) { store_first(p, v.v, rest); });
    }
}

}  // namespace bptt::BPTT_SET
