// The ledger: the gradient taken apart by lag, through THE backward loop.
//
// The rows of gradient are (slot, sequence). What the loss at step s sends back lives in slot s mod (K+1) for
// the K+1 steps that it is followed, so that nothing ever moves: at step t the slot of loss t is started
// anew, and slot s mod (K+1) has the lag s-t. One slot more, the last, carries all losses together.
//
// A lag is the number of steps that a gradient was handed back, in this layer and those above it. Below a
// layer of two directions it is no distance in time: there s, step plus lag, is but a name, which may be
// beyond T.
#pragma once

#include "kernels/backward_loop.hpp"

namespace bptt::BPTT_SET {

// The rows of gradient of one thread that are alive at a step.
struct LagRows {
    const Sequences* sequences;
    Index end, N, slots;  // s < end; K+1
    Index thread, threads;
    Index* list;

    // A sequence's rows stand together: they read the same gates. Each row has the same thread at every step.
    struct Alive {
        const Index* list;
        Index count;
        BPTT_INLINE Index at(Index i) const { return list[i]; }
    };
    Alive living(Index t) const {
        Index count = 0;
        const Index alive = sequences->alive(t), last = smaller(t + slots, end);
        for (Index i = 0; i < alive; ++i) {
            const Index n = sequences->at(i);
            for (Index s = t; s < last; ++s) add(s % slots, i, n, count);
            add(slots, i, n, count);
        }
        return {list, count};
    }

private:
    BPTT_INLINE void add(Index slot, Index place, Index n, Index& count) const {
        if ((slot * N + place) % threads == thread) list[count++] = slot * N + n;
    }
};

template <class R>
class LagsOf {
public:
    static constexpr bool any = true;
    using Rows = LagRows;
    template <class>
    using Args = kernels::LedgerArgs<R>;

    explicit LagsOf(const Args<R>& args) : a_(args), N_(args.dims.N), slots_(args.max_lag + 1) {}

    // Rows share nothing but the packed weights, and there are many: no split by units.
    template <class Cell, class>
    static Plan plan(const Args<R>& args) {
        // No row has a dW of its own: of backward's products there is one.
        constexpr StepWork work = forward_work<Cell>;
        const Index rows = (args.max_lag + 2) * args.dims.N;
        const auto H = static_cast<double>(args.dims.H);
        const double cycles = static_cast<double>(args.last - args.first) *
                              step_cycles<R>(work, static_cast<double>(rows), H, H, 0.0);
        return {Split::sequences, threads_worth(cycles, static_cast<int>(smaller<Index>(args.threads, rows))),
                cycles};
    }
    static Index chunk(const Args<R>& args) { return args.last - args.first; }

    BPTT_INLINE Index rows(Index N) const { return (slots_ + 1) * N; }
    static Index listed(Index chunk, Index N) { return larger(chunk * N, kGroupRows); }
    BPTT_INLINE Index sequence(Index row) const { return row % N_; }
    BPTT_INLINE bool only_c() const { return a_.only_c; }
    // Where a step stands in arrays of the call's steps.
    BPTT_INLINE Index entry(Index t) const { return a_.reverse ? a_.last - 1 - t : t - a_.first; }

    // The row of dy that a row of gradient gets; -1: none.
    BPTT_INLINE Index dy_row(Index t, Index n, Index row) const {
        if (a_.dy_slots) return entry(t) * rows(N_) + row;
        const Index slot = row / N_;
        const Index place = a_.reverse ? a_.dims.T - 1 - t : t;
        return slot == slots_ || slot == t % slots_ ? place * N_ + n : -1;
    }

    void begin(Index t, Index row, const R* dy, R* dh, R* dc, Index H) const {
        const Index slot = row / N_;
        if (slot == slots_) return;
        const Index lag = (slot + slots_ - t % slots_) % slots_;
        if (lag == 0) {  // what an earlier loss left here went as far as it is followed
            fill<R>(dh, H, R(0));
            if (dc != nullptr) fill<R>(dc, H, R(0));
        }
        if (a_.map == nullptr) return;
        DoubleSum sum;
        for_each_vector<R>(Range{0, H}, [&](int, auto get, auto) { sum.add_square(get(dy) + get(dh)); });
        a_.map[(entry(t) * slots_ + lag) * N_ + row % N_] = static_cast<R>(__builtin_sqrt(sum.total()));
    }

private:
    const Args<R>& a_;
    const Index N_, slots_;
};

template <class Cell, class R>
class LedgerLoop : public BackwardLoop<Cell, R, LagsOf<R>> {
    using Base = BackwardLoop<Cell, R, LagsOf<R>>;
    using Base::a_, Base::T_, Base::N_, Base::D_, Base::H_, Base::row_, Base::rows_, Base::threads_;
    using Base::sequences_, Base::zeros_, Base::dx_, Base::lags_, Base::kGates;
    using typename Base::Own;

public:
    BPTT_SHARED explicit LedgerLoop(const kernels::LedgerArgs<R>& args)
        : Base(args),
          slots_(args.max_lag + 1),
          end_(args.both_ways ? T_ + slots_ : T_),
          nothing_(row_),
          lists_(threads_, rows_),
          pair_((args.last - args.first) * N_),
          begin_(args.groups + 1),
          right_(static_cast<int>(args.groups) * Cell::phases, H_,
                 (args.last - args.first) * ceil_div(N_, args.groups)) {
        fill<R>(nothing_.data(), row_, R(0));
        Index count = 0;
        for (Index b = 0; b < args.groups; ++b) {
            begin_[b] = count;
            for (Index t = args.first; t < args.last; ++t)
                for (Index i = 0, alive = sequences_.alive(t); i < alive; ++i)
                    if (const Index n = sequences_.at(i); n * args.groups / N_ == b) pair_[count++] = {t, n};
        }
        begin_[args.groups] = count;
    }

    void run() {
        this->team_.run([this](int thread, Barrier& barrier) { loop(thread, barrier); });
    }

private:
    struct StepOf {
        Index t, n;
    };
    struct Right : RightOperand<R> {
        Right(int, Index its_columns, Index rows) : RightOperand<R>(its_columns, rows) {}
    };
    struct List : Space<Index> {
        List(int, Index rows) : Space<Index>(rows) {}
    };

    void loop(int thread, Barrier& barrier) const {
        const auto& weights = this->weights_[0];
        const Own& own = this->own_[thread];
        const LagRows rows{&sequences_, end_, N_, slots_, thread, threads_, lists_[thread].data()};
        weights.pack(H_, a_.weight_hh, own.right.data(), thread, threads_);
        rows_of_window<Cell>(Cell::ih_column, ih_window<Cell>(), H_, a_.weight_ih, D_, own.right.data());
        dx_.pack(own.right.data(), a_.weight_hh, thread, threads_);
        pack_sources(thread, own);
        barrier.wait();
        for (Index t = a_.last - 1; t >= a_.first; --t) {
            this->template step<Cell::phases - 1>(t, rows, weights, own, barrier);
            this->stop_at_resets(t, rows, weights.units);
            if (dx_.wanted()) input_gradient(t, rows, own);
        }
        barrier.wait();  // deltas of all threads are there
        if (a_.dweight_hh != nullptr) add_weights(thread, own);
    }

    // body(k, t, n) for the steps of this call and the living sequences of a group, k counting.
    template <class Body>
    Index each_of_group(Index group, Body&& body) const {
        const Index first = begin_[group], count = begin_[group + 1] - first;
        for (Index k = 0; k < count; ++k) body(k, pair_[first + k].t, pair_[first + k].n);
        return count;
    }

    void pack_sources(int thread, const Own& own) const {
        if (a_.dweight_hh == nullptr) return;
        for (Index b = 0; b < a_.groups; ++b)
            for (int p = 0; p < Cell::phases; ++p) {
                const Index K = each_of_group(
                    b, [&](Index k, Index t, Index n) { own.right[k] = this->source_row(p, t, n); });
                right_[static_cast<int>(b) * Cell::phases + p].prepare(own.right.data(), K, thread, threads_);
            }
    }

    // delta @ W_ih of a step's rows; rows that nothing reaches stay zero.
    void input_gradient(Index t, const LagRows& rows, const Own& own) const {
        constexpr Window window = ih_window<Cell>();
        const LagRows::Alive living = rows.living(t);
        for (Index i0 = 0; i0 < living.count; i0 += kGroupRows) {
            const Index m = smaller(kGroupRows, living.count - i0);
            for (Index i = 0; i < m; ++i) {
                const Index row = living.at(i0 + i);
                own.delta[i] = this->delta_row(t, row) + window.first * H_;
                own.to[i] = a_.dx + (lags_.entry(t) * rows_ + row) * D_;
            }
            const Panels<R>& b = dx_.panels();
            product(b, 0, b.count, own.delta.data(), own.to.data(), m);
        }
    }

    // D[k] += delta[k]^T h_{t-1}, lag by lag, and the same of all losses together.
    void add_weights(int thread, const Own& own) const {
        const Index weights = kGates * H_ * H_;
        for (Index b = 0; b < a_.groups; ++b)
            for (Index lag = 0; lag <= slots_; ++lag) {
                if (lag < slots_ && a_.first + lag >= end_) continue;  // no loss is so far ahead
                const Index K = each_of_group(b, [&](Index k, Index t, Index n) {
                    const bool there = lag == slots_ || t + lag < end_;
                    const Index slot = lag == slots_ ? lag : (t + lag) % slots_;
                    own.delta[k] = there && (lag == slots_ || may_reach(t + lag, n))
                                       ? this->delta_row(t, slot * N_ + n)
                                       : nothing_.data();
                });
                if (K == 0) continue;
                R* const to = a_.dweight_hh + (b * (slots_ + 1) + lag) * weights;
                OuterBlock<R> blocks[Cell::gates];
                const int count = blocks_to(to, static_cast<int>(b), blocks);
                outer_sum(blocks, count, own.delta.data(), K, thread, threads_, own.left, Into::sum);
            }
    }

    // Whether a loss at step s can have reached sequence n at all.
    BPTT_INLINE bool may_reach(Index s, Index n) const {
        return a_.lengths == nullptr || a_.reverse || a_.both_ways || s < static_cast<Index>(a_.lengths[n]);
    }

    // dW_hh's blocks: gates of one phase that are neighbours.
    int blocks_to(R* weight, int group, OuterBlock<R>* blocks) const {
        int count = 0;
        for (int g = 0; g < Cell::gates; ++g) {
            const RightOperand<R>* right = &right_[group * Cell::phases + Cell::phase_of[g]];
            if (g > 0 && Cell::phase_of[g] == Cell::phase_of[g - 1] &&
                Cell::hh_column[g] == Cell::hh_column[g - 1] + 1)
                blocks[count - 1].count += H_;
            else
                blocks[count++] = {
                    Cell::hh_column[g] * H_, H_, {{right, weight + g * H_ * H_, H_, nullptr}, {}}, 1};
        }
        return count;
    }

    const Index slots_, end_;
    const Space<R> nothing_;
    const Each<List> lists_;
    const Space<StepOf> pair_;  // step and sequence, group after group
    const Space<Index> begin_;
    const Each<Right> right_;
};

}  // namespace bptt::BPTT_SET
