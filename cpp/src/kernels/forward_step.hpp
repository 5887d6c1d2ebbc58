// What a forward step is made of: the packed weights, and the cell's pointwise pass over a row.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/cells/cell.hpp"
#include "kernels/layout.hpp"

namespace bptt::BPTT_SET {

// What a weight matrix's rows start from; either bias may be null. The input's side starts from both, but
// where a gate's sides stand apart each from its own.
template <class Cell, class R>
struct Biases {
    const R *ih, *hh;
    Index H;

    R input(Index row) const { return value(ih, row) + (apart(row) ? R(0) : value(hh, row)); }
    R hidden(Index row) const { return value(hh, row); }
    bool apart(Index row) const { return sides_apart<Cell>(row / H); }

private:
    static R value(const R* bias, Index row) { return bias != nullptr ? bias[row] : R(0); }
};

// Of the gates in one phase, W_hh for some units.
template <class Cell, class R>
struct PhaseWeights : PackedWeights<R> {
    PhaseWeights(int phase, Index H, Range units)
        : PackedWeights<R>(gate_runs<Cell>(Cell::hh_column, H, units,
                                           [phase](int gate) { return Cell::phase_of[gate] == phase; }),
                           H) {}

    BPTT_SHARED void pack(const R* weight_hh, const Biases<Cell, R>& bias, int part, int parts) const {
        this->pack_transposed(weight_hh, part, parts);
        this->start_from([&](Index row) { return bias.hidden(row); },
                         [&](Index row) { return bias.apart(row); }, part, parts);
    }
};

// The weights of one part of the units, packed for the forward products.
template <class Cell, class R>
struct ForwardWeights {
    Range units;
    PackedWeights<R> ih;
    Each<PhaseWeights<Cell, R>> hh;

    BPTT_SHARED ForwardWeights(int unit_part, Index D, Index H, int unit_parts)
        : units(units_of<R>(H, unit_part, unit_parts)),
          ih(gate_runs<Cell>(Cell::ih_column, H, units, [](int) { return true; }), D),
          hh(Cell::phases, H, units) {}

    // Packs a share.
    BPTT_SHARED void pack(const R* weight_ih, const R* weight_hh, const Biases<Cell, R>& bias, int part,
                          int parts) const {
        ih.pack_transposed(weight_ih, part, parts);
        ih.start_from([&](Index row) { return bias.input(row); }, [](Index) { return true; }, part, parts);
        for (int p = 0; p < Cell::phases; ++p) hh[p].pack(weight_hh, bias, part, parts);
    }
};

// The cell's pass over the units of one row after the product of a phase. keep: the row is a tape's. h_next
// may be h_prev, and c_next c_prev.
//
// It is in two halves, the second of them in the last phase: gates (and c), then h of them. Where h waits for
// gates the two are a chain of activations; in loops of their own the processor has several vectors of each
// under way, or several rows.
template <class Cell, int phase, class R>
BPTT_INLINE void forward_gates(bptt::Cell which, Index H, Range units, bool keep, R* row, const R* h_prev,
                               const R* c_prev, R* c_next) {
    constexpr bool makes_c = phase + 1 == Cell::phases && Cell::has_c;
    constexpr unsigned writes = Cell::writes[phase];
    static_assert(!makes_c || writes != 0, "who makes c?");
    if constexpr (writes != 0)
        Cell::choose(which, [&](auto its) BPTT_ALWAYS {
            using Its = decltype(its);
            for_each_element<R, Cell::columns + 4>(units, [&](int, auto get, auto put) BPTT_ALWAYS {
                Lanes<R> a[Cell::columns], c_now;
                unroll<Cell::columns>([&](auto i) BPTT_ALWAYS { a[i] = get(row + i * H); });
                const Lanes<R> h_old = get(h_prev);
                Its::template forward<phase>(a, h_old, Cell::has_c ? get(c_prev) : h_old, c_now);
                unroll<Cell::columns>([&](auto i) BPTT_ALWAYS {
                    if constexpr ((writes >> i & 1u) != 0)
                        if (keep || (Cell::read_again >> i & 1u) != 0) put(row + i * H, a[i]);
                });
                if constexpr (makes_c) put(c_next, c_now);
            });
        });
}

template <class Cell, class R>
BPTT_INLINE void forward_output(bptt::Cell which, Index H, Range units, bool keep, R* row, const R* h_prev,
                                R* h_next, const R* c_next) {
    Cell::choose(which, [&](auto its) BPTT_ALWAYS {
        using Its = decltype(its);
        for_each_element<R, Cell::columns + 4>(units, [&](int, auto get, auto put) BPTT_ALWAYS {
            Lanes<R> a[Cell::columns];
            unroll<Cell::columns>([&](auto i) BPTT_ALWAYS { a[i] = get(row + i * H); });
            const Lanes<R> h_old = get(h_prev);
            const Lanes<R> h_now = Its::output(a, h_old, Cell::has_c ? get(c_next) : h_old);
            unroll<Cell::columns>([&](auto i) BPTT_ALWAYS {
                if constexpr ((Cell::output_writes >> i & 1u) != 0)
                    if (keep) put(row + i * H, a[i]);
            });
            put(h_next, h_now);
        });
    });
}

// Both halves of a row that is nobody's tape. One vector or two have them at once: nothing then goes through
// memory in between, which is a part of the way from one step to the next where there is a single row.
template <class Cell, int phase, class R>
BPTT_INLINE void forward_pointwise(bptt::Cell which, Index H, R* row, const R* h_prev, const R* c_prev,
                                   R* h_next, R* c_next) {
    constexpr bool last = phase + 1 == Cell::phases;
    const Range all_units{0, H};
    if (!last || Cell::writes[phase] == 0 || H > 2 * Vec<R>::size) {
        forward_gates<Cell, phase>(which, H, all_units, false, row, h_prev, c_prev, c_next);
        if constexpr (last) forward_output<Cell>(which, H, all_units, false, row, h_prev, h_next, c_next);
        return;
    }
    Cell::choose(which, [&](auto its) BPTT_ALWAYS {
        using Its = decltype(its);
        for_each_vector<R>(all_units, [&](int, auto get, auto put) BPTT_ALWAYS {
            Lanes<R> a[Cell::columns], c_now;
            unroll<Cell::columns>([&](auto i) BPTT_ALWAYS { a[i] = get(row + i * H); });
            const Lanes<R> h_old = get(h_prev);
            Its::template forward<phase>(a, h_old, Cell::has_c ? get(c_prev) : h_old, c_now);
            const Lanes<R> h_now = Its::output(a, h_old, Cell::has_c ? c_now : h_old);
            if constexpr (Cell::has_c) put(c_next, c_now);
            put(h_next, h_now);
        });
    });
}

}  // namespace bptt::BPTT_SET
