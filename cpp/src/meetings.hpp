// Whether threads may meet at every step.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace bptt::detail {

// Where a call's units are split its threads meet at every step, and all wait for the slowest. That is quick
// unless another program runs where one of them should: then each meeting may take a scheduler's slice, a
// thousand times what it should. No plan can know that beforehand, but it shows: if a call lost far more by
// waiting than it was to gain, there are no such calls for a while, and each time that it happens again at
// once for twice as long. Time in nanoseconds; calls may come from several threads.
class Meetings {
public:
    static constexpr std::int64_t kLittle = 500'000;  // lost, whatever was to gain
    static constexpr std::int64_t kShortest = 10'000'000, kLongest = 1'000'000'000;

    bool may_be(std::int64_t now) const { return now >= next_.load(std::memory_order_relaxed); }

    void were(std::int64_t now, std::int64_t lost, std::int64_t gain) {
        std::int64_t pause = 0;
        if (lost > 2 * gain + kLittle) {
            pause = std::clamp(2 * pause_.load(std::memory_order_relaxed), kShortest, kLongest);
            next_.store(now + pause, std::memory_order_relaxed);
        }
        pause_.store(pause, std::memory_order_relaxed);
    }

private:
    std::atomic<std::int64_t> next_{INT64_MIN}, pause_{0};
};

}  // namespace bptt::detail
