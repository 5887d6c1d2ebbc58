// Threads that meet: how long a barrier says that they waited, and what is made of it (meetings.hpp).
#include "meetings.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

#include "bptt/runtime.hpp"
#include "kernels/plan_now.hpp"

namespace {

using namespace bptt::tested;
using bptt::detail::Meetings;
using bptt::detail::Prices;

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

// A price is of a number of threads and holds for a while, also where it could not be measured.
void prices() {
    Prices prices;
    check(prices.is_unknown(0, 2) && prices.of(2) == Prices::kUsual, "at first it is what it mostly is");
    prices.are(0, 2, 60, 10);
    check(prices.of(2) == 60 && !prices.is_unknown(Prices::kLasts - 1, 2), "what was measured is believed");
    check(prices.is_unknown(Prices::kLasts, 2), "for a while");
    check(prices.is_unknown(0, 3) && prices.of(3) == Prices::kUsual, "of so many threads");
    prices.are(0, 3, 80, 10);
    check(prices.of(4) == 80 && prices.of(5) == Prices::kUsual && prices.of(2) == 60, "or nearly so many");
    prices.are(0, 2, 0, 10);
    check(prices.of(2) == 60 && !prices.is_unknown(Prices::kLasts - 1, 2),
          "nothing measured changes nothing");
    prices.are(0, 2, 60, Prices::kLasts);
    check(!prices.is_unknown(99 * Prices::kLasts, 2), "what takes long is not measured as often");
    prices.are(0, 1 << 20, 500, 10);
    check(prices.of(1 << 10) == 500 && prices.of(2) == 60, "very many are alike");
}

// Some threads meet for it. There are none where the library is built for one, or where the team is out.
void measurement() {
    const bool are_two = Team(2).threads() == 2;
    check((measure_meeting(2) > 0) == are_two, "two threads need some time to meet");
    const Team team(2);
    check(measure_meeting(2) == 0, "without a second thread there is nothing to measure");
}

// Two vectors of units and eight sequences.
void most_memory() {
    const bptt::Dims dims{10, 8, 4, 2 * Vec<float>::size};
    bptt::spend_most_memory(true);
    const Plan forward = plan_now<float>({4, 4, 1, 1}, dims, nullptr, 8),
               backward = plan_now<float>({4, 4, 1, 2}, dims, nullptr, 8);
    bptt::spend_most_memory(false);
    check(forward.split == Split::units && forward.threads == 2, "twice all rows are the most forward");
    check(backward.split == Split::sequences && backward.threads == 8, "most threads are so backward");
}

// A small layer of one sequence: worth it for two threads, but not where it is dear to meet.
void plans() {
    const bptt::Dims dims{1000, 1, 64, 128};
    const StepWork lstm{4, 4, 1, 1};
    const Plan meets = make_plan<float>(lstm, dims, nullptr, 2),
               not_so = make_plan<float>(lstm, dims, nullptr, 2, kNever),
               dear = make_plan<float>(lstm, dims, nullptr, 2, 20 * kUsualMeeting);
    check(meets.split == Split::units && meets.threads == 2 && meets.gain > 0, "its units are split");
    check(not_so.threads == 1 && not_so.gain == 0, "one thread has it for itself");
    check(meets.gain == not_so.cycles - meets.cycles, "the gain is over one thread");
    check(dear.threads == 1, "so it has where meetings are dear");

    const auto is_met = [](std::int64_t price) { bptt::detail::meeting_takes(2, price, 0); };
    is_met(20);
    check(plan_now<float>(lstm, dims, nullptr, 2).threads == 2, "at first they may meet");
    is_met(100'000);
    check(plan_now<float>(lstm, dims, nullptr, 2).threads == 1, "but not where it takes so long");
    is_met(20);
    for (int i = 0; i < 10; ++i) went(meets, INT64_MAX);  // so that the pause is long
    check(plan_now<float>(lstm, dims, nullptr, 2).threads == 1, "after losses they may not");
    const bptt::Dims many{1000, 64, 64, 128};
    check(plan_now<float>(lstm, many, nullptr, 2).threads == 2, "sequences are dealt out all the same");
    std::this_thread::sleep_for(std::chrono::nanoseconds(Meetings::kLongest));
    is_met(20);
    check(plan_now<float>(lstm, dims, nullptr, 2).threads == 2, "and later they meet again");
}

}  // namespace

int main() {
    pauses();
    delays();
    prices();
    measurement();
    most_memory();
    plans();
    if (failures == 0) std::puts("threads meet where it pays");
    return failures == 0 ? 0 : 1;
}
