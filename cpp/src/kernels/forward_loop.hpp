// THE forward loop.
//
// A chunk of time steps at a time: the input's share of all gates in one product, then step by step the
// recurrent product of a group of rows followed by the cell's pointwise pass while they are in cache. (Of
// small weights a step makes both products at once.) The working rows are the tape's own, or without a tape
// (or for a cell that keeps none) those of a chunk, which each thread has for itself: a line of the cache
// that two threads write to goes back and forth.
#pragma once

#include "kernels/forward_step.hpp"
#include "kernels/plan_now.hpp"
#include "kernels/prepared.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

constexpr Index kForwardChunkBytes = Index{256} << 10;  // of working rows: they stay in L2
constexpr Index kForwardChunkRows = 128;

// Of all rows together, that go through the first half of the cell's pass before they go through the second.
constexpr Index kVectorsAtOnce = 32;

// The products with x and with h are one, step by step, where a panel of both is no larger, so that it stays
// in the nearest cache beside the rows, and all of them are no more. (A tape's rows come from farther away: a
// chunk's projection then has its use, as it fetches them.)
constexpr Index kMostJointPanel = Index{16} << 10;
constexpr Index joint_bytes(bool tape) { return Index{tape ? 64 : 128} << 10; }

template <class Cell, class R>
class ForwardLoop {
public:
    static constexpr StepWork work = forward_work<Cell>;

    // part_steps: the most that a part has; the bits do not depend on it.
    BPTT_SHARED explicit ForwardLoop(const kernels::ForwardArgs<R>& args, Index part_steps = kAllSteps)
        : a_(args),
          T_(args.dims.T),
          N_(args.dims.N),
          D_(args.dims.D),
          H_(args.dims.H),
          row_(Cell::columns * H_),
          own_row_(apart<R>(row_)),
          plan_(plan_now<R>(work, args.dims, args.lengths, args.threads)),
          team_(plan_.threads),
          threads_(team_.threads()),
          by_units_(plan_.split == Split::units && threads_ > 1),
          chunk_(smaller(part_steps, chunk_length())),
          sequences_(args.dims, args.lengths, args.reverse),
          asks_(!by_units_ && !sequences_.given() && bytes() > kLastCache),
          joint_(!asks_ && N_ >= kLeastOfTwo && (D_ + H_) * kPanel<R> * size_of <= kMostJointPanel &&
                 Cell::gates * H_ * (D_ + H_) * size_of <= joint_bytes(args.gates != nullptr)),
          zeros_(H_),
          unit_parts_(by_units_ ? threads_ : 1),
          rows_at_once_(larger<Index>(1, kVectorsAtOnce * Vec<R>::size * unit_parts_ / H_)),
          own_weights_(args.prepared != nullptr ? 0 : unit_parts_, D_, H_, unit_parts_),
          weights_(args.prepared != nullptr
                       ? static_cast<Prepared<Cell, R>*>(args.prepared)->in_parts(unit_parts_)
                       : own_weights_),
          own_(threads_, *this) {
        fill<R>(zeros_.data(), H_, R(0));
    }

    BPTT_SHARED void run() {
        const std::int64_t delay = team_.run([this](int thread, Barrier& barrier) {
            for (Index i = 0; i < parts(); ++i) part(i, thread, barrier);
        });
        if (by_units_) went(plan_, delay);
    }

    // The work in parts, which each thread does in their order: the weights are packed (prepared ones are),
    // then a chunk of steps each. reached: how many steps are done when so many parts are.
    Index parts() const { return 1 + ceil_div(T_, chunk_); }
    Index reached(Index parts) const { return parts <= 1 ? 0 : smaller(T_, (parts - 1) * chunk_); }

    BPTT_SHARED void part(Index i, int thread, Barrier& barrier) const {
        const ForwardWeights<Cell, R>& weights = weights_[by_units_ ? thread : 0];
        if (i == 0) {
            if (a_.prepared != nullptr) return;
            pack(weights, by_units_ ? 0 : thread, by_units_ ? 1 : threads_);
            barrier.wait();
            return;
        }
        const Own& own = own_[thread];
        const Index t0 = reached(i), t1 = reached(i + 1);
        if (!joint()) project_input(t0, t1, weights, own);
        for (Index t = t0; t < t1; ++t) {
            step<0>(t, t0, weights, own, barrier);
            clear_ended(t, own.rows, weights.units);
        }
    }

private:
    static constexpr Index size_of = sizeof(R);

    // What a thread needs for itself; rows: its own ones, or where the units are split all of them.
    struct Own {
        Rows rows;
        Space<R> work;
        Space<const R*> from, input;
        Space<R*> to;
        Own(int thread, const ForwardLoop& loop)
            : rows(loop.by_units_ ? 0 : thread, loop.sequences_, loop.N_, loop.by_units_ ? 1 : loop.threads_),
              work(loop.a_.gates != nullptr ? 0 : loop.work_steps() * rows.count() * loop.own_row_),
              from(loop.chunk_ * rows.count()),
              input(loop.joint() ? smaller(kGroupRows, rows.count()) : 0),
              to(loop.chunk_ * rows.count()) {}
    };

    BPTT_INLINE bool joint() const { return Cell::phases == 1 && joint_; }
    // Of how many steps there are working rows at a time.
    BPTT_INLINE Index work_steps() const { return joint() ? 1 : chunk_; }

    Index chunk_length() const {
        const Index step_bytes = N_ * row_ * static_cast<Index>(sizeof(R));
        return smaller(T_, larger(kForwardChunkBytes / step_bytes, ceil_div(kForwardChunkRows, N_)));
    }

    // At step t, of a tape's by the sequence, else by its place among those that the thread has; t0: where
    // the chunk begins. A later phase takes what all threads made of a row.
    BPTT_INLINE RowsOf<R> working_rows(Index t, Index t0, const Own& own) const {
        if (a_.gates != nullptr) return {a_.gates + place(t) * N_ * row_, row_};
        const Own& whose = Cell::phases > 1 && by_units_ ? own_[0] : own;
        return {whose.work.data() + (joint() ? 0 : t - t0) * whose.rows.count() * own_row_, own_row_};
    }
    BPTT_INLINE Index place(Index t) const { return sequences_.place(t); }
    BPTT_INLINE R* h(Index slot, Index n) const { return a_.h + (slot * N_ + n) * H_; }
    BPTT_INLINE R* c(Index slot, Index n) const { return a_.c + ((a_.keep ? slot * N_ : 0) + n) * H_; }
    // The states that step t starts from: those of before, or zero after a reset.
    BPTT_INLINE bool is_reset(Index t, Index n) const {
        return a_.reset != nullptr && sequences_.is_reset(a_.reset, t, n);
    }
    BPTT_INLINE const R* h_before(Index t, Index n) const {
        return is_reset(t, n) ? zeros_.data() : h(sequences_.slot_before(t, n), n);
    }
    BPTT_INLINE const R* c_before(Index t, Index n) const {
        return is_reset(t, n) ? zeros_.data() : c(sequences_.slot_before(t, n), n);
    }

    void pack(const ForwardWeights<Cell, R>& weights, int part, int parts) const {
        weights.pack(a_.weight_ih, a_.weight_hh, {a_.bias_ih, a_.bias_hh, H_}, part, parts);
    }

    // W_ih x + b for all rows of a chunk.
    void project_input(Index t0, Index t1, const ForwardWeights<Cell, R>& weights, const Own& own) const {
        const R** const from = own.from.data();
        R** const to = own.to.data();
        const bool keep = a_.gates != nullptr;
        Index m = 0;
        for (Index t = t0; t < t1; ++t) {
            const Living living = own.rows.living(t);
            const RowsOf<const R> x{a_.x + place(t) * N_ * D_, D_};
            const RowsOf<R> rows = working_rows(t, t0, own);
            for (Index i = 0; i < living.count; ++i, ++m) {
                const Index n = living.at(i);
                from[m] = x[n];
                to[m] = rows[keep ? n : i];
            }
        }
        const Panels<R>& b = weights.ih.panels();
        product(b, 0, b.count, from, to, m);
    }

    // Where a step's rows stand, and how the states go: rows of H elements.
    struct StepRows {
        RowsOf<R> work;
        const R *h_prev, *c_prev;
        R *h_next, *c_next;
        bool same_before;  // h_prev and c_prev are those of all sequences
        bool keep;
        bptt::Cell cell;
        Index H;
    };
    BPTT_INLINE StepRows step_rows(Index t, Index t0, const Own& own) const {
        const Index before = sequences_.slot_before(t, 0), after = sequences_.slot_after(t);
        return {working_rows(t, t0, own),
                h(before, 0),
                Cell::has_c ? c(before, 0) : nullptr,
                h(after, 0),
                Cell::has_c ? c(after, 0) : nullptr,
                a_.reset == nullptr && sequences_.alike(),
                a_.gates != nullptr,
                a_.cell,
                H_};
    }
    BPTT_INLINE const R* h_before(const StepRows& at, Index t, Index n) const {
        return at.same_before ? at.h_prev + n * at.H : h_before(t, n);
    }

    template <int phase>
    void step(Index t, Index t0, const ForwardWeights<Cell, R>& weights, const Own& own,
              Barrier& barrier) const {
        const Living living = own.rows.living(t);
        const StepRows at = step_rows(t, t0, own);
        const Range units = weights.units;
        const Index at_once = rows_at_once_;
        const R** const from = own.from.data();
        R** const to = own.to.data();
        const Panels<R>& b = weights.hh[phase].panels();
        for (Index i0 = 0; i0 < living.count; i0 += kGroupRows) {
            const Index m = smaller(kGroupRows, living.count - i0);
            for (Index i = 0; i < m; ++i) {
                const Index n = living.at(i0 + i);
                to[i] = at.work[at.keep ? n : i0 + i];
                from[i] = phase == 0 ? h_before(at, t, n) : to[i] + Cell::source_column[phase] * at.H;
            }
            const Order order = order_of(t * ceil_div(living.count, kGroupRows) + i0 / kGroupRows);
            if (joint()) {
                const RowsOf<const R> x{a_.x + place(t) * N_ * D_, D_};
                const R** const input = own.input.data();
                for (Index i = 0; i < m; ++i) input[i] = x[living.at(i0 + i)];
                product_of_two(weights.ih.panels(), b, input, from, to, m);
            } else {
                Coming coming;
                if (phase == 0 && asks_) add_later_rows(t, living.at(i0), m, coming);
                product(b, 0, b.count, from, to, m, order, &coming);
            }
            for (Index i = 0; i < m; i += at_once) {
                const Range some{i0 + i, i0 + smaller(i + at_once, m)};
                for (Index k = some.first; k < some.last; ++k)
                    gates<phase>(at, t, living.at(k), to[k - i0], units);
                if constexpr (phase + 1 == Cell::phases)
                    for (Index k = some.first; k < some.last; ++k)
                        output(at, t, living.at(k), to[k - i0], units);
            }
        }
        if (by_units_) barrier.wait();
        if constexpr (phase + 1 < Cell::phases) step<phase + 1>(t, t0, weights, own, barrier);
    }

    // What is read or written after step t, of m rows from n on: the states of the next step, and what the
    // next chunk's projection takes and makes.
    BPTT_SHARED void add_later_rows(Index t, Index n, Index m, Coming& coming) const {
        if (t + 1 < T_) {
            const Index slot = sequences_.slot_after(t + 1), bytes = m * H_ * size_of;
            coming.add(h(slot, n), bytes);
            if (Cell::has_c && a_.keep) coming.add(c(slot, n), bytes);
        }
        if (t + chunk_ < T_) {
            const Index row = place(t + chunk_) * N_ + n;
            if (a_.gates != nullptr) coming.add(a_.gates + row * row_, m * row_ * size_of);
            coming.add(a_.x + row * D_, m * D_ * size_of);
        }
    }
    // Bytes of all that the call goes through; with a tape, of all that comes before any of it is read again,
    // which is as much in the backward call.
    BPTT_SHARED double bytes() const {
        const Index states = Cell::has_c && a_.keep ? 2 : 1, again = a_.keep ? Cell::kept * H_ + H_ + D_ : 0;
        return static_cast<double>(T_ * N_ * size_of) * static_cast<double>(states * H_ + D_ + again);
    }

    template <int phase>
    BPTT_INLINE void gates(const StepRows& at, Index t, Index n, R* row, Range units) const {
        const R *const h_prev = h_before(at, t, n), *c_prev = h_prev;
        if constexpr (Cell::has_c) c_prev = at.same_before ? at.c_prev + n * at.H : c_before(t, n);
        forward_gates<Cell, phase>(at.cell, at.H, units, at.keep, row, h_prev, c_prev, c_after(at, n));
    }
    BPTT_INLINE void output(const StepRows& at, Index t, Index n, R* row, Range units) const {
        forward_output<Cell>(at.cell, at.H, units, at.keep, row, h_before(at, t, n), at.h_next + n * at.H,
                             c_after(at, n));
    }
    BPTT_INLINE R* c_after(const StepRows& at, Index n) const {
        if constexpr (Cell::has_c) return at.c_next + n * at.H;
        return nullptr;
    }

    // Beyond a sequence's end y is zero.
    void clear_ended(Index t, const Rows& rows, Range units) const {
        for (Index i = rows.alive(t); i < rows.count(); ++i) {
            const Index n = rows.at(i);
            fill<R>(h(sequences_.slot_after(t), n) + units.first, units.count(), R(0));
        }
    }

    const kernels::ForwardArgs<R>& a_;
    const Index T_, N_, D_, H_, row_, own_row_;
    const Plan plan_;
    const Team team_;
    const int threads_;
    const bool by_units_;
    const Index chunk_;
    const Sequences sequences_;
    const bool asks_;   // for what comes after a step, while it is made
    const bool joint_;  // the products with x and with h
    const Space<R> zeros_;
    const int unit_parts_;
    const Index rows_at_once_;
    const Each<ForwardWeights<Cell, R>> own_weights_;
    const Each<ForwardWeights<Cell, R>>& weights_;
    const Each<Own> own_;
};

}  // namespace bptt::BPTT_SET
