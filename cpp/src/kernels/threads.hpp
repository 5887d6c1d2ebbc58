// THE OpenMP file: a parallel region, a barrier inside it, and denormals off.
//
// A spin barrier is used within the region because there are one or two of them a time step: OpenMP's
// costs microseconds, this one a few hundred cycles.
#pragma once

#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include "kernels/common.hpp"
#include "runtime.hpp"

#if !defined(_WIN32)
#include <sched.h>
#endif

namespace bptt::BPTT_SET {

BPTT_INLINE void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// How one of so many threads waits for what another one does. Where the processors are taken, by our own
// threads or by others, spinning keeps those from running that we wait for.
class Wait {
public:
    explicit Wait(int threads) : most_(threads <= detail::processors() ? kSpins : 1) {}

    BPTT_INLINE void once() {
        pause();
        if (spins_++ < most_) return;
#if !defined(_WIN32)
        sched_yield();
#endif
    }
    // From here on others may run meanwhile.
    BPTT_INLINE bool is_long() const { return spins_ >= most_; }

private:
    static constexpr int kSpins = 100;

    int most_, spins_ = 0;
};

// All threads arrive, then all go on; what each wrote before is seen by all after.
class Barrier {
public:
    explicit Barrier(int threads) : threads_(threads), wait_(threads) {}

    BPTT_INLINE void wait() {
        if (threads_ > 1) meet();
    }

    // How long others waited for one, beyond what takes no longer than to spin: nanoseconds. That of the
    // first time does not count, when a thread that slept wakes up.
    std::int64_t delay() const {
        return __atomic_load_n(&waited_, __ATOMIC_RELAXED) / larger(1, threads_ - 1);
    }

private:
    // A function of its own, so that a profile tells waiting from work.
    BPTT_SHARED void meet() {
        const int round = __atomic_load_n(&round_, __ATOMIC_RELAXED);
        if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == threads_) {
            __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
            __atomic_store_n(&round_, round + 1, __ATOMIC_RELEASE);
            return;
        }
        const auto others_are_missing = [&] { return __atomic_load_n(&round_, __ATOMIC_ACQUIRE) == round; };
        Wait wait = wait_;
        while (others_are_missing() && !wait.is_long()) wait.once();
        if (!others_are_missing()) return;
        const std::int64_t start = detail::nanoseconds();
        while (others_are_missing()) wait.once();
        if (round > 0) __atomic_add_fetch(&waited_, detail::nanoseconds() - start, __ATOMIC_RELAXED);
    }

    const int threads_;
    const Wait wait_;
    alignas(64) int arrived_ = 0;
    alignas(64) int round_ = 0;
    alignas(64) std::int64_t waited_ = 0;  // by all of them
};

// Within its life, results too small to be normal numbers are zero on this thread (denormals cost a
// hundred cycles each); the mode of before comes back with its end. To change it twice takes as long as a
// tenth of a small stream's step: where a program has it so already, as those for sound do, it is let be.
class DenormalsAreZero {
public:
#if defined(__x86_64__) || defined(_M_X64)
    BPTT_INLINE DenormalsAreZero() : before_(_mm_getcsr()) {
        if (differs()) _mm_setcsr(before_ | kMode);
    }
    BPTT_INLINE ~DenormalsAreZero() {
        if (differs()) _mm_setcsr(before_);
    }

private:
    static constexpr unsigned kMode = 0x8040;
    BPTT_INLINE bool differs() const { return (before_ & kMode) != kMode; }

    unsigned before_;
#elif defined(__aarch64__)
    BPTT_INLINE DenormalsAreZero() {
        asm volatile("mrs %0, fpcr" : "=r"(before_));
        asm volatile("msr fpcr, %0" : : "r"(before_ | (std::uint64_t{1} << 24)));
    }
    BPTT_INLINE ~DenormalsAreZero() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

private:
    std::uint64_t before_;
#else
    BPTT_INLINE DenormalsAreZero() {}
#endif
};

// The right to run `threads()` threads, held for its life.
class Team {
public:
    explicit Team(int wanted) : threads_(granted(wanted)) {}
    ~Team() {
        if (threads_ > 1) detail::leave_team();
    }
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int threads() const { return threads_; }

    // body(thread, barrier) on each thread. It must not throw. Returns the barrier's delay.
    template <class Body>
    std::int64_t run(Body&& body) const {
        Barrier barrier(threads_);
#if defined(_OPENMP)
        if (threads_ > 1) {
            // With fewer threads than it counts the barrier would wait for ever.
            const int dynamic = omp_get_dynamic();
            if (dynamic) omp_set_dynamic(0);
#pragma omp parallel num_threads(threads_)
            {
                DenormalsAreZero mode;
                body(omp_get_thread_num(), barrier);
            }
            if (dynamic) omp_set_dynamic(dynamic);
            return barrier.delay();
        }
#endif
        DenormalsAreZero mode;
        body(0, barrier);
        return 0;
    }

private:
    static int granted(int wanted) {
#if defined(_OPENMP)
        // Within a parallel region of the program around us, its threads are busy already.
        if (wanted <= 1 || omp_in_parallel()) return 1;
        return detail::enter_team(smaller(wanted, omp_get_thread_limit()));
#else
        (void)wanted;
        return 1;
#endif
    }

    int threads_;
};

}  // namespace bptt::BPTT_SET
