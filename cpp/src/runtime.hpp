// What the kernels ask about threads. Defined once in runtime.cpp, for all instruction sets.
#pragma once

#include <cstdint>

namespace bptt::detail {

// The number of threads a parallel call may use now. 1 while another call has the processors, and in a
// forked child, where the parent's OpenMP threads are gone and waiting for them would hang.
// A caller that was given more than 1 must call leave_team().
int enter_team(int wanted) noexcept;
void leave_team() noexcept;

// How many processors this process may run on.
int processors() noexcept;

// Of a clock that only goes forward.
std::int64_t nanoseconds() noexcept;

// Whether a call may have its threads meet at every step, and what came of it (meetings.hpp).
bool may_meet() noexcept;
void have_met(std::int64_t lost, std::int64_t gain) noexcept;
// How long so many threads take to meet, in nanoseconds, and whether that is to be measured (again).
bool meeting_is_unknown(int threads) noexcept;
void meeting_takes(int threads, std::int64_t price, std::int64_t to_measure_it) noexcept;
std::int64_t meeting(int threads) noexcept;

// Whether this thread's calls are to take the most memory that they may.
bool spends_most_memory() noexcept;

}  // namespace bptt::detail
