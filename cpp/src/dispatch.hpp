// THE choice of instruction set: hands out one table of kernels.
#pragma once

#include "kernels/table.hpp"

namespace bptt::detail {

// Chosen once. Throws std::runtime_error as instruction_set() does.
const kernels::Table& table();

template <class R>
const kernels::TableOf<R>& table_of();
template <>
inline const kernels::TableOf<float>& table_of<float>() {
    return table().of_float;
}
template <>
inline const kernels::TableOf<double>& table_of<double>() {
    return table().of_double;
}

}  // namespace bptt::detail
