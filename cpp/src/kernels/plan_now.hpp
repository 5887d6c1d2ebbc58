// The plan that a call follows, as things are: with what it costs now that threads meet (meetings.hpp).
#pragma once

#include "kernels/plan.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

constexpr double kCyclesPerNanosecond = 3.5;
constexpr double kLeastMeeting = 200;  // cycles, of threads that are near each other
// Of a barrier's own cost: the lines of h that the others wrote come after it, and are as far away.
constexpr double kWithItsLines = 2.1;

// How long so many threads take to meet at a barrier: nanoseconds, or 0 where they can't be had now. The
// quickest of some rounds, for a thread that is late says nothing about the way.
BPTT_SHARED inline std::int64_t measure_meeting(int threads) {
    constexpr int kRounds = 5, kMeetings = 16;
    const Team team(threads);
    if (team.threads() < threads) return 0;
    std::int64_t least = INT64_MAX;
    team.run([&](int thread, Barrier& barrier) {
        for (int round = 0; round < kRounds; ++round) {
            const std::int64_t start = detail::nanoseconds();
            for (int i = 0; i < kMeetings; ++i) barrier.wait();
            if (thread == 0) least = smaller(least, detail::nanoseconds() - start);
        }
    });
    return larger<std::int64_t>(1, least / kMeetings);
}

// The plan that takes most working space. Forward a thread that has some units has rows of all sequences, and
// one that has some sequences has theirs. Backward each has the same: their number is what counts.
template <class R>
Plan dearest_plan(const StepWork& work, const Dims& dims, int threads) {
    const Index most{threads}, by_units = smaller(most, ceil_div(dims.H, Vec<R>::size)),
                               by_sequences = smaller(most, dims.N);
    if (by_units < 2 || (work.passes > 1 && by_units < by_sequences))
        return {Split::sequences, static_cast<int>(by_sequences), 0};
    return {Split::units, static_cast<int>(by_units), 0};
}

template <class R>
Plan plan_now(const StepWork& work, const Dims& dims, const std::int64_t* lengths, int threads) {
    if (detail::spends_most_memory()) return dearest_plan<R>(work, dims, threads);
    const Plan at_best = make_plan<R>(work, dims, lengths, threads, kLeastMeeting);
    if (at_best.split != Split::units) return at_best;  // nobody meets
    if (!detail::may_meet()) return make_plan<R>(work, dims, lengths, threads, kNever);
    if (detail::meeting_is_unknown(at_best.threads)) {
        const std::int64_t start = detail::nanoseconds(), price = measure_meeting(at_best.threads);
        detail::meeting_takes(at_best.threads, price, detail::nanoseconds() - start);
    }
    const double nanoseconds = static_cast<double>(detail::meeting(at_best.threads));
    return make_plan<R>(work, dims, lengths, threads, kWithItsLines * kCyclesPerNanosecond * nanoseconds);
}

// All calls have their working space at once where there are threads for it, and the longest parts need most.
// (Whether one call on all threads needs more yet, run_calls sees.)
template <class R, class DimsOf>
BesidePlan beside_now(const StepWork& work, int count, DimsOf&& dims_of, const std::int64_t* lengths,
                      bool chained, int threads) {
    if (detail::spends_most_memory()) return {smaller(threads, count), dims_of(0).T};
    return plan_beside<R>(work, count, dims_of, lengths, chained, threads);
}

// Tells how a call went whose units were split.
inline void went(const Plan& plan, std::int64_t delay) {
    detail::have_met(delay, static_cast<std::int64_t>(plan.gain / kCyclesPerNanosecond));
}

}  // namespace bptt::BPTT_SET
