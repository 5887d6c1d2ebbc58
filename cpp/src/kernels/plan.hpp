// How a call is split over threads: a cost model in cycles.
//
// A step of m rows costs, on one thread, the products with x and h, m*G*H*(D+H) / (2 vectors a cycle), or
// instead of the latter the reading of the packed W_hh, G*H*H*bytes at a rate that says whether it is near;
// then the pointwise pass, and a row's own overhead. Weights that the last cache has no room for come from
// memory, and products wait for them. With p threads there are two ways to split it:
//   by sequences  each thread takes N/p rows and reads all weights; no barrier in the loop
//   by units      each thread takes all rows and 1/p of the weights; a barrier a phase
// The bits do not depend on the choice (see products.hpp), so it may be made for speed alone. Where lengths
// differ it counts the steps of the longest sequence, with as many rows as are alive on average. Several
// threads must promise a fifth less than one, and a time that is worth it. What a barrier costs differs by a
// factor of six with where the threads run; plan_now.hpp has it as it is.
#pragma once

#include "kernels/vector.hpp"

namespace bptt::BPTT_SET {

enum class Split { sequences, units };

struct Plan {
    Split split;
    int threads;
    double cycles;    // that it is thought to take
    double gain = 0;  // cycles less than one thread
};

// What a cell's step is made of; passes: how often backward does the work of forward.
struct StepWork {
    Index gates, columns;
    int phases;
    double passes;
};
template <class Cell>
constexpr StepWork forward_work{Cell::gates, Cell::columns, Cell::phases, 1};
template <class Cell>
constexpr StepWork backward_work{Cell::gates, Cell::columns, Cell::phases, 2};

constexpr double kBytesPerCycle = sizeof(V<float>) == 64 ? 40 : 24;  // of L2, sustained
constexpr double kFarBytesPerCycle = 18;                             // of L3
constexpr double kNearWeights = 400e3;  // bytes that stay in L2 from step to step
constexpr double kSecondCache = 1.5e6;  // bytes that may stay in L2
constexpr double kLastCache = 16e6;     // bytes that stay in L3, of weights or of arrays
constexpr double kMemoryBytesPerCycle = 6;
constexpr double kPointwiseCycles = 12;  // a vector of one column
constexpr double kRowCycles = 100;       // a row, whatever its length
constexpr double kUsualMeeting = 700;    // at a barrier: lines there and back, those of what was made too
constexpr double kNever = 1e30;          // a meeting that is too dear
constexpr double kRegionCycles = 15000;  // to start and end a parallel region
constexpr double kWorthwhile = 0.8;      // of one thread's time
constexpr double kWorthCycles = 45000;   // less than one thread's time

// What several threads must stay below, where one thread takes so long.
inline double worthwhile(double alone) { return smaller(alone * kWorthwhile, alone - kWorthCycles); }

// Of some units; H: all of them.
template <class R>
inline double step_cycles(const StepWork& work, double rows, double units, double H, double D) {
    constexpr double W = Vec<R>::size;
    const double columns = static_cast<double>(work.gates) * units, input = rows * columns * D / (2 * W),
                 hidden = rows * columns * H / (2 * W), bytes = columns * H * sizeof(R),
                 reading = bytes / (bytes <= kNearWeights ? kBytesPerCycle : kFarBytesPerCycle),
                 all_bytes = static_cast<double>(work.gates) * H * (D + H) * sizeof(R),
                 waiting = all_bytes <= kLastCache ? 0 : bytes / kMemoryBytesPerCycle,
                 pointwise = static_cast<double>(work.columns) * units / W * kPointwiseCycles;
    return work.passes * (input + larger(hidden, reading) + waiting + rows * (pointwise + kRowCycles));
}

// lengths: null where all sequences have T steps. meeting: cycles.
template <class R>
BPTT_SHARED Plan make_plan(const StepWork& work, const Dims& dims, const std::int64_t* lengths, int threads,
                           double meeting = kUsualMeeting) {
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
    const double T = static_cast<double>(longest), H = static_cast<double>(dims.H),
                 D = static_cast<double>(dims.D);
    const double alone = T * step_cycles<R>(work, alive(1), H, H, D);
    Plan best{Split::sequences, 1, worthwhile(alone)};
    if (threads > 1 && dims.N > 1) {
        const int p = static_cast<int>(smaller<Index>(threads, dims.N));
        const double cycles = T * step_cycles<R>(work, alive(p), H, H, D) + kRegionCycles;
        if (cycles < best.cycles) best = {Split::sequences, p, cycles};
    }
    const Index vectors = ceil_div(dims.H, Vec<R>::size);
    if (threads > 1 && vectors > 1) {
        const int p = static_cast<int>(smaller<Index>(threads, vectors));
        const double units = static_cast<double>(smaller(dims.H, ceil_div(vectors, Index{p}) * Vec<R>::size));
        const double cycles =
            T * (step_cycles<R>(work, alive(1), units, H, D) + work.phases * meeting) + kRegionCycles;
        if (cycles < best.cycles) best = {Split::units, p, cycles};
    }
    if (best.threads == 1) best.cycles = alone;
    best.gain = alone - best.cycles;
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
inline BesidePlan plan_beside(const StepWork& work, int count, DimsOf&& dims_of, const std::int64_t* lengths,
                              bool chained, int threads) {
    const Dims first = dims_of(0);
    double alone = 0, slowest = 0, one_by_one = 0, widest_input = 0;
    for (int l = 0; l < count; ++l) {
        const Dims dims = dims_of(l);
        const double cycles = make_plan<R>(work, dims, lengths, 1).cycles;
        alone += cycles;
        slowest = larger(slowest, cycles);
        one_by_one += make_plan<R>(work, dims, lengths, threads).cycles;
        widest_input = larger(widest_input, static_cast<double>(dims.D));
    }
    const int p = smaller(threads, count);
    double beside = larger(slowest, alone / p) + kRegionCycles;
    Index steps = first.T;
    if (chained && p > 1) {
        const double T = static_cast<double>(first.T), of_step = slowest / T * (p - 1),
                     of_part = kPartCycles + static_cast<double>(work.gates * first.H) * widest_input *
                                                 sizeof(R) / kBytesPerCycle,
                     parts = T * count / p;  // of a step, that a thread does
        steps = smaller(first.T, 1 + static_cast<Index>(__builtin_sqrt(parts * of_part / of_step)));
        beside += static_cast<double>(steps) * of_step + parts / static_cast<double>(steps) * of_part;
    }
    if (beside < smaller(one_by_one, worthwhile(alone))) return {p, steps};
    return {1, first.T};
}

}  // namespace bptt::BPTT_SET
