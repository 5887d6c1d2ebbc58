// How a call is split over threads: a cost model in cycles.
//
// A step of m rows and n columns of depth K costs, on one thread, the larger of its arithmetic,
// m*n*K / (2 vectors a cycle), and the reading of the packed weights, n*K*bytes / kBytesPerCycle; and then
// the pointwise pass. With p threads there are two ways to split it:
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

constexpr double kBytesPerCycle = 40;    // of L2, sustained
constexpr double kPointwiseCycles = 24;  // a vector of one column
constexpr double kBarrierCycles = 700;   // two cores' cache lines there and back
constexpr double kRegionCycles = 15000;  // to start and end a parallel region
constexpr double kWorthwhile = 0.8;      // of one thread's time

template <class R>
inline double step_cycles(double rows, double columns, double depth) {
    const double arithmetic = rows * columns * depth / (2.0 * Vec<R>::size);
    const double reading = columns * depth * sizeof(R) / kBytesPerCycle;
    return larger(arithmetic, reading) + rows * columns / Vec<R>::size * kPointwiseCycles;
}

// lengths: null where all sequences have T steps; columns: of the working row, as columns*H; phases:
// barriers a step when split by units.
template <class R>
inline Plan make_plan(const Dims& dims, const std::int64_t* lengths, Index columns, int phases, int threads) {
    Index longest = dims.T, valid = dims.T * dims.N;
    if (lengths != nullptr) {
        longest = valid = 0;
        for (Index n = 0; n < dims.N; ++n) {
            longest = larger<Index>(longest, lengths[n]);
            valid += lengths[n];
        }
    }
    const auto alive = [&](int parts) {
        return static_cast<double>(ceil_div(valid, larger<Index>(1, longest) * parts));
    };
    const double T = static_cast<double>(longest), n = static_cast<double>(columns * dims.H),
                 K = static_cast<double>(dims.H + dims.D);
    const double alone = T * step_cycles<R>(alive(1), n, K);
    Plan best{Split::sequences, 1, alone * kWorthwhile};
    if (threads > 1 && dims.N > 1) {
        const int p = static_cast<int>(smaller<Index>(threads, dims.N));
        const double cycles = T * step_cycles<R>(alive(p), n, K) + kRegionCycles;
        if (cycles < best.cycles) best = {Split::sequences, p, cycles};
    }
    const Index vectors = ceil_div(dims.H, Vec<R>::size);
    if (threads > 1 && vectors > 1) {
        const int p = static_cast<int>(smaller<Index>(threads, vectors));
        const double part = static_cast<double>(ceil_div(vectors, p)) / static_cast<double>(vectors);
        const double cycles =
            T * (step_cycles<R>(alive(1), n * part, K) + phases * kBarrierCycles) + kRegionCycles;
        if (cycles < best.cycles) best = {Split::units, p, cycles};
    }
    if (best.threads == 1) best.cycles = alone;
    return best;
}

}  // namespace bptt::BPTT_SET
