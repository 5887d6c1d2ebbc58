// From one thread to another without waiting: samples out of a real-time thread, weights back into it.
//
// Every method that a real-time thread calls is noexcept and wait-free: it allocates nothing, takes no lock,
// makes no system call and never repeats itself because of what the other thread does.
#pragma once

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

namespace bptt {

namespace detail {
// Two threads' numbers stand this far apart, so that none takes the other's line of cache away.
constexpr std::size_t kLine = 64;
}  // namespace detail

// A queue of a fixed capacity between one thread that pushes and one that pops (Lamport 1977). Each side
// keeps a copy of the other's count and looks at the count itself only when the copy says full, or empty.
template <class T>
class Ring {
    static_assert(std::is_trivially_copyable_v<T>, "a Ring copies its entries byte by byte");

public:
    // Throws std::invalid_argument for a capacity of 0.
    explicit Ring(std::size_t capacity) : entries_(capacity) {
        if (capacity == 0) throw std::invalid_argument("Ring: capacity is 0, expected at least 1");
    }

    std::size_t capacity() const noexcept { return entries_.size(); }

    // The pushing thread's. Copies as many of the `count` entries as there is room for, the first ones, and
    // says how many those were. What does not fit is the caller's to drop or to keep.
    std::size_t push(const T* entries, std::size_t count) noexcept {
        const std::size_t pushed = pushed_.load(std::memory_order_relaxed);
        if (entries_.size() - (pushed - known_popped_) < count)
            known_popped_ = popped_.load(std::memory_order_acquire);
        const std::size_t room = entries_.size() - (pushed - known_popped_);
        if (count > room) count = room;
        for (std::size_t i = 0; i < count; ++i) {
            entries_[push_at_] = entries[i];
            if (++push_at_ == entries_.size()) push_at_ = 0;
        }
        pushed_.store(pushed + count, std::memory_order_release);
        return count;
    }
    bool push(const T& entry) noexcept { return push(&entry, 1) == 1; }

    // The popping thread's. Copies the oldest entries, at most `count`, and says how many those were.
    std::size_t pop(T* entries, std::size_t count) noexcept {
        const std::size_t popped = popped_.load(std::memory_order_relaxed);
        if (known_pushed_ - popped < count) known_pushed_ = pushed_.load(std::memory_order_acquire);
        const std::size_t there = known_pushed_ - popped;
        if (count > there) count = there;
        for (std::size_t i = 0; i < count; ++i) {
            entries[i] = entries_[pop_at_];
            if (++pop_at_ == entries_.size()) pop_at_ = 0;
        }
        popped_.store(popped + count, std::memory_order_release);
        return count;
    }
    bool pop(T& entry) noexcept { return pop(&entry, 1) == 1; }

private:
    std::vector<T> entries_;
    // Counts since the beginning. They may overflow: only differences are used.
    alignas(detail::kLine) std::atomic<std::size_t> pushed_{0};
    std::size_t push_at_ = 0, known_popped_ = 0;  // the pushing thread's
    alignas(detail::kLine) std::atomic<std::size_t> popped_{0};
    std::size_t pop_at_ = 0, known_pushed_ = 0;  // the popping thread's
};

// The newest of what one thread publishes, for one thread that reads: three slots, of which the writer has
// one, the reader has one, and the third lies between them. Either side changes its slot for that one by
// a single atomic exchange. What the reader did not take before the next one came, it never sees.
template <class T>
class TripleBuffer {
public:
    // Each slot is made by a call of `make`.
    template <class Make>
    explicit TripleBuffer(Make&& make) {
        slots_.reserve(3);
        while (slots_.size() < 3) slots_.push_back(Slot{make()});
    }

    // The writer's own slot: to be filled, which takes as long as it takes.
    T& back() noexcept { return slots_[back_].value; }
    // Gives it away and takes the one between, which holds something old.
    void publish() noexcept {
        back_ = between_.exchange(back_ | kFresh, std::memory_order_acq_rel) & ~kFresh;
    }

    // The reader's own slot.
    T& front() noexcept { return slots_[front_].value; }
    const T& front() const noexcept { return slots_[front_].value; }
    // Whether there is something newer. It stays so until `update`.
    bool fresh() const noexcept { return (between_.load(std::memory_order_relaxed) & kFresh) != 0; }
    // Takes it where there is; says whether there was.
    bool update() noexcept {
        if (!fresh()) return false;
        front_ = between_.exchange(front_, std::memory_order_acq_rel) & ~kFresh;
        return true;
    }

private:
    static constexpr unsigned kFresh = 4;
    static_assert(std::atomic<unsigned>::is_always_lock_free, "the exchange would take a lock");

    struct alignas(detail::kLine) Slot {
        T value;
    };
    std::vector<Slot> slots_;                    // three, which stay where they are
    alignas(detail::kLine) unsigned back_ = 0;   // the writer's
    alignas(detail::kLine) unsigned front_ = 1;  // the reader's
    alignas(detail::kLine) std::atomic<unsigned> between_{2};
};

}  // namespace bptt
