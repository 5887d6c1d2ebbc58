// Arrays that begin with something in them.
#pragma once

#include <algorithm>

#include "bptt/types.hpp"

namespace bptt {

template <class E>
Array<E> zeros(const Shape& shape) {
    Array<E> array(shape);
    std::fill_n(array.data(), array.elements(), E(0));
    return array;
}

}  // namespace bptt
