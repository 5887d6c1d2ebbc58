// How a call is split over threads: a cost model in cycles.
//
// A step of m rows and n columns costs, on one thread, the larger of its arithmetic, m*n*(H+D) / (2 vectors a
// cycle), and the reading of the packed W_hh, n*H*bytes at a rate that says whether it is near; and then the
// pointwise pass. With p threads there are two ways to split it:
//   by sequences  each thread takes N/p rows and reads all weights; no barrier in the loop
//   by units      each thread takes all rows and 1/p of the weights; a barrier a phase
// The bits do not depend on the choice (see products.hpp), so it may be made for speed alone. Where lengths
// differ it counts the steps of the longest sequence, with as many rows as are alive on average. Several
// threads must promise a fifth less than one: where other programs run, each meeting of threads costs more.
#pragma once

#include "kernels/vector.hpp"

namespace bptt::BPTT_SET {

enum class Split { sequences, units };

struct Plan {
    Split split;
    int threads;
    double cycles;  // that it is thought to take
};

constexpr double kBytesPerCycle = 40;     // of L2, sustained
constexpr double kFarBytesPerCycle = 12;  // of L3
constexpr double kNearWeights = 400e3;    // bytes that stay in L2 from step to step
constexpr double kPointwiseCycles = 24;   // a vector of one column
constexpr double kBarrierCycles = 700;    // two cores' cache lines there and back
constexpr double kRegionCycles = 15000;   // to start and end a parallel region
constexpr double kWorthwhile = 0.8;       // of one thread's time

template <class R>
inline double step_cycles(double rows, double columns, double H, double D) {
    const double arithmetic = rows * columns * (H + D) / (2.0 * Vec<R>::size);
    const double bytes = columns * H * sizeof(R);
    const double reading = bytes / (bytes <= kNearWeights ? kBytesPerCycle : kFarBytesPerCycle);
    return larger(arithmetic, reading) + rows * columns / Vec<R>::size * kPointwiseCycles;
}

// lengths: null where all sequences have T steps; columns: of the working row, as columns*H; phases:
// barriers a step when split by units.
template <class R>
BPTT_SHARED Plan make_plan(const Dims& dims, const std::int64_t* lengths, Index columns, int phases,
                           int threads) {
    Index longest = dims.T, valid = dims.T * dims.N;
    if (lengths != nullptr) {
        longest = valid = 0;
        for (Index n = 0; n < dims.N; ++n) {
            longest = larger<Index>(longest, lengths[n]);
            valid += lengths[n];
        }
    }
    // Sequences of different lengths are dealt out so that each part has its share of the steps.
    const auto alive = [&](int parts) {
        if (lengths == nullptr) return static_cast<double>(ceil_div(dims.N, Index{parts}));
        return larger(1.0,
                      static_cast<double>(valid) / static_cast<double>(larger<Index>(1, longest) * parts));
    };
    const double T = static_cast<double>(longest), n = static_cast<double>(columns * dims.H),
                 H = static_cast<double>(dims.H), D = static_cast<double>(dims.D);
    const double alone = T * step_cycles<R>(alive(1), n, H, D);
    Plan best{Split::sequences, 1, alone * kWorthwhile};
    if (threads > 1 && dims.N > 1) {
        const int p = static_cast<int>(smaller<Index>(threads, dims.N));
        const double cycles = T * step_cycles<R>(alive(p), n, H, D) + kRegionCycles;
        if (cycles < best.cycles) best = {Split::sequences, p, cycles};
    }
    const Index vectors = ceil_div(dims.H, Vec<R>::size);
    if (threads > 1 && vectors > 1) {
        const int p = static_cast<int>(smaller<Index>(threads, vectors));
        const double part = static_cast<double>(ceil_div(vectors, p)) / static_cast<double>(vectors);
        const double cycles =
            T * (step_cycles<R>(alive(1), n * part, H, D) + phases * kBarrierCycles) + kRegionCycles;
        if (cycles < best.cycles) best = {Split::units, p, cycles};
    }
    if (best.threads == 1) best.cycles = alone;
    return best;
}

// Several calls side by side, each by one thread at a time (beside.hpp): how many threads, of which 1 stands
// for one call after the other, each on all threads; and the most steps that a part of a call has.
struct BesidePlan {
    int threads;
    Index part_steps;
};

constexpr Index kAllSteps = PTRDIFF_MAX;  // of a part: as many as the loop takes anyway

constexpr double kPartCycles = 1500;  // to say that a part is done, and to see it

// The calls differ in D at most; chained: each waits for the one before it. With short parts the last call of
// a chain begins early, with long ones W_ih is read less often.
template <class R, class DimsOf>
inline BesidePlan plan_beside(int count, DimsOf&& dims_of, const std::int64_t* lengths, bool chained,
                              Index columns, int phases, int threads) {
    const Dims first = dims_of(0);
    double alone = 0, slowest = 0, one_by_one = 0, widest_input = 0;
    for (int l = 0; l < count; ++l) {
        const Dims dims = dims_of(l);
        const double cycles = make_plan<R>(dims, lengths, columns, phases, 1).cycles;
        alone += cycles;
        slowest = larger(slowest, cycles);
        one_by_one += make_plan<R>(dims, lengths, columns, phases, threads).cycles;
        widest_input = larger(widest_input, static_cast<double>(dims.D));
    }
    const int p = smaller(threads, count);
    double beside = larger(slowest, alone / p) + kRegionCycles;
    Index steps = first.T;
    if (chained && p > 1) {
        const double T = static_cast<double>(first.T), of_step = slowest / T * (p - 1),
                     of_part = kPartCycles + static_cast<double>(columns * first.H) * widest_input *
                                                 sizeof(R) / kBytesPerCycle,
                     parts = T * count / p;  // of a step, that a thread does
        steps = smaller(first.T, 1 + static_cast<Index>(__builtin_sqrt(parts * of_part / of_step)));
        beside += static_cast<double>(steps) * of_step + parts / static_cast<double>(steps) * of_part;
    }
    if (beside < smaller(one_by_one, kWorthwhile * alone)) return {p, steps};
    return {1, first.T};
}

}  // namespace bptt::BPTT_SET
