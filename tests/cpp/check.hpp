// What the C++ tests have in common: a count of what does not hold, and numbers to test with.
#pragma once

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "bptt/bptt.hpp"

// Whether a sanitizer is in the program.
#if defined(__has_feature)
#define BPTT_HAS(feature) __has_feature(feature)
#else
#define BPTT_HAS(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || BPTT_HAS(address_sanitizer) || \
    BPTT_HAS(thread_sanitizer) || BPTT_HAS(memory_sanitizer) || BPTT_HAS(realtime_sanitizer)
#define BPTT_SANITIZED 1
#else
#define BPTT_SANITIZED 0
#endif

// Under -fsanitize=realtime (clang 20 and later) whatever is called from here and may wait ends the program.
#if defined(__has_cpp_attribute)
#if __has_cpp_attribute(clang::nonblocking)
#define BPTT_NONBLOCKING [[clang::nonblocking]]
#endif
#endif
#if !defined(BPTT_NONBLOCKING)
#define BPTT_NONBLOCKING
#endif

inline int failures = 0;

inline void check(bool holds, const std::string& sentence) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "does not hold: %s\n", sentence.c_str());
}

// That the call throws an Error whose sentence has these words.
template <class Error = std::invalid_argument, class Call>
void check_refused(const std::string& words, Call call) {
    try {
        call();
    } catch (const Error& error) {
        check(std::string(error.what()).find(words) != std::string::npos,
              "expected the words \"" + words + "\" in: " + error.what());
        return;
    } catch (const std::exception& error) {
        return check(false, "expected another kind of exception for \"" + words + "\": " + error.what());
    }
    check(false, "expected an exception: " + words);
}

template <class R>
bool same_bits(bptt::View<const R> a, bptt::View<const R> b) {
    return a.shape == b.shape &&
           std::memcmp(a.data, b.data, static_cast<std::size_t>(a.elements()) * sizeof(R)) == 0;
}

// In -0.5..0.5, the same every time.
template <class R>
bptt::Array<R> numbers(const bptt::Shape& shape, unsigned seed) {
    bptt::Array<R> array(shape);
    for (bptt::Index i = 0; i < array.elements(); ++i) {
        seed = seed * 1664525u + 1013904223u;
        array.data()[i] = static_cast<R>(seed >> 8) / static_cast<R>(1 << 24) - R(0.5);
    }
    return array;
}
