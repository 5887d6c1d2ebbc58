// What the two loops share: which rows are whose and which are alive at a step, and how a cell's weights
// become panels.
#pragma once

#include "kernels/plan.hpp"
#include "kernels/products.hpp"
#include "kernels/space.hpp"

namespace bptt::BPTT_SET {

// ---- sequences -----------------------------------------------------------------------------------

// The sequences from longest to shortest and how many of them are alive at each step. Without lengths
// all are, in their own order.
//
// The loops count the steps in the order in which they are taken. Where step t stands in the caller's arrays,
// and between which slots of the states, is said here: in reverse it is the t-th step from T, and goes from
// the slot above to the slot below. So the sequences stand beside each other in time either way: forward
// they end one after the other, and in reverse they begin so.
class Sequences {
public:
    BPTT_SHARED Sequences(const Dims& dims, const std::int64_t* lengths, bool reverse)
        : N_(dims.N),
          T_(dims.T),
          lengths_(lengths),
          reverse_(reverse),
          order_(lengths != nullptr ? dims.N : 0),
          alive_(lengths != nullptr ? dims.T + 2 : 0),
          given_(lengths != nullptr) {
        if (!given_) return;
        // Counting sort, longest first, equal lengths in their order.
        fill<Index>(alive_.data(), T_ + 2, 0);
        for (Index n = 0; n < N_; ++n) ++alive_[lengths[n]];
        for (Index t = T_; t >= 0; --t) alive_[t] += alive_[t + 1];  // now: length >= t
        for (Index n = N_ - 1; n >= 0; --n) order_[--alive_[lengths[n]]] = n;
        // Placing took each count down to: length > t. That is who is alive at step t.
    }

    BPTT_INLINE bool given() const { return given_; }
    BPTT_INLINE Index alive(Index t) const { return given_ ? alive_[place(t)] : N_; }
    BPTT_INLINE Index at(Index place) const { return given_ ? order_[place] : place; }

    // Where step t stands.
    BPTT_INLINE Index place(Index t) const { return reverse_ ? T_ - 1 - t : t; }
    // The slots of the states before and after it. A sequence's first step in reverse starts from slot T:
    // slot length is a shorter one's y beyond its end, which is zero.
    BPTT_INLINE Index slot_before(Index t, Index n) const {
        if (!reverse_) return t;
        const Index slot = place(t) + 1;
        return given_ && slot == static_cast<Index>(lengths_[n]) ? T_ : slot;
    }
    BPTT_INLINE Index slot_after(Index t) const { return reverse_ ? place(t) : t + 1; }
    // Whether the slot before a step is the same for all sequences.
    BPTT_INLINE bool alike() const { return !reverse_ || !given_; }
    // Whether a reset stands between this step and the one taken before it: reset[t] parts step t from
    // step t-1, whichever of them comes first.
    BPTT_INLINE bool is_reset(const bool* reset, Index t, Index n) const {
        const Index slot = slot_before(t, n);
        return slot < T_ && reset[slot * N_ + n];
    }

private:
    Index N_, T_;
    const std::int64_t* lengths_;
    bool reverse_;
    Space<Index> order_;
    Space<Index> alive_;
    bool given_;
};

// The sequences that a thread works on at a step, in the order of memory: what they read and write lies in
// rows one behind the other, with gaps where a sequence has ended, and a processor fetches ahead only what
// it sees coming.
struct Living {
    const std::int32_t *blocks, *rest;  // or null, where all are living
    Index first, whole, count;          // whole: how many stand in whole blocks

    BPTT_INLINE Index at(Index i) const;
};

// The sequences of one thread: a block of them, or where lengths differ one of every `hands` places of the
// order, which are dealt out there and back (0 1 1 0 0 1 ...), so that long and short ones are spread evenly.
class Rows {
public:
    BPTT_SHARED Rows(int hand, const Sequences& sequences, Index N, int hands)
        : sequences_(&sequences),
          hand_(hand),
          hands_(hands),
          block_(share(N, hand, hands)),
          count_(sequences.given() ? dealt(N) : block_.count()),
          dealt_(sequences.given() ? count_ : 0),
          lists_(sequences.given() ? ceil_div(count_, kBlock) * kLists : 0) {
        if (!sequences.given()) return;
        for (Index i = 0; i < count_; ++i) dealt_[i] = sequences.at(i * hands + in_round(i));
        // A block's first 1, 2, ... sequences, each list in order: the one before it with one more.
        for (Index i = 0; i < count_; ++i) {
            const Index before = i % kBlock;
            const std::int32_t* const from = list_of(i / kBlock, before);
            std::int32_t* const to = list_of(i / kBlock, before + 1);
            const auto n = static_cast<std::int32_t>(dealt_[i]);
            Index k = before;
            for (; k > 0 && from[k - 1] > n; --k) to[k] = from[k - 1];
            to[k] = n;
            while (k-- > 0) to[k] = from[k];
        }
    }

    // From the longest to the shortest: the living ones at step t are the first.
    BPTT_INLINE Index count() const { return count_; }
    BPTT_INLINE Index alive(Index t) const {
        return sequences_->given() ? dealt(sequences_->alive(t)) : count_;
    }
    BPTT_INLINE Index at(Index i) const { return sequences_->given() ? dealt_[i] : block_.first + i; }

    BPTT_INLINE Living living(Index t) const {
        if (!sequences_->given() || count_ == 0) return {nullptr, nullptr, block_.first, count_, count_};
        const Index count = alive(t), rest = count % kBlock;
        return {list_of(0, kBlock), list_of(count / kBlock, rest), 0, count - rest, count};
    }

    static constexpr Index kBlock = 64, kLists = kBlock * (kBlock + 1) / 2;

private:
    // Whose turn it is within a round, and how many of the first `places` this hand has.
    BPTT_INLINE Index in_round(Index round) const { return round % 2 == 0 ? hand_ : hands_ - 1 - hand_; }
    BPTT_INLINE Index dealt(Index places) const {
        if (hands_ == 1) return places;
        const Index rounds = places / hands_;
        return rounds + (in_round(rounds) < places % hands_ ? 1 : 0);
    }
    BPTT_INLINE std::int32_t* list_of(Index block, Index length) const {
        return lists_.data() + block * kLists + length * (length - 1) / 2;
    }

    const Sequences* sequences_;
    const Index hand_, hands_;
    const Range block_;
    const Index count_;
    const Space<Index> dealt_;
    const Space<std::int32_t> lists_;
};

BPTT_INLINE Index Living::at(Index i) const {
    if (blocks == nullptr) return first + i;
    return i < whole ? blocks[i / Rows::kBlock * Rows::kLists + i % Rows::kBlock] : rest[i - whole];
}

// Rows of an array, `apart` from one to the next. A loop over rows that are written has these in copies of
// its own: what is read through a pointer to the loop's members the compiler reads again after each vector,
// which might have been written over it.
template <class E>
struct RowsOf {
    E* first;
    Index apart;

    BPTT_INLINE E* operator[](Index n) const { return first + n * apart; }
};

// ---- a cell's columns ----------------------------------------------------------------------------

// Neighbouring columns of a working row.
struct Window {
    int first, count;
};

template <class Cell>
constexpr Window ih_window() {
    int low = Cell::ih_column[0];
    for (int g = 1; g < Cell::gates; ++g) low = Cell::ih_column[g] < low ? Cell::ih_column[g] : low;
    return {low, Cell::gates};
}

template <class Cell>
constexpr Window hh_window(int phase) {
    Window window{Cell::columns, 0};
    for (int g = 0; g < Cell::gates; ++g) {
        if (Cell::phase_of[g] != phase) continue;
        window.first = Cell::hh_column[g] < window.first ? Cell::hh_column[g] : window.first;
        ++window.count;
    }
    return window;
}

// Whether a gate's two sides stand in columns of their own.
template <class Cell>
constexpr bool sides_apart(Index gate) {
    return Cell::ih_column[gate] != Cell::hh_column[gate];
}

template <class Cell>
constexpr bool any_apart() {
    for (int g = 0; g < Cell::gates; ++g)
        if (sides_apart<Cell>(g)) return true;
    return false;
}

// Which gate's input (or hidden) side stands in a column; -1 for none.
template <class Cell>
constexpr int gate_of_column(const int (&columns)[Cell::gates], int column) {
    for (int g = 0; g < Cell::gates; ++g)
        if (columns[g] == column) return g;
    return -1;
}

// ---- weights as panels ---------------------------------------------------------------------------

// Rows (or columns) of a weight matrix that become neighbouring columns of C.
struct Run {
    Index source, column, count;
};

struct Runs {
    Run run[4];
    int count = 0;

    void add(Run more, bool may_join) {
        if (count > 0 && may_join) {
            Run& last = run[count - 1];
            if (last.source + last.count == more.source && last.column + last.count == more.column) {
                last.count += more.count;
                return;
            }
        }
        run[count++] = more;
    }
};

// The gates that `takes` wants, for some units; columns: Cell::ih_column or Cell::hh_column. Neighbours
// become one run, but not where sides apart begin or end: C starts differently there.
template <class Cell, class Takes>
Runs gate_runs(const int (&columns)[Cell::gates], Index H, Range units, Takes takes) {
    Runs runs;
    for (int g = 0; g < Cell::gates; ++g)
        if (takes(g))
            runs.add({g * H + units.first, columns[g] * H + units.first, units.count()},
                     g > 0 && sides_apart<Cell>(g) == sides_apart<Cell>(g - 1));
    return runs;
}

// Panels, the memory under them, and where in the weight matrix each comes from.
template <class R>
class PackedWeights {
public:
    BPTT_SHARED PackedWeights(const Runs& runs, Index K)
        : count_(panel_count(runs)),
          data_(count_ * (K + 1) * kPanel<R>),
          panel_(count_),
          panels_{data_.data(), panel_.data(), K, count_} {
        Index p = 0;
        for (int r = 0; r < runs.count; ++r)
            for (Index j = 0; j < runs.run[r].count; j += kPanel<R>, ++p) {
                const Index left = runs.run[r].count - j;
                panel_[p] = {runs.run[r].source + j, runs.run[r].column + j,
                             static_cast<int>(smaller<Index>(kPanel<R>, left)), nullptr};
            }
    }

    const Panels<R>& panels() const { return panels_; }

    // B[k][j] = weight[source of j][k]: the forward products. This and the following do the part's share.
    BPTT_SHARED void pack_transposed(const R* weight, int part, int parts) const {
        const Range mine = share(count_, part, parts);
        for (Index p = mine.first; p < mine.last; ++p) {
            const R* rows[kPanel<R>];
            for (int i = 0; i < panel_[p].width; ++i) rows[i] = weight + (panel_[p].source + i) * panels_.K;
            Coming next;
            if (p + 1 < mine.last)
                next.add(weight + panel_[p + 1].source * panels_.K,
                         panel_[p + 1].width * panels_.K * Index{sizeof(R)});
            pack_rows<R>(rows, panel_[p].width, panels_.K, panels_.at(p), next);
        }
    }

    // B[k][j] = rows[k][source of j]: the backward products.
    BPTT_SHARED void pack_straight(const R* const* rows, int part, int parts) const {
        pack_panels(rows, panels_.K, panels_.panel, share(count_, part, parts), panels_.data);
    }

    // B[k] of a panel made by row(k, its first column's source, how many, to).
    template <class Row>
    void pack_each(Row row, int part, int parts) const {
        const Range mine = share(count_, part, parts);
        for (Index p = mine.first; p < mine.last; ++p)
            for (Index k = 0; k < panels_.K; ++k)
                row(k, panel_[p].source, Index{panel_[p].width}, panels_.at(p) + k * kPanel<R>);
    }

    // C starts from zero instead of from itself.
    BPTT_SHARED void start_from_zero(int part, int parts) const {
        start_from([](Index) { return R(0); }, [](Index) { return true; }, part, parts);
    }

    // C starts from value(source of j) instead of from itself, in the panels where takes(source).
    template <class Value, class Takes>
    void start_from(Value value, Takes takes, int part, int parts) const {
        const Range mine = share(count_, part, parts);
        for (Index p = mine.first; p < mine.last; ++p) {
            Panel<R>& panel = panel_[p];
            if (!takes(panel.source)) continue;
            R* const start = panels_.at(count_) + p * kPanel<R>;
            for (int i = 0; i < kPanel<R>; ++i) start[i] = i < panel.width ? value(panel.source + i) : R(0);
            panel.start = start;
        }
    }

private:
    static Index panel_count(const Runs& runs) {
        Index count = 0;
        for (int r = 0; r < runs.count; ++r) count += ceil_div(runs.run[r].count, kPanel<R>);
        return count;
    }

    Index count_;
    Space<R> data_;  // the panels, and behind the last one what they start from
    Space<Panel<R>> panel_;
    Panels<R> panels_;
};

// One row of C from one row of A: a matrix times a vector, of the panels from p on.
template <class R>
BPTT_INLINE void times(const Panels<R>& b, const R* from, R* row, Index p = 0) {
    tiles_of_width<R, 1, kMostOfOneRow>(b, p, b.count, 0, b.K, &from, &row, nullptr);
}

// rows[k] = the row of weight that belongs to column k of a window: what pack_straight reads.
template <class Cell, class R>
BPTT_SHARED void rows_of_window(const int (&columns)[Cell::gates], Window window, Index H, const R* weight,
                                Index stride, const R** rows) {
    for (int c = 0; c < window.count; ++c) {
        const Index gate = gate_of_column<Cell>(columns, window.first + c);
        for (Index u = 0; u < H; ++u) rows[c * H + u] = weight + (gate * H + u) * stride;
    }
}

// ---- who does what -------------------------------------------------------------------------------

// The units of a thread where units are split: whole vectors, except at the end.
template <class R>
inline Range units_of(Index H, int thread, int threads) {
    constexpr Index W = Vec<R>::size;
    const Range vectors = share(ceil_div(H, W), thread, threads);
    return {smaller(vectors.first * W, H), smaller(vectors.last * W, H)};
}

}  // namespace bptt::BPTT_SET
