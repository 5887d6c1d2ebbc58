// Whether threads may meet at every step, and what that costs.
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

// What it costs that threads meet once. That is a matter of how far apart their processors are: fifty
// nanoseconds and three hundred were measured on one virtual machine within seconds, both processors working
// at their full rate each time. So it is measured, again when the last time is a while ago. Until then it is
// what it mostly is.
class Prices {
public:
    static constexpr std::int64_t kUsual = 100, kLasts = 50'000'000;  // nanoseconds

    bool is_unknown(std::int64_t now, int threads) const {
        return now >= of_[kind(threads)].until.load(std::memory_order_relaxed);
    }
    std::int64_t of(int threads) const { return of_[kind(threads)].price.load(std::memory_order_relaxed); }

    // price: 0 where it could not be measured. took: what that took. A hundredth of the time is enough for
    // it, also where there are more threads than processors.
    void are(std::int64_t now, int threads, std::int64_t price, std::int64_t took) {
        Price& its = of_[kind(threads)];
        if (price > 0) its.price.store(price, std::memory_order_relaxed);
        its.until.store(now + std::max(kLasts, 100 * took), std::memory_order_relaxed);
    }

private:
    struct Price {
        std::atomic<std::int64_t> price{kUsual}, until{INT64_MIN};
    };

    // 2 threads, up to 4, up to 8, ...: more of them take longer, but not by one.
    static int kind(int threads) {
        int kind = 0;
        while (kind + 1 < kKinds && threads > 2 << kind) ++kind;
        return kind;
    }

    static constexpr int kKinds = 8;
    Price of_[kKinds];
};

}  // namespace bptt::detail
