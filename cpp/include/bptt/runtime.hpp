// Threads, memory and instruction sets.
#pragma once

#include <string>
#include <vector>

#include "bptt/types.hpp"

namespace bptt {

// How many threads a call may use at most: OMP_NUM_THREADS where set, else the processors this
// process may run on. Results have the same bits for every number. A call made while another thread's
// call runs in parallel, or in a forked child of a process that ran one, uses one thread.
// set_num_threads throws std::invalid_argument unless 1 <= threads <= 1024.
BPTT_API void set_num_threads(Index threads);
BPTT_API Index get_num_threads();

// Bytes of the library's arrays, tapes and workspaces that are in use now, and the most that were
// at one time since the latest call of reset_peak_memory.
BPTT_API Index used_memory();
BPTT_API Index peak_memory();
BPTT_API void reset_peak_memory();
// While it is on, calls of this thread have the room of whichever way takes most memory: how they are split
// over threads, and whether they run side by side. Which way a call goes depends on its length and on what
// else runs; what peak_memory says then holds whichever is the quickest by the next call.
BPTT_API void spend_most_memory(bool on);

// The set that is used: "baseline", "x86-64-v3" or "x86-64-v4" ("baseline" is NEON on Arm). It is
// chosen at the first call: the best that the processor has, or what BPTT_INSTRUCTION_SET names.
// Throws std::runtime_error where that variable names a set that is unknown or not supported here.
BPTT_API std::string instruction_set();
BPTT_API std::vector<std::string> supported_instruction_sets();

}  // namespace bptt
