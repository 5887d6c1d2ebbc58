#include "bptt/runtime.hpp"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "bptt/version.hpp"
#include "meetings.hpp"
#include "memory.hpp"
#include "runtime.hpp"

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include <thread>

namespace bptt {
namespace {

constexpr Index kMostThreads = 1024;

int count_processors() noexcept {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    const unsigned count = std::thread::hardware_concurrency();
    return count == 0 ? 1 : static_cast<int>(count);
}

int threads_at_start() {
    // OMP_NUM_THREADS may be a list, one entry a nesting level; the first is ours.
    if (const char* text = std::getenv("OMP_NUM_THREADS")) {
        char* end = nullptr;
        const long value = std::strtol(text, &end, 10);
        if (end != text && value >= 1 && (*end == '\0' || *end == ','))
            return static_cast<int>(value < kMostThreads ? value : kMostThreads);
    }
    const int count = count_processors();
    return count < kMostThreads ? count : static_cast<int>(kMostThreads);
}

std::atomic<int>& thread_limit() {
    static std::atomic<int> limit{threads_at_start()};
    return limit;
}

detail::Meetings meetings;
detail::Prices prices;
thread_local bool most_memory = false;
std::atomic<bool> team_is_out{false};
std::atomic<bool> had_a_team{false};
std::atomic<bool> is_child_of_a_team{false};

#if !defined(_WIN32)
void after_fork_in_child() {
    detail::after_fork();
    if (had_a_team.load()) is_child_of_a_team.store(true);
    team_is_out.store(false);
}
const int registered = pthread_atfork(detail::before_fork, detail::after_fork, after_fork_in_child);
#endif

}  // namespace

namespace detail {

int enter_team(int wanted) noexcept {
    if (wanted <= 1 || is_child_of_a_team.load(std::memory_order_relaxed)) return 1;
    bool expected = false;
    if (!team_is_out.compare_exchange_strong(expected, true)) return 1;
    had_a_team.store(true, std::memory_order_relaxed);
    return wanted;
}

void leave_team() noexcept { team_is_out.store(false); }

int processors() noexcept {
    static const int count = count_processors();
    return count;
}

std::int64_t nanoseconds() noexcept {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool may_meet() noexcept { return meetings.may_be(nanoseconds()); }
void have_met(std::int64_t lost, std::int64_t gain) noexcept { meetings.were(nanoseconds(), lost, gain); }
bool meeting_is_unknown(int threads) noexcept { return prices.is_unknown(nanoseconds(), threads); }
void meeting_takes(int threads, std::int64_t price, std::int64_t to_measure_it) noexcept {
    prices.are(nanoseconds(), threads, price, to_measure_it);
}
std::int64_t meeting(int threads) noexcept { return prices.of(threads); }

bool spends_most_memory() noexcept { return most_memory; }

}  // namespace detail

const char* version() { return BPTT_VERSION; }

void set_num_threads(Index threads) {
    if (threads < 1 || threads > kMostThreads)
        throw std::invalid_argument("set_num_threads: threads is " + std::to_string(threads) +
                                    ", expected 1 to " + std::to_string(kMostThreads));
    thread_limit().store(static_cast<int>(threads));
}

Index get_num_threads() { return thread_limit().load(); }

void spend_most_memory(bool on) { most_memory = on; }

}  // namespace bptt
