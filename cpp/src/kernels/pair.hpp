// Two calls that do not wait for each other: the directions of a layer.
#pragma once

#include "kernels/plan.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

// Whether two calls of these sizes are sooner done side by side, on a thread each, than one after the
// other on all threads.
template <class R>
inline bool pays_beside(const Dims& dims, const std::int64_t* lengths, Index columns, int phases,
                        int threads) {
    if (threads < 2) return false;
    const double beside = make_plan<R>(dims, lengths, columns, phases, 1).cycles + kRegionCycles;
    return beside < 2 * make_plan<R>(dims, lengths, columns, phases, threads).cycles;
}

// Runs both, in whichever way; the bits are the same. Loop: constructed of Args, then run().
template <class Cell, class R, class Loop, class Args>
void run_pair(const Args* two) {
    if (pays_beside<R>(two[0].dims, two[0].lengths, Cell::columns, Cell::phases, two[0].threads)) {
        const Team team(2);
        if (team.threads() == 2) {
            Args one = two[0], other = two[1];
            one.threads = other.threads = 1;
            // Both are made out here: what makes room may throw.
            Loop first(one), second(other);
            team.run([&](int thread, Barrier&) { (thread == 0 ? first : second).run(); });
            return;
        }
    }
    Loop(two[0]).run();
    Loop(two[1]).run();
}

}  // namespace bptt::BPTT_SET
