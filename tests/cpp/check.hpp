// What the C++ tests have in common: a count of what does not hold, and numbers to test with.
#pragma once

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "bptt/bptt.hpp"

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
