// Memory that a kernel needs while it runs, taken from the pool before its threads start.
#pragma once

#include <new>

#include "kernels/common.hpp"
#include "memory.hpp"

namespace bptt::BPTT_SET {

// `count` elements, uninitialised, with room for one vector to be read or written past the end. Of none,
// data() is null.
template <class E>
class Space {
public:
    Space() = default;
    explicit Space(Index count)
        : data_(count > 0 ? static_cast<E*>(detail::acquire(static_cast<std::size_t>(count) * sizeof(E) + 64))
                          : nullptr) {}
    ~Space() { detail::release(data_); }
    Space(const Space&) = delete;
    Space& operator=(const Space&) = delete;

    BPTT_INLINE E* data() const { return data_; }
    BPTT_INLINE E& operator[](Index i) const { return data_[i]; }

private:
    E* data_ = nullptr;
};

// From one row to the next, of `length` elements each: not a multiple of 1 KB, or the same columns of several
// rows, which a tile takes, would all belong to the same few sets of the nearest cache.
template <class R>
constexpr Index apart(Index length) {
    constexpr Index line = 64 / static_cast<Index>(sizeof(R)), few_sets = 16 * line;
    return length % few_sets == 0 ? length + line : length;
}

// `count` objects, each made from its number and the same rest. A single one, as there often is, stands here.
template <class T>
class Each {
public:
    template <class... From>
    explicit Each(int count, const From&... from)
        : memory_(count > 1 ? static_cast<T*>(detail::acquire(static_cast<std::size_t>(count) * sizeof(T)))
                            : reinterpret_cast<T*>(single_)) {
        try {
            for (; count_ < count; ++count_) new (memory_ + count_) T(count_, from...);
        } catch (...) {
            clear();
            throw;
        }
    }
    ~Each() { clear(); }
    Each(const Each&) = delete;
    Each& operator=(const Each&) = delete;

    BPTT_INLINE T& operator[](int i) const { return memory_[i]; }

private:
    void clear() {
        while (count_ > 0) memory_[--count_].~T();
        if (memory_ != reinterpret_cast<T*>(single_)) detail::release(memory_);
    }

    alignas(T) unsigned char single_[sizeof(T)];
    T* memory_;
    int count_ = 0;
};

template <class E>
BPTT_INLINE void fill(E* to, Index count, E value) {
    for (Index i = 0; i < count; ++i) to[i] = value;
}

}  // namespace bptt::BPTT_SET
