#include "memory.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <new>

#include "bptt/runtime.hpp"
#include "bptt/types.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bptt {
namespace detail {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSlack = std::size_t{16} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// A block begins with its size, in a cache line of its own, and with what was asked for: a kept block
// may be a little larger, but what is counted must not depend on what was kept.
struct Header {
    std::size_t bytes, asked;
    Header* next;  // of the kept ones of this size
};

// Sizes are rounded so that calls of nearly the same shape reuse each other's blocks: by a sixteenth at most,
// but for small ones.
std::size_t rounded(std::size_t bytes) {
    const std::size_t step = bytes < 65536 ? 256 : bytes < (std::size_t{1} << 20) ? 4096 : 65536;
    return (bytes + step - 1) / step * step;
}

class Pool {
public:
    void* acquire(std::size_t bytes) {
        if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
        const std::size_t size = rounded(bytes + kAlignment);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            for (auto its = kept_.lower_bound(size); its != kept_.end() && its->first <= size + size / 8;
                 ++its) {
                if (its->second == nullptr) continue;
                Header* const block = take(its->second);
                block->asked = size;
                count_use(block->bytes, size);
                return memory_of(block);
            }
        }
        Header* const block = from_system(size);
        *block = {size, size, nullptr};
        std::lock_guard<std::mutex> lock(mutex_);
        count_use(size, size);
        return memory_of(block);
    }

    void release(void* memory) noexcept {
        if (memory == nullptr) return;
        Header* const block = reinterpret_cast<Header*>(static_cast<char*>(memory) - kAlignment);
        std::lock_guard<std::mutex> lock(mutex_);
        used_bytes_ -= block->bytes;
        asked_bytes_ -= block->asked;
        try {
            Header*& first = kept_[block->bytes];
            block->next = first;
            first = block;
            kept_bytes_ += block->bytes;
        } catch (const std::bad_alloc&) {
            std::free(block);
        }
        trim(limit());
    }

    std::size_t in_use() noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        return asked_bytes_;
    }

    std::size_t peak() noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        return peak_bytes_;
    }

    void reset_peak() noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        peak_bytes_ = asked_bytes_;
    }

    // Around a fork: the child would wait for ever for what another thread held.
    void lock() { mutex_.lock(); }
    void unlock() { mutex_.unlock(); }

    void release_kept() noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        trim(0);
        most_used_bytes_ = used_bytes_;
    }

private:
    static void* memory_of(Header* block) { return reinterpret_cast<char*>(block) + kAlignment; }

    static Header* from_system(std::size_t size) {
        const bool huge = size >= 2 * kHugePage;
        const std::size_t alignment = huge ? kHugePage : kAlignment;
        const std::size_t whole = (size + alignment - 1) / alignment * alignment;
        void* memory = std::aligned_alloc(alignment, whole);
        if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__)
        // Fewer page faults and TLB misses; a refusal changes nothing.
        if (huge) (void)madvise(memory, size / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
        return static_cast<Header*>(memory);
    }

    // The first kept block of a size.
    Header* take(Header*& first) noexcept {
        Header* const block = first;
        first = block->next;
        kept_bytes_ -= block->bytes;
        return block;
    }

    void count_use(std::size_t size, std::size_t asked) {
        used_bytes_ += size;
        asked_bytes_ += asked;
        most_used_bytes_ = std::max(most_used_bytes_, used_bytes_);
        peak_bytes_ = std::max(peak_bytes_, asked_bytes_);
        trim(limit());
    }

    // Forward and backward ask for blocks of different sizes: the slack keeps both sets.
    std::size_t limit() const { return most_used_bytes_ + most_used_bytes_ / 16 + kSlack; }

    // The largest go first: they are the ones that a changed shape leaves behind.
    void trim(std::size_t limit) noexcept {
        while (!kept_.empty() && used_bytes_ + kept_bytes_ > limit) {
            const auto largest = std::prev(kept_.end());
            if (largest->second != nullptr)
                std::free(take(largest->second));
            else
                kept_.erase(largest);
        }
    }

    std::mutex mutex_;
    // By size. A size whose blocks are all in use stays: a call of the same shape brings them back.
    std::map<std::size_t, Header*> kept_;
    std::size_t used_bytes_ = 0, kept_bytes_ = 0, most_used_bytes_ = 0;
    std::size_t asked_bytes_ = 0, peak_bytes_ = 0;
};

// Never destroyed: arrays may outlive every static object.
Pool& pool() {
    static Pool* the_pool = new Pool;
    return *the_pool;
}

}  // namespace

void* acquire(std::size_t bytes) { return pool().acquire(bytes); }
void release(void* block) noexcept { pool().release(block); }
std::size_t in_use() noexcept { return pool().in_use(); }
std::size_t peak() noexcept { return pool().peak(); }
void reset_peak() noexcept { pool().reset_peak(); }
void release_kept() noexcept { pool().release_kept(); }
void before_fork() { pool().lock(); }
void after_fork() { pool().unlock(); }

}  // namespace detail

Index used_memory() { return static_cast<Index>(detail::in_use()); }
Index peak_memory() { return static_cast<Index>(detail::peak()); }
void reset_peak_memory() { detail::reset_peak(); }

template <class R>
Array<R>::Array(const Shape& shape) : shape_(shape) {
    std::size_t bytes = sizeof(R);
    for (int i = 0; i < shape.rank; ++i) {
        const auto size = static_cast<std::size_t>(shape[i]);
        if (shape[i] < 0 || (size != 0 && bytes > std::numeric_limits<std::size_t>::max() / 4 / size))
            throw std::length_error("Array: the shape's number of elements does not fit");
        bytes *= size;
    }
    owner_ = std::shared_ptr<void>(detail::acquire(bytes), detail::release);
    data_ = static_cast<R*>(owner_.get());
}

template class Array<bool>;
template class Array<float>;
template class Array<double>;

}  // namespace bptt
