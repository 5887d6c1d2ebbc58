// THE backward loop.
//
// A chunk of time steps at a time, from the last to the first: step by step the cell's pointwise pass gives
// delta, and its product with W_hh hands the gradient back to the step before. Then, while the chunk's
// deltas are in cache, the products outside the loop: dx, and the chunk's share of the weights' gradients.
// Deltas live in rows of their own, so the tape stays as it was.
//
// What goes back are rows of gradient: one for each sequence, or as the ledger (ledger_loop.hpp) has it one
// for each sequence and lag. Which sequence a row belongs to and what it gets from the losses its `Lags` say.
#pragma once

#include "kernels/cells/cell.hpp"
#include "kernels/layout.hpp"
#include "kernels/outer_sum.hpp"
#include "kernels/step_norms.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

// Rows of a chunk: the depth of the weight gradients' products.
constexpr Index kBackwardChunkRows = 512;

// One row of gradient for each sequence, and all losses in it.
struct NoLags {
    static constexpr bool any = false;
    using Rows = BPTT_SET::Rows;
    template <class R>
    using Args = kernels::BackwardArgs<R>;

    template <class R>
    explicit NoLags(const Args<R>&) {}
    template <class Cell, class R>
    static Plan plan(const Args<R>& args) {
        return make_plan<R>(args.dims, args.lengths, Cell::columns, Cell::phases, args.threads);
    }
    template <class R>
    static Index chunk(const Args<R>& args) {
        return smaller(args.dims.T, larger<Index>(1, kBackwardChunkRows / args.dims.N));
    }
    static Index rows(Index N) { return N; }                         // of gradient, a step
    static Index listed(Index chunk, Index N) { return chunk * N; }  // at one time
    BPTT_INLINE static Index sequence(Index row) { return row; }
};

template <class Cell, class R, class Lags = NoLags>
class BackwardLoop {
public:
    using Args = typename Lags::template Args<R>;
    using Rows = typename Lags::Rows;

    BPTT_SHARED explicit BackwardLoop(const Args& args)
        : a_(args),
          lags_(args),
          T_(args.dims.T),
          N_(args.dims.N),
          D_(args.dims.D),
          H_(args.dims.H),
          row_(Cell::columns * H_),
          rows_(lags_.rows(N_)),
          plan_(Lags::template plan<Cell, R>(args)),
          team_(plan_.threads),
          threads_(team_.threads()),
          by_units_(plan_.split == Split::units && threads_ > 1),
          chunk_(Lags::chunk(args)),
          sequences_(args.dims, args.lengths, args.reverse),
          zeros_(larger(H_, D_)),
          delta_(chunk_ * rows_ * row_),
          weights_(by_units_ ? threads_ : 1, *this),
          ih_(column_run(Range{0, D_}), ih_window<Cell>().count * H_),
          right_x_(D_, chunk_ * N_),
          right_source_(Cell::phases, H_, chunk_ * N_),
          own_(threads_, *this),
          block_count_(block_count()),
          trace_(trace_of(args)),
          steps_(trace_.norms != nullptr ? 1 : 0, trace_, args.dims, blocks_, block_count_, &right_x_, chunk_,
                 threads_) {
        fill<R>(zeros_.data(), larger(H_, D_), R(0));
    }

    BPTT_SHARED void run() {
        team_.run([this](int thread, Barrier& barrier) { loop(thread, barrier); });
    }

protected:
    static constexpr int kGates = Cell::gates;

    // A ledger has blocks of its own, and leaves no trace.
    int block_count() {
        if constexpr (Lags::any)
            return 0;
        else
            return make_blocks();
    }

    static kernels::TraceArgs<R> trace_of(const Args& args) {
        if constexpr (Lags::any)
            return {};
        else
            return args.trace;
    }

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
                if (p > 0 || !Cell::passes_h) hh[p].start_from_zero(part, parts);
            }
        }
    };

    // What a thread needs for itself.
    struct Own {
        Space<R> packed{larger(kRowSpace<R>, kColumnSpace<R>)};
        Space<const R*> delta, right;
        Space<R*> to;
        Own(int, const BackwardLoop& loop)
            : delta(loop.lags_.listed(loop.chunk_, loop.N_)),
              right(larger(loop.chunk_ * loop.N_, kGates * loop.H_)),
              to(loop.lags_.listed(loop.chunk_, loop.N_)) {}
    };

    struct Right : RightOperand<R> {
        Right(int, Index its_columns, Index rows) : RightOperand<R>(its_columns, rows) {}
    };

    // row: of gradient; n: its sequence.
    BPTT_INLINE R* delta_row(Index t, Index row) const {
        return delta_.data() + (t % chunk_ * rows_ + row) * row_;
    }
    BPTT_INLINE const R* dy_row(Index t, Index n, Index row) const {
        if (a_.dy == nullptr) return zeros_.data();
        if constexpr (Lags::any) {
            const Index from = lags_.dy_row(t, n, row);
            return from < 0 ? zeros_.data() : a_.dy + from * H_;
        }
        return a_.dy + (place(t, n) * N_ + n) * H_;
    }
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
    // results go. Returns how many.
    int make_blocks() {
        int made = 0, last_kind = -1;
        for (int column = 0; column < Cell::columns; ++column) {
            const int ih = gate_of_column<Cell>(Cell::ih_column, column);
            const int hh = gate_of_column<Cell>(Cell::hh_column, column);
            if (ih < 0 && hh < 0) continue;
            const int phase = hh < 0 ? -1 : Cell::phase_of[hh];
            const int kind = (ih < 0 ? 0 : 1) + 2 * (phase + 1);
            if (made > 0 && kind == last_kind &&
                blocks_[made - 1].column + blocks_[made - 1].count == column * H_) {
                blocks_[made - 1].count += H_;  // gates in a row have their weights in a row
                continue;
            }
            last_kind = kind;
            OuterBlock<R>& block = blocks_[made++];
            block = {column * H_, H_, {}, 0};
            if (hh >= 0)
                block.target[block.targets++] = {&right_source_[phase], a_.dweight_hh + hh * H_ * H_, H_,
                                                 a_.dbias_hh != nullptr ? a_.dbias_hh + hh * H_ : nullptr};
            if (ih >= 0)
                block.target[block.targets++] = {&right_x_, a_.dweight_ih + ih * H_ * D_, D_,
                                                 a_.dbias_ih != nullptr ? a_.dbias_ih + ih * H_ : nullptr};
        }
        return made;
    }

    void loop(int thread, Barrier& barrier) const {
        const Weights& weights = weights_[by_units_ ? thread : 0];
        const Own& own = own_[thread];
        const Rows rows =
            by_units_ ? Rows::all(sequences_, N_) : Rows::of_thread(sequences_, N_, thread, threads_);
        weights.pack(*this, own.right.data(), by_units_ ? 0 : thread, by_units_ ? 1 : threads_);
        rows_of_window<Cell>(Cell::ih_column, ih_window<Cell>(), H_, a_.weight_ih, D_, own.right.data());
        if (a_.dx != nullptr) ih_.pack_straight(own.right.data(), thread, threads_);
        ih_.start_from_zero(thread, threads_);
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
            if constexpr (phase + 1 == Cell::phases) begin(t, rows, i0, m, weights.units);
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

    // Before a step's pointwise pass, while dh and dc are what the step after handed back.
    BPTT_INLINE void begin(Index t, const Rows& rows, Index i0, Index m, Range units) const {
        if constexpr (Lags::any) {
            for (Index i = 0; i < m; ++i) {
                const Index row = rows.at(i0 + i), n = lags_.sequence(row);
                lags_.begin(t, row, dy_row(t, n, row), a_.dh + row * H_,
                            Cell::has_c ? a_.dc + row * H_ : nullptr, H_);
            }
        } else if (trace_.recurrent != nullptr) {
            for (Index i = 0; i < m; ++i) note_handed(t, rows.at(i0 + i), units);
        }
    }

    // Writes down what step t+1 handed back, and dL/dc_t.
    BPTT_SHARED void note_handed(Index t, Index n, Range units) const {
        const Index at = (t * N_ + n) * H_;
        const R* const dh = a_.dh + n * H_;
        for (Index j = units.first; j < units.last; ++j) trace_.recurrent[at + j] = dh[j];
        if constexpr (Cell::has_c) {
            if (trace_.c == nullptr) return;
            const R *dy = dy_row(t, n, n), *gates = gate_row(t, n), *c_now = c(t + 1, n),
                    *dc = a_.dc + n * H_;
            for_each_vector<R>(units, [&](int, auto get, auto put) {
                Lanes<R> a[Cell::columns];
                unroll<Cell::columns>([&](auto i) { a[i] = get(gates + i * H_); });
                put(trace_.c + at, Cell::whole_dc(a, get(c_now), get(dy) + get(dh), get(dc)));
            });
        }
    }

    // delta @ W_hh: into dh of the step before, or into the column of the phase's source.
    template <int phase>
    BPTT_INLINE void hand_back(Index t, const Rows& rows, Index i0, Index m, const Panels<R>& b,
                               const Own& own, Window window) const {
        for (Index i = 0; i < m; ++i) {
            const Index row = rows.at(i0 + i);
            R* const delta = delta_row(t, row);
            own.delta[i] = delta + window.first * H_;
            own.to[i] = phase == 0 ? a_.dh + row * H_ : delta + Cell::source_column[phase] * H_;
        }
        if constexpr (Lags::any && Cell::has_c) {
            if (lags_.only_c()) {
                for (Index i = 0; i < m; ++i) fill<R>(own.to[i], H_, R(0));
                return;
            }
        }
        product(b, 0, b.count, own.delta.data(), own.to.data(), m, own.packed.data());
    }

    template <int phase>
    BPTT_INLINE void pointwise(Index t, Index row, Range units) const {
        constexpr Index W = Vec<R>::size;
        const Index n = lags_.sequence(row);
        const Index after = sequences_.slot_after(t, n);
        const Step step{delta_row(t, row),
                        Cell::kept > 0 ? gate_row(t, n) : nullptr,
                        h_before(t, n),
                        h(after, n),
                        Cell::has_c ? c_before(t, n) : nullptr,
                        Cell::has_c ? c(after, n) : nullptr,
                        dy_row(t, n, row),
                        a_.dh + row * H_,
                        Cell::has_c ? a_.dc + row * H_ : nullptr};
        Index j = units.first;
        for (; j + W <= units.last; j += W)
            lanes<phase>(
                j, step, [](const R* p) { return Lanes<R>(load(p)); },
                [](R* p, Lanes<R> v) { store(p, v.v); });
        if (j < units.last) {
            const int rest = static_cast<int>(units.last - j);
            lanes<phase>(
                j, step, [rest](const R* p) { return Lanes<R>(load_first(p, rest)); },
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
        if constexpr (Cell::kept > 0)
            unroll<Cell::columns>([&](auto i) { a[i] = get(s.gates + i * H_ + j); });
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
            const Index row = rows.at(i);
            if (!is_reset(t, lags_.sequence(row))) continue;
            fill<R>(a_.dh + row * H_ + units.first, units.count(), R(0));
            if constexpr (Cell::has_c) fill<R>(a_.dc + row * H_ + units.first, units.count(), R(0));
        }
    }

    // dx, dW_ih, dW_hh and the biases' gradients of a chunk.
    void outside(Index t0, Index t1, int thread, const Own& own, Barrier& barrier) const {
        Index K = 0;
        const auto each_row = [&](auto&& body) {
            Index k = 0;
            for (Index t = t0; t < t1; ++t)
                for (Index i = 0, alive = sequences_.alive(t); i < alive; ++i, ++k)
                    body(k, t, sequences_.at(i));
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
        if (trace_.norms != nullptr)
            sum_by_step(t0, t1, K, thread, own, barrier);
        else
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

    // outer_sum, and |dW(t)| of each step, and where asked for the steps' shares and delta.
    BPTT_SHARED void sum_by_step(Index t0, Index t1, Index K, int thread, const Own& own,
                                 Barrier& barrier) const {
        const StepNorms<R>& steps = steps_[0];
        if (steps.by_product()) {
            steps.sum(
                own.delta.data(), K, t0, t1, [this](Index t) { return sequences_.alive(t); }, thread,
                threads_, own.packed.data());
            barrier.wait();
        } else {
            outer_sum(blocks_, block_count_, own.delta.data(), K, thread, threads_, own.packed.data());
        }
        for (Index t = t0 + thread; t < t1; t += threads_) {
            if (steps.by_product()) {
                steps.note(t, t0);
            } else {
                const Index m = sequences_.alive(t);
                for (Index i = 0; i < m; ++i) own.delta[i] = delta_row(t, sequences_.at(i));
                const auto right = [&](int b, int i, Index r) {
                    const Index n = sequences_.at(r);
                    const RightOperand<R>* operand = blocks_[b].target[i].right;
                    return operand == &right_x_ ? a_.x + (t * N_ + n) * D_ : source(t, n, operand);
                };
                steps.by_pairs(t, own.delta.data(), m, right, own.right.data(), thread);
            }
            if (trace_.delta != nullptr) note_delta(t);
        }
    }

    void note_delta(Index t) const {
        for (Index i = 0, alive = sequences_.alive(t); i < alive; ++i) {
            const Index n = sequences_.at(i);
            for (int g = 0; g < kGates; ++g) {
                const R* const from = delta_row(t, n) + Cell::hh_column[g] * H_;
                R* const to = trace_.delta + ((t * N_ + n) * kGates + g) * H_;
                for (Index j = 0; j < H_; ++j) to[j] = from[j];
            }
        }
    }

    // The row that a step's W_hh was multiplied with, by the operand that packs such rows.
    BPTT_INLINE const R* source(Index t, Index n, const RightOperand<R>* operand) const {
        for (int p = 1; p < Cell::phases; ++p)
            if (operand == &right_source_[p]) return gate_row(t, n) + Cell::source_column[p] * H_;
        return h_before(t, n);
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

    const Args& a_;
    const Lags lags_;
    const Index T_, N_, D_, H_, row_, rows_;
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
    const int block_count_;
    const kernels::TraceArgs<R> trace_;
    const Each<StepNorms<R>> steps_;  // one where they are wanted
};

}  // namespace bptt::BPTT_SET
