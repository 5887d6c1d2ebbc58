// THE backward loop.
//
// A chunk of time steps at a time, from the last to the first: step by step the cell's pointwise pass gives
// delta, and its product with W_hh hands the gradient back to the step before. Then, while the chunk's
// deltas are in cache, the products outside the loop: dx, and the chunk's share of the weights' gradients.
// Deltas live in rows of their own, so the tape stays as it was.
#pragma once

#include "kernels/cells/cell.hpp"
#include "kernels/layout.hpp"
#include "kernels/outer_sum.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

// Rows of a chunk: the depth of the weight gradients' products.
constexpr Index kBackwardChunkRows = 512;

template <class Cell, class R>
class BackwardLoop {
public:
    explicit BackwardLoop(const kernels::BackwardArgs<R>& args)
        : a_(args),
          T_(args.dims.T),
          N_(args.dims.N),
          D_(args.dims.D),
          H_(args.dims.H),
          row_(Cell::columns * H_),
          plan_(make_plan<R>(args.dims, Cell::columns, Cell::phases, args.threads)),
          team_(plan_.threads),
          threads_(team_.threads()),
          by_units_(plan_.split == Split::units && threads_ > 1),
          chunk_(smaller(T_, larger<Index>(1, kBackwardChunkRows / N_))),
          sequences_(args.dims, args.lengths, args.reverse),
          zeros_(larger(H_, D_)),
          delta_(chunk_ * N_ * row_),
          weights_(by_units_ ? threads_ : 1, *this),
          ih_(column_run(Range{0, D_}), ih_window<Cell>().count * H_),
          right_x_(D_, chunk_ * N_),
          right_source_(Cell::phases, H_, chunk_ * N_),
          own_(threads_, *this) {
        fill<R>(zeros_.data(), larger(H_, D_), R(0));
        make_blocks();
    }

    void run() {
        team_.run([this](int thread, Barrier& barrier) { loop(thread, barrier); });
    }

private:
    static constexpr int kGates = Cell::gates;

    static Runs column_run(Range columns) {
        Runs runs;
        runs.add({columns.first, columns.first, columns.count()}, false);
        return runs;
    }

    // W_hh as the backward product needs it, for all units or a thread's, a phase each.
    struct Weights {
        Range units;
        struct Phase : PackedWeights<R> {
            Phase(int phase, Index H, Range units)
                : PackedWeights<R>(column_run(units), hh_window<Cell>(phase).count * H) {}
        };
        Each<Phase> hh;

        Weights(int thread, const BackwardLoop& loop)
            : units(loop.by_units_ ? units_of<R>(loop.H_, thread, loop.threads_) : Range{0, loop.H_}),
              hh(Cell::phases, loop.H_, units) {}

        // What the product adds to is what the cell passed on, or nothing.
        void pack(const BackwardLoop& loop, const R** rows, int part, int parts) const {
            for (int p = 0; p < Cell::phases; ++p) {
                rows_of_window<Cell>(Cell::hh_column, hh_window<Cell>(p), loop.H_, loop.a_.weight_hh, loop.H_,
                                     rows);
                hh[p].pack_straight(rows, part, parts);
                const bool from_zero = p > 0 || !Cell::passes_h;
                hh[p].start_from([](Index) { return R(0); }, [&](Index) { return from_zero; }, part, parts);
            }
        }
    };

    // What a thread needs for itself.
    struct Own {
        Space<R> packed{larger(kRowSpace<R>, kColumnSpace<R>)};
        Space<const R*> delta, right;
        Space<R*> to;
        Own(int, const BackwardLoop& loop)
            : delta(loop.chunk_ * loop.N_),
              right(larger(loop.chunk_ * loop.N_, kGates * loop.H_)),
              to(loop.chunk_ * loop.N_) {}
    };

    struct Right : RightOperand<R> {
        Right(int, Index columns, Index rows) : RightOperand<R>(columns, rows) {}
    };

    BPTT_INLINE R* delta_row(Index t, Index n) const { return delta_.data() + (t % chunk_ * N_ + n) * row_; }
    BPTT_INLINE Index place(Index t, Index n) const { return sequences_.place(t, n); }
    BPTT_INLINE const R* gate_row(Index t, Index n) const { return a_.gates + (place(t, n) * N_ + n) * row_; }
    BPTT_INLINE bool is_reset(Index t, Index n) const {
        return a_.reset != nullptr && sequences_.is_reset(a_.reset, t, n);
    }
    BPTT_INLINE const R* h(Index slot, Index n) const { return a_.h + (slot * N_ + n) * H_; }
    BPTT_INLINE const R* c(Index slot, Index n) const { return a_.c + (slot * N_ + n) * H_; }
    BPTT_INLINE const R* h_before(Index t, Index n) const {
        return is_reset(t, n) ? zeros_.data() : h(sequences_.slot_before(t, n), n);
    }
    BPTT_INLINE const R* c_before(Index t, Index n) const {
        return is_reset(t, n) ? zeros_.data() : c(sequences_.slot_before(t, n), n);
    }

    // Neighbouring columns of delta that are multiplied with the same right operands, and where the
    // results go.
    void make_blocks() {
        for (int column = 0; column < Cell::columns; ++column) {
            const int ih = gate_of_column<Cell>(Cell::ih_column, column);
            const int hh = gate_of_column<Cell>(Cell::hh_column, column);
            if (ih < 0 && hh < 0) continue;
            const int phase = hh < 0 ? -1 : Cell::phase_of[hh];
            const int kind = (ih < 0 ? 0 : 1) + 2 * (phase + 1);
            if (block_count_ > 0 && kind == last_kind_ && blocks_[block_count_ - 1].column +
                                                             blocks_[block_count_ - 1].count == column * H_) {
                blocks_[block_count_ - 1].count += H_;  // gates in a row have their weights in a row
                continue;
            }
            last_kind_ = kind;
            OuterBlock<R>& block = blocks_[block_count_++];
            block = {column * H_, H_, {}, 0};
            if (hh >= 0)
                block.target[block.targets++] = {&right_source_[phase], a_.dweight_hh + hh * H_ * H_, H_,
                                                 a_.dbias_hh != nullptr ? a_.dbias_hh + hh * H_ : nullptr};
            if (ih >= 0)
                block.target[block.targets++] = {&right_x_, a_.dweight_ih + ih * H_ * D_, D_,
                                                 a_.dbias_ih != nullptr ? a_.dbias_ih + ih * H_ : nullptr};
        }
    }

    void loop(int thread, Barrier& barrier) const {
        const Weights& weights = weights_[by_units_ ? thread : 0];
        const Own& own = own_[thread];
        const Rows rows = by_units_ ? Rows::all(sequences_, N_)
                                    : Rows::of_thread(sequences_, N_, thread, threads_);
        weights.pack(*this, own.right.data(), by_units_ ? 0 : thread, by_units_ ? 1 : threads_);
        rows_of_window<Cell>(Cell::ih_column, ih_window<Cell>(), H_, a_.weight_ih, D_, own.right.data());
        if (a_.dx != nullptr) ih_.pack_straight(own.right.data(), thread, threads_);
        ih_.start_from([](Index) { return R(0); }, [](Index) { return true; }, thread, threads_);
        clear_results(thread);
        barrier.wait();

        for (Index t1 = T_; t1 > 0;) {
            const Index t0 = (t1 - 1) / chunk_ * chunk_;
            for (Index t = t1 - 1; t >= t0; --t) {
                step<Cell::phases - 1>(t, rows, weights, own, barrier);
                stop_at_resets(t, rows, weights.units);
            }
            outside(t0, t1, thread, own, barrier);
            t1 = t0;
        }
    }

    template <int phase>
    void step(Index t, const Rows& rows, const Weights& weights, const Own& own, Barrier& barrier) const {
        constexpr Window window = hh_window<Cell>(phase);
        const Index alive = rows.alive(t);
        const Panels<R>& b = weights.hh[phase].panels();
        for (Index i0 = 0; i0 < alive; i0 += kGroupRows) {
            const Index m = smaller(kGroupRows, alive - i0);
            for (Index i = 0; i < m; ++i) pointwise<phase>(t, rows.at(i0 + i), weights.units);
            if (!by_units_) hand_back<phase>(t, rows, i0, m, b, own, window);
        }
        if (by_units_) {
            barrier.wait();  // the product needs the deltas of all units
            for (Index i0 = 0; i0 < alive; i0 += kGroupRows)
                hand_back<phase>(t, rows, i0, smaller(kGroupRows, alive - i0), b, own, window);
        }
        if constexpr (phase > 0) step<phase - 1>(t, rows, weights, own, barrier);
    }

    // delta @ W_hh: into dh of the step before, or into the column of the phase's source.
    template <int phase>
    BPTT_INLINE void hand_back(Index t, const Rows& rows, Index i0, Index m, const Panels<R>& b, const Own& own,
                               Window window) const {
        for (Index i = 0; i < m; ++i) {
            const Index n = rows.at(i0 + i);
            R* const delta = delta_row(t, n);
            own.delta[i] = delta + window.first * H_;
            own.to[i] = phase == 0 ? a_.dh + n * H_ : delta + Cell::source_column[phase] * H_;
        }
        product(b, 0, b.count, own.delta.data(), own.to.data(), m, own.packed.data());
    }

    template <int phase>
    BPTT_INLINE void pointwise(Index t, Index n, Range units) const {
        constexpr Index W = Vec<R>::size;
        const Index after = sequences_.slot_after(t, n);
        const Step step{delta_row(t, n),
                        Cell::kept > 0 ? gate_row(t, n) : nullptr,
                        h_before(t, n),
                        h(after, n),
                        Cell::has_c ? c_before(t, n) : nullptr,
                        Cell::has_c ? c(after, n) : nullptr,
                        a_.dy != nullptr ? a_.dy + (place(t, n) * N_ + n) * H_ : zeros_.data(),
                        a_.dh + n * H_,
                        Cell::has_c ? a_.dc + n * H_ : nullptr};
        Index j = units.first;
        for (; j + W <= units.last; j += W)
            lanes<phase>(j, step, [](const R* p) { return Lanes<R>(load(p)); },
                         [](R* p, Lanes<R> v) { store(p, v.v); });
        if (j < units.last) {
            const int rest = static_cast<int>(units.last - j);
            lanes<phase>(j, step, [rest](const R* p) { return Lanes<R>(load_first(p, rest)); },
                         [rest](R* p, Lanes<R> v) { store_first(p, v.v, rest); });
        }
    }

    // The rows that a step's pointwise pass reads and writes.
    struct Step {
        R* delta;
        const R *gates, *h_prev, *h, *c_prev, *c, *dy;
        R *dh, *dc;
    };

    template <int phase, class Load, class Store>
    BPTT_INLINE void lanes(Index j, const Step& s, Load get, Store put) const {
        constexpr bool first = phase + 1 == Cell::phases;  // the first to run
        Lanes<R> a[Cell::columns], delta[Cell::columns], dc, pass;
        if constexpr (Cell::kept > 0) unroll<Cell::columns>([&](auto i) { a[i] = get(s.gates + i * H_ + j); });
        unroll<Cell::columns>([&](auto i) { delta[i] = first ? Lanes<R>(R(0)) : get(s.delta + i * H_ + j); });
        States<R> states;
        states.h_prev = get(s.h_prev + j);
        states.h = get(s.h + j);
        if constexpr (Cell::has_c) {
            states.c_prev = get(s.c_prev + j);
            states.c = get(s.c + j);
            dc = get(s.dc + j);
        }
        // dh: what the loss at t sends and what step t+1 handed back; later phases find what was passed.
        const Lanes<R> handed = get(s.dh + j);
        if constexpr (first)
            Cell::template backward<phase>(a, states, get(s.dy + j) + handed, dc, delta, pass);
        else
            Cell::template backward<phase>(a, states, handed, dc, delta, pass = handed);
        unroll<Cell::columns>([&](auto i) { put(s.delta + i * H_ + j, delta[i]); });
        if constexpr (Cell::passes_h) put(s.dh + j, pass);
        if constexpr (Cell::has_c) put(s.dc + j, dc);
    }

    // Nothing goes back through a reset.
    void stop_at_resets(Index t, const Rows& rows, Range units) const {
        if (a_.reset == nullptr) return;
        for (Index i = 0, alive = rows.alive(t); i < alive; ++i) {
            const Index n = rows.at(i);
            if (!is_reset(t, n)) continue;
            fill<R>(a_.dh + n * H_ + units.first, units.count(), R(0));
            if constexpr (Cell::has_c) fill<R>(a_.dc + n * H_ + units.first, units.count(), R(0));
        }
    }

    // dx, dW_ih, dW_hh and the biases' gradients of a chunk.
    void outside(Index t0, Index t1, int thread, const Own& own, Barrier& barrier) const {
        Index K = 0;
        const auto each_row = [&](auto&& body) {
            Index k = 0;
            for (Index t = t0; t < t1; ++t)
                for (Index i = 0, alive = sequences_.alive(t); i < alive; ++i, ++k) body(k, t, sequences_.at(i));
            return k;
        };
        K = each_row([&](Index k, Index t, Index n) { own.right[k] = a_.x + (place(t, n) * N_ + n) * D_; });
        right_x_.pack(own.right.data(), K, thread, threads_);
        each_row([&](Index k, Index t, Index n) { own.right[k] = h_before(t, n); });
        right_source_[0].pack(own.right.data(), K, thread, threads_);
        for (int p = 1; p < Cell::phases; ++p) {
            each_row([&](Index k, Index t, Index n) {
                own.right[k] = gate_row(t, n) + Cell::source_column[p] * H_;
            });
            right_source_[p].pack(own.right.data(), K, thread, threads_);
        }
        barrier.wait();  // deltas and operands of all threads are there
        each_row([&](Index k, Index t, Index n) { own.delta[k] = delta_row(t, n); });
        outer_sum(blocks_, block_count_, own.delta.data(), K, thread, threads_, own.packed.data());
        if (a_.dx != nullptr) {
            constexpr Window window = ih_window<Cell>();
            each_row([&](Index k, Index t, Index n) {
                own.delta[k] = delta_row(t, n) + window.first * H_;
                own.to[k] = a_.dx + (place(t, n) * N_ + n) * D_;
            });
            const Range mine = share(K, thread, threads_);
            const Panels<R>& b = ih_.panels();
            product(b, 0, b.count, own.delta.data() + mine.first, own.to.data() + mine.first, mine.count(),
                    own.packed.data());
            for (Index t = t0; t < t1; ++t)
                for (Index i = sequences_.alive(t) + thread; i < N_; i += threads_)
                    fill<R>(a_.dx + (t * N_ + sequences_.at(i)) * D_, D_, R(0));
        }
        barrier.wait();  // the next chunk writes over deltas and operands
    }

    void clear_results(int thread) const {
        const auto clear = [&](R* to, Index count) {
            if (to == nullptr) return;
            const Range mine = share(count, thread, threads_);
            fill<R>(to + mine.first, mine.count(), R(0));
        };
        clear(a_.dweight_ih, kGates * H_ * D_);
        clear(a_.dweight_hh, kGates * H_ * H_);
        clear(a_.dbias_ih, kGates * H_);
        clear(a_.dbias_hh, kGates * H_);
    }

    const kernels::BackwardArgs<R>& a_;
    const Index T_, N_, D_, H_, row_;
    const Plan plan_;
    const Team team_;
    const int threads_;
    const bool by_units_;
    const Index chunk_;
    const Sequences sequences_;
    const Space<R> zeros_, delta_;
    const Each<Weights> weights_;
    const PackedWeights<R> ih_;
    const RightOperand<R> right_x_;
    const Each<Right> right_source_;
    const Each<Own> own_;
    OuterBlock<R> blocks_[Cell::columns];
    int block_count_ = 0, last_kind_ = -1;
};

}  // namespace bptt::BPTT_SET
