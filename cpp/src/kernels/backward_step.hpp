// What a backward step is made of: the packed recurrent weights, and the cell's pointwise pass over a row.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/cells/cell.hpp"
#include "kernels/layout.hpp"

namespace bptt::BPTT_SET {

BPTT_INLINE Runs column_run(Range columns) {
    Runs runs;
    runs.add({columns.first, columns.first, columns.count()}, false);
    return runs;
}

// W_hh as the backward product needs it, for one part of the units, a phase each.
template <class Cell, class R>
struct BackwardWeights {
    Range units;
    struct Phase : PackedWeights<R> {
        Phase(int phase, Index H, Range units, bool used)
            : PackedWeights<R>(column_run(units), used ? hh_window<Cell>(phase).count * H : 0) {}
    };
    Each<Phase> hh;

    // used: else there are none.
    BackwardWeights(int unit_part, Index H, int unit_parts, bool used)
        : units(units_of<R>(H, unit_part, unit_parts)), hh(Cell::phases, H, units, used) {}

    // Packs a share. What the product adds to is what the cell passed on, or nothing. rows: room for G*H.
    void pack(Index H, const R* weight_hh, const R** rows, int part, int parts) const {
        for (int p = 0; p < Cell::phases; ++p) {
            rows_of_window<Cell>(Cell::hh_column, hh_window<Cell>(p), H, weight_hh, H, rows);
            hh[p].pack_straight(rows, part, parts);
            if (p > 0 || !Cell::passes_h) hh[p].start_from_zero(part, parts);
        }
    }
};

// The rows that a step's pointwise pass reads and writes.
template <class R>
struct BackwardRows {
    R* delta;
    const R *gates, *h_prev, *h, *c_prev, *c, *dy;
    R *dh, *dc;
    R *handed, *whole_dc;  // where they are written down: what step t+1 handed back, dL/dc_t; or null
};

// The cell's pass of one phase over the units of one row.
template <class Cell, int phase, class R>
BPTT_INLINE void backward_pointwise(bptt::Cell which, Index H, Range units, const BackwardRows<R>& rows) {
    constexpr bool first = phase + 1 == Cell::phases;  // the first to run
    Cell::choose(which, [&](auto its) BPTT_ALWAYS {
        using Its = decltype(its);
        for_each_element<R, Cell::columns + 4>(units, [&](int, auto get, auto put) BPTT_ALWAYS {
            Lanes<R> a[Cell::columns], delta[Cell::columns], dc, pass;
            if constexpr (Cell::kept > 0)
                unroll<Cell::columns>([&](auto i) BPTT_ALWAYS { a[i] = get(rows.gates + i * H); });
            unroll<Cell::columns>(
                [&](auto i) BPTT_ALWAYS { delta[i] = first ? Lanes<R>(R(0)) : get(rows.delta + i * H); });
            States<R> states;
            states.h_prev = get(rows.h_prev);
            states.h = get(rows.h);
            if constexpr (Cell::has_c) {
                states.c_prev = get(rows.c_prev);
                states.c = get(rows.c);
                dc = get(rows.dc);
            }
            // dh: what the loss at t sends and what step t+1 handed back; later phases find what was passed.
            const Lanes<R> handed = get(rows.dh);
            if constexpr (first)
                Its::template backward<phase>(a, states, get(rows.dy) + handed, dc, delta, pass);
            else
                Its::template backward<phase>(a, states, handed, dc, delta, pass = handed);
            unroll<Cell::columns>([&](auto i) BPTT_ALWAYS { put(rows.delta + i * H, delta[i]); });
            if (first && rows.handed != nullptr) {
                put(rows.handed, handed);
                if constexpr (Cell::has_c) put(rows.whole_dc, dc);
            }
            if constexpr (Cell::passes_h) put(rows.dh, pass);
            if constexpr (Cell::has_c) put(rows.dc, Its::handed_back(a, dc));
        });
    });
}

}  // namespace bptt::BPTT_SET
