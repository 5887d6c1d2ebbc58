// THE backward loop.
//
// A chunk of time steps at a time, from the last to the first: step by step the cell's pointwise pass gives
// delta, and its product with W_hh hands the gradient back to the step before. Then, while the chunk's
// deltas are in cache, the products outside the loop: dx, and the chunk's share of the weights' gradients.
// Deltas live in rows of their own, so the tape stays as it was. dx may stand where dy stood: a step's dy is
// read before its dx is written.
//
// What goes back are rows of gradient: one for each sequence, or as the ledger (ledger_loop.hpp) has it one
// for each sequence and lag. Which sequence a row belongs to and what it gets from the losses its `Lags` say.
#pragma once

#include "kernels/input_gradient.hpp"
#include "kernels/plan_now.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"
#include "kernels/trace.hpp"
#include "kernels/weight_sum.hpp"

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
        return plan_now<R>(backward_work<Cell>, args.dims, args.lengths, args.threads);
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
    static constexpr StepWork work = backward_work<Cell>;

    // part_steps: the most that a part has; the bits do not depend on it.
    BPTT_SHARED explicit BackwardLoop(const Args& args, Index part_steps = kAllSteps)
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
          part_steps_(smaller(part_steps, chunk_)),
          chunks_(ceil_div(T_, chunk_)),
          parts_a_chunk_(ceil_div(chunk_, part_steps_) + 1),
          sequences_(args.dims, args.lengths, args.reverse),
          asks_(!by_units_ && !sequences_.given() && bytes() > kSecondCache),
          dx_(args.dx != nullptr, !Lags::any && may_join<Cell>(), !by_units_, ih_window<Cell>().count * H_,
              args.dims),
          zeros_(larger(H_, D_)),
          delta_(chunk_ * rows_ * apart<R>(row_)),
          weights_(by_units_ ? threads_ : 1, H_, by_units_ ? threads_ : 1, dx_.leaves_hh()),
          sum_count_(sums_of(args)),
          more_(more_of_sums()),
          sum_(sum_count_, sum_count_, sequences_, args.dims, chunk_, make_results()),
          own_(threads_, *this),
          trace_(*this, trace_of(args)) {
        fill<R>(zeros_.data(), larger(H_, D_), R(0));
    }

    BPTT_SHARED void run() {
        const std::int64_t delay = team_.run([this](int thread, Barrier& barrier) {
            for (Index i = 0; i < parts(); ++i) part(i, thread, barrier);
        });
        if (by_units_) went(plan_, delay);
    }

    // The work in parts, which each thread does in their order: the weights are packed; then of each chunk
    // some steps at a time, with their dx, and last its share of the weights' gradients, which has no steps
    // of its own. A chunk that is cut short by T has parts without steps. reached: how many steps are done
    // when so many parts are.
    Index parts() const { return 1 + chunks_ * parts_a_chunk_; }
    Index reached(Index parts) const { return parts <= 1 ? 0 : T_ - steps_of(parts - 1).first; }

    BPTT_SHARED void part(Index i, int thread, Barrier& barrier) const {
        const BackwardWeights<Cell, R>& weights = weights_[by_units_ ? thread : 0];
        const Own& own = own_[thread];
        if (i == 0) {
            prepare(weights, own, thread);
            barrier.wait();
            return;
        }
        const Range steps = steps_of(i);
        if (i % parts_a_chunk_ == 0) {
            weight_gradients(steps.first, steps.last, thread, own, barrier);
            return;
        }
        for (Index t = steps.last - 1; t >= steps.first; --t) {
            step<Cell::phases - 1>(t, own.rows, weights, own, barrier);
            stop_at_resets(t, own.rows, weights.units);
        }
        if (dx_.wanted()) input_gradient(steps.first, steps.last, thread, own);
        if (joint() && steps.first == 0) dx_.give_dh(own.rows, a_.dh);
    }

protected:
    friend class GradientTrace<Cell, R, BackwardLoop>;

    static constexpr int kGates = Cell::gates;
    static constexpr Index size_of = sizeof(R);

    // A ledger has sums of its own, and leaves no trace. The norms of steps are those of one sum.
    static int sums_of(const Args& args) {
        if constexpr (Lags::any)
            return 0;
        else
            return args.trace.norms != nullptr ? 1 : weight_sums(args.dims, kGates, sizeof(R));
    }
    Index more_of_sums() const { return sum_count_ > 1 ? kGates * H_ * (D_ + H_ + 2) : 0; }
    // The first sum makes the results, the second one is added to them.
    WeightResults<R>* make_results() {
        if constexpr (!Lags::any) {
            results_[0] = {a_.dweight_ih, a_.dweight_hh, a_.dbias_ih, a_.dbias_hh};
            if (sum_count_ == 1) return results_;
            R* const more = more_.data();
            const bool biases = a_.dbias_hh != nullptr;
            R* const more_biases = more + kGates * H_ * (D_ + H_);
            results_[1] = {more, more + kGates * H_ * D_, biases ? more_biases : nullptr,
                           biases ? more_biases + kGates * H_ : nullptr};
        }
        return results_;
    }

    static kernels::TraceArgs<R> trace_of(const Args& args) {
        if constexpr (Lags::any)
            return {};
        else
            return args.trace;
    }

    // What a thread needs for itself; rows: its own, or where the units are split all of them.
    struct Own {
        BPTT_SET::Rows rows;
        LeftSpace<R> left;
        Space<const R*> delta, right;
        Space<R*> to;
        Own(int thread, const BackwardLoop& loop)
            : rows(loop.by_units_ ? 0 : thread, loop.sequences_, loop.N_, loop.by_units_ ? 1 : loop.threads_),
              left(loop.row_, loop.lags_.listed(loop.chunk_, loop.N_)),
              delta(loop.lags_.listed(loop.chunk_, loop.N_)),
              right(larger(loop.chunk_ * loop.N_, kGates * loop.H_)),
              to(loop.lags_.listed(loop.chunk_, loop.N_)) {}
    };

    // row: of gradient; n: its sequence.
    BPTT_INLINE R* delta_row(Index t, Index row) const {
        return delta_.data() + (t % chunk_ * rows_ + row) * apart<R>(row_);
    }
    BPTT_INLINE const R* dy_row(Index t, Index n, Index row) const {
        if (a_.dy == nullptr) return zeros_.data();
        if constexpr (Lags::any) {
            const Index from = lags_.dy_row(t, n, row);
            return from < 0 ? zeros_.data() : a_.dy + from * H_;
        }
        return a_.dy + (place(t) * N_ + n) * H_;
    }
    BPTT_INLINE Index place(Index t) const { return sequences_.place(t); }
    BPTT_INLINE const R* gate_row(Index t, Index n) const { return a_.gates + (place(t) * N_ + n) * row_; }
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

    // The steps of a part but the first; of one that adds up a chunk, the chunk's.
    Range steps_of(Index part) const {
        const Index of_chunk = (part - 1) % parts_a_chunk_;
        const Index first = (chunks_ - 1 - (part - 1) / parts_a_chunk_) * chunk_,
                    last = smaller(first + chunk_, T_);
        if (of_chunk + 1 == parts_a_chunk_) return {first, last};
        const Index from = first + (parts_a_chunk_ - 2 - of_chunk) * part_steps_;
        return {smaller(from, last), smaller(from + part_steps_, last)};
    }

    void prepare(const BackwardWeights<Cell, R>& weights, const Own& own, int thread) const {
        rows_of_window<Cell>(Cell::ih_column, ih_window<Cell>(), H_, a_.weight_ih, D_, own.right.data());
        dx_.pack(own.right.data(), a_.weight_hh, thread, threads_);
        if (!joint())
            weights.pack(H_, a_.weight_hh, own.right.data(), by_units_ ? 0 : thread,
                         by_units_ ? 1 : threads_);
        if (joint()) dx_.take_dh(own.rows, a_.dh);
        if (trace_.wants_norms()) clear_results(thread);
    }

    BPTT_INLINE bool joint() const { return !Lags::any && may_join<Cell>() && dx_.joint(); }
    BPTT_INLINE RowsOf<R> dh_rows() const { return joint() ? dx_.rows() : RowsOf<R>{a_.dh, H_}; }
    // Where a step's rows stand: delta, dh and dc of each row of gradient, the others of each sequence.
    struct StepRows {
        RowsOf<R> delta, dh;
        R *dc, *handed, *whole_dc;  // each row H elements, as those of the states and of dy
        RowsOf<const R> gates;
        const R *h_prev, *h, *c_prev, *c, *dy;
        bool same_before;  // h_prev and c_prev are those of all sequences
        bptt::Cell cell;
        Index H;
    };
    BPTT_INLINE StepRows step_rows(Index t) const {
        constexpr bool traces = !Lags::any;
        const Index before = sequences_.slot_before(t, 0), after = sequences_.slot_after(t);
        return {{delta_row(t, 0), apart<R>(row_)},
                dh_rows(),
                Cell::has_c ? a_.dc : nullptr,
                traces ? trace_.handed(t, 0) : nullptr,
                traces && Cell::has_c ? trace_.whole_dc(t, 0) : nullptr,
                {Cell::kept > 0 ? gate_row(t, 0) : nullptr, row_},
                h(before, 0),
                h(after, 0),
                Cell::has_c ? c(before, 0) : nullptr,
                Cell::has_c ? c(after, 0) : nullptr,
                a_.dy != nullptr ? a_.dy + place(t) * N_ * H_ : nullptr,
                a_.reset == nullptr && sequences_.alike(),
                a_.cell,
                H_};
    }

    template <int phase>
    void step(Index t, const Rows& rows, const BackwardWeights<Cell, R>& weights, const Own& own,
              Barrier& barrier) const {
        constexpr Window window = hh_window<Cell>(phase);
        const auto living = rows.living(t);
        const StepRows at = step_rows(t);
        const Range units = weights.units;
        const Panels<R>& b = joint() ? dx_.panels() : weights.hh[phase].panels();
        for (Index i0 = 0; i0 < living.count; i0 += kGroupRows) {
            const Index m = smaller(kGroupRows, living.count - i0);
            if constexpr (Lags::any && phase + 1 == Cell::phases) begin(t, living, i0, m);
            for (Index i = 0; i < m; ++i) pointwise<phase>(at, t, living.at(i0 + i), units);
            if (!by_units_) hand_back<phase>(at, t, living, i0, m, b, own, window);
        }
        if (by_units_) {
            barrier.wait();  // the product needs the deltas of all units
            for (Index i0 = 0; i0 < living.count; i0 += kGroupRows)
                hand_back<phase>(at, t, living, i0, smaller(kGroupRows, living.count - i0), b, own, window);
        }
        if constexpr (phase > 0) step<phase - 1>(t, rows, weights, own, barrier);
    }

    // Before a step's pointwise pass, while dh and dc are what the step after handed back.
    template <class Alive>
    BPTT_INLINE void begin(Index t, const Alive& living, Index i0, Index m) const {
        for (Index i = 0; i < m; ++i) {
            const Index row = living.at(i0 + i), n = lags_.sequence(row);
            lags_.begin(t, row, dy_row(t, n, row), a_.dh + row * H_, Cell::has_c ? a_.dc + row * H_ : nullptr,
                        H_);
        }
    }

    // delta @ W_hh: into dh of the step before, or into the column of the phase's source.
    template <int phase, class Alive>
    BPTT_INLINE void hand_back(const StepRows& at, Index t, const Alive& living, Index i0, Index m,
                               const Panels<R>& b, const Own& own, Window window) const {
        const R** const from = own.delta.data();
        R** const to = own.to.data();
        for (Index i = 0; i < m; ++i) {
            const Index row = living.at(i0 + i);
            R* const delta = at.delta[row];
            from[i] = delta + window.first * at.H;
            to[i] = phase == 0 ? at.dh[row] : delta + Cell::source_column[phase] * at.H;
        }
        if constexpr (Lags::any && Cell::has_c) {
            if (lags_.only_c()) {
                for (Index i = 0; i < m; ++i) fill<R>(to[i], H_, R(0));
                return;
            }
        }
        const Order order = order_of(t * ceil_div(living.count, kGroupRows) + i0 / kGroupRows);
        Coming coming;
        if constexpr (phase == 0 && !Lags::any)
            if (asks_) add_rows_after(t, living, i0 + m, coming);
        product(b, 0, b.count, from, to, m, order, &coming);
        if constexpr (phase == 0) {
            for (Index i = 0; joint() && i < m; ++i) {
                const Index n = living.at(i0 + i);
                dx_.give_dx(n, a_.dx + (place(t) * N_ + n) * D_);
            }
        }
    }

    // Bytes of all that the call goes through.
    BPTT_SHARED double bytes() const {
        const Index states = Cell::has_c ? 2 : 1, row = (Cell::kept + states + 1) * H_ + 2 * D_;
        return static_cast<double>(T_ * N_ * size_of) * static_cast<double>(row);
    }
    // What will be read after the rows before place i0: the next group of rows, or of the step before the
    // first one. With a step's last rows comes what the chunk's products outside the loop take of the step.
    BPTT_SHARED void add_rows_after(Index t, const Living& living, Index i0, Coming& coming) const {
        if (i0 == living.count) {
            const Index first = (place(t) * N_ + living.first) * D_, bytes = living.count * D_ * size_of;
            coming.add(a_.x + first, bytes);
            if (a_.dx != nullptr) coming.add(a_.dx + first, bytes);
            if (--t < 0) return;
            i0 = 0;
        }
        const StepRows at = step_rows(t);
        const Index n = living.at(i0), m = smaller(kGroupRows, living.count - i0), bytes = m * H_ * size_of;
        if constexpr (Cell::kept > 0) coming.add(at.gates[n], m * row_ * size_of);
        if (at.dy != nullptr) coming.add(at.dy + n * H_, bytes);
        coming.add(at.h_prev + n * H_, bytes);
        if constexpr (Cell::has_c) coming.add(at.c_prev + n * H_, bytes);
    }

    template <int phase>
    BPTT_INLINE void pointwise(const StepRows& at, Index t, Index row, Range units) const {
        const Index n = lags_.sequence(row), place = n * at.H;
        BackwardRows<R> rows{};
        rows.delta = at.delta[row];
        if constexpr (Cell::kept > 0) rows.gates = at.gates[n];
        rows.h_prev = at.same_before ? at.h_prev + place : h_before(t, n);
        rows.h = at.h + place;
        rows.dh = at.dh[row];
        if constexpr (Cell::has_c) {
            rows.c_prev = at.same_before ? at.c_prev + place : c_before(t, n);
            rows.c = at.c + place;
            rows.dc = at.dc + row * at.H;
        }
        if constexpr (Lags::any) {
            rows.dy = dy_row(t, n, row);
        } else {
            rows.dy = at.dy != nullptr ? at.dy + place : zeros_.data();
            if (at.handed != nullptr) {
                rows.handed = at.handed + place;
                if constexpr (Cell::has_c) rows.whole_dc = at.whole_dc + place;
            }
        }
        backward_pointwise<Cell, phase>(at.cell, at.H, units, rows);
    }

    // Nothing goes back through a reset.
    void stop_at_resets(Index t, const Rows& rows, Range units) const {
        if (a_.reset == nullptr) return;
        const auto living = rows.living(t);
        for (Index i = 0; i < living.count; ++i) {
            const Index row = living.at(i);
            if (!is_reset(t, lags_.sequence(row))) continue;
            fill<R>(dh_rows()[row] + units.first, units.count(), R(0));
            if constexpr (Cell::has_c) fill<R>(a_.dc + row * H_ + units.first, units.count(), R(0));
        }
    }

    // body(k, t, n) for all rows that live in some steps, k counting. Returns how many there are.
    template <class Body>
    static Index each_row(const BPTT_SET::Rows& rows, Index t0, Index t1, Body&& body) {
        Index k = 0;
        for (Index t = t0; t < t1; ++t) {
            const auto living = rows.living(t);
            for (Index i = 0; i < living.count; ++i, ++k) body(k, t, living.at(i));
        }
        return k;
    }
    BPTT_INLINE const R* x_row(Index t, Index n) const { return a_.x + (place(t) * N_ + n) * D_; }
    // What W_hh is multiplied with in a phase.
    BPTT_INLINE const R* source_row(int phase, Index t, Index n) const {
        return phase == 0 ? h_before(t, n) : gate_row(t, n) + Cell::source_column[phase] * H_;
    }

    // dx of the thread's own rows, or where the units are split of its share of all. Their deltas are there:
    // a split by units meets before a step's last product.
    void input_gradient(Index t0, Index t1, int thread, const Own& own) const {
        constexpr Window window = ih_window<Cell>();
        const int part = by_units_ ? thread : 0, parts = by_units_ ? threads_ : 1;
        if (!joint()) {
            const Index K = each_row(own.rows, t0, t1, [&](Index k, Index t, Index n) {
                own.delta[k] = delta_row(t, n) + window.first * H_;
                own.to[k] = a_.dx + (place(t) * N_ + n) * D_;
            });
            const Range mine = share(K, part, parts);
            const Panels<R>& b = dx_.panels();
            product(b, 0, b.count, own.delta.data() + mine.first, own.to.data() + mine.first, mine.count());
        }
        for (Index t = t0; t < t1; ++t)
            for (Index i = own.rows.alive(t) + part; i < own.rows.count(); i += parts)
                fill<R>(a_.dx + (place(t) * N_ + own.rows.at(i)) * D_, D_, R(0));
    }

    // dW_ih, dW_hh and the biases' gradients of a chunk.
    void weight_gradients(Index t0, Index t1, int thread, const Own& own, Barrier& barrier) const {
        // A sum whose sequences are the thread's own needs nobody.
        const bool alone = !by_units_ && threads_ == sum_count_;
        const int first = alone ? thread : 0, last = alone ? thread + 1 : sum_count_;
        const int part = alone ? 0 : thread, parts = alone ? 1 : threads_;
        for (int s = first; s < last; ++s) prepare_operands(sum_[s], t0, t1, part, parts, own);
        if (!alone) barrier.wait();  // deltas and operands of all threads are there
        for (int s = first; s < last; ++s) {
            const WeightSum<Cell, R>& sum = sum_[s];
            const Index K = each_row(sum.rows, t0, t1,
                                     [&](Index k, Index t, Index n) { own.delta[k] = delta_row(t, n); });
            if (trace_.wants_norms())
                trace_.sum_by_step(t0, t1, K, own.delta.data(), own.right.data(), own.left, thread, barrier);
            else
                outer_sum(sum.blocks, sum.count, own.delta.data(), K, part, parts, own.left,
                          t1 == T_ ? Into::fresh : Into::sum);
        }
        if (!alone || t0 == 0) barrier.wait();  // the next chunk writes over deltas and operands
        if (t0 == 0 && sum_count_ > 1) add_sums(thread);
    }

    void prepare_operands(const WeightSum<Cell, R>& sum, Index t0, Index t1, int part, int parts,
                          const Own& own) const {
        const Index K =
            each_row(sum.rows, t0, t1, [&](Index k, Index t, Index n) { own.right[k] = x_row(t, n); });
        sum.x.prepare(own.right.data(), K, part, parts);
        for (int p = 0; p < Cell::phases; ++p) {
            each_row(sum.rows, t0, t1,
                     [&](Index k, Index t, Index n) { own.right[k] = source_row(p, t, n); });
            sum.source[p].prepare(own.right.data(), K, part, parts);
        }
    }

    // body(array, size) for the arrays of a sum's results.
    template <class Body>
    void each_result(int sum, Body&& body) const {
        const WeightResults<R>& its = results_[sum];
        body(its.weight_ih, kGates * H_ * D_);
        body(its.weight_hh, kGates * H_ * H_);
        if (its.bias_hh == nullptr) return;
        body(its.bias_ih, kGates * H_);
        body(its.bias_hh, kGates * H_);
    }

    // Adds the second sum, whose results stand in a row, to the first one. Both are made.
    void add_sums(int thread) const {
        const R* from = more_.data();
        each_result(0, [&](R* to, Index count) {
            for_each_vector<R>(share(count, thread, threads_),
                               [&](int, auto get, auto put) BPTT_ALWAYS { put(to, get(to) + get(from)); });
            from += count;
        });
    }

    void clear_results(int thread) const {
        for (int s = 0; s < sum_count_; ++s)
            each_result(s, [&](R* to, Index count) {
                const Range mine = share(count, thread, threads_);
                fill<R>(to + mine.first, mine.count(), R(0));
            });
    }

    const Args& a_;
    const Lags lags_;
    const Index T_, N_, D_, H_, row_, rows_;
    const Plan plan_;
    const Team team_;
    const int threads_;
    const bool by_units_;
    const Index chunk_, part_steps_, chunks_, parts_a_chunk_;
    const Sequences sequences_;
    const bool asks_;  // for what a step will read, while it is made
    const InputGradient<R> dx_;
    const Space<R> zeros_, delta_;
    const Each<BackwardWeights<Cell, R>> weights_;
    const int sum_count_;
    const Space<R> more_;  // for the second sum
    WeightResults<R> results_[2];
    const Each<WeightSum<Cell, R>> sum_;
    const Each<Own> own_;
    const GradientTrace<Cell, R, BackwardLoop> trace_;
};

}  // namespace bptt::BPTT_SET
