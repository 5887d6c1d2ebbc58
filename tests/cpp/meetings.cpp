// Threads that meet: how long a barrier says that they waited, and what is made of it (meetings.hpp).
#include "meetings.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "kernels/plan.hpp"
#include "kernels/threads.hpp"

namespace {

using namespace bptt::tested;
using bptt::detail::Meetings;

int failures = 0;

void check(bool holds, const std::string& sentence) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "does not hold: %s\n", sentence.c_str());
}

void pauses() {
    constexpr std::int64_t shortest = Meetings::kShortest, longest = Meetings::kLongest;
    constexpr std::int64_t kBearable = 2 * 5 + Meetings::kLittle;
    Meetings meetings;
    check(meetings.may_be(0), "threads may meet at first");
    meetings.were(0, kBearable, 5);
    check(meetings.may_be(0), "they may when little was lost");
    std::int64_t now = 0;
    for (std::int64_t pause = shortest; pause < longest; pause *= 2) {
        meetings.were(now, kBearable + 1, 5);
        check(!meetings.may_be(now + pause - 1), "they may not for a while after a loss");
        now += pause;
        check(meetings.may_be(now), "they may after it");
    }
    for (int again = 0; again < 3; ++again) {
        meetings.were(now, kBearable + 1, 5);
        check(!meetings.may_be(now + longest - 1), "the while has grown");
        now += longest;
        check(meetings.may_be(now), "and has a limit");
    }
    meetings.were(now, 0, 5);
    meetings.were(now, kBearable + 1, 5);
    check(meetings.may_be(now + shortest), "after a gain it is short again");
}

// Three threads, of which one comes later: so long the barrier was held up.
void delays() {
    Barrier barrier(3);
    check(barrier.delay() == 0, "nobody waited before anybody came");
    for (const bool again : {false, true}) {
        std::atomic<int> here{0};
        const auto comes = [&] {
            ++here;
            barrier.wait();
        };
        std::thread first(comes), second(comes);
        while (here < 2) std::this_thread::yield();
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        comes();
        first.join();
        second.join();
        if (again)
            check(barrier.delay() >= 10'000'000, "who waited for 100 ms says so");
        else
            check(barrier.delay() == 0, "but not the first time");
    }

    Barrier alone(1);
    alone.wait();
    check(alone.delay() == 0, "one thread waits for nobody");
}

// A small layer of one sequence: worth it for two threads, but not where they may not meet.
void plans() {
    const bptt::Dims dims{1000, 1, 64, 128};
    const StepWork lstm{4, 4, 1, 1};
    const Plan meets = make_plan<float>(lstm, dims, nullptr, 2),
               not_so = make_plan<float>(lstm, dims, nullptr, 2, false);
    check(meets.split == Split::units && meets.threads == 2 && meets.gain > 0, "its units are split");
    check(not_so.threads == 1 && not_so.gain == 0, "one thread has it for itself");
    check(meets.gain == not_so.cycles - meets.cycles, "the gain is over one thread");

    check(plan_now<float>(lstm, dims, nullptr, 2).threads == 2, "at first they may meet");
    for (int i = 0; i < 10; ++i) went(meets, INT64_MAX);  // so that the pause is long
    check(plan_now<float>(lstm, dims, nullptr, 2).threads == 1, "after losses they may not");
    const bptt::Dims many{1000, 64, 64, 128};
    check(plan_now<float>(lstm, many, nullptr, 2).threads == 2, "sequences are dealt out all the same");
    std::this_thread::sleep_for(std::chrono::nanoseconds(Meetings::kLongest));
    check(plan_now<float>(lstm, dims, nullptr, 2).threads == 2, "and later they meet again");
}

}  // namespace

int main() {
    pauses();
    delays();
    plans();
    if (failures == 0) std::puts("threads meet where it pays");
    return failures == 0 ? 0 : 1;
}
