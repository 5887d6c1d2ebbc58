// THE choice of instruction set: hands out its tables of kernels.
#pragma once

#include "kernels/table.hpp"

namespace bptt::detail {

// `Table` is one of kernels/table.hpp's for float or double. The set is chosen once. Throws
// std::runtime_error as instruction_set() does.
template <class Table>
const Table& table();

}  // namespace bptt::detail
