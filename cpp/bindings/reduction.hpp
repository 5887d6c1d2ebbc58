// The names of the reductions.
#pragma once

#include "numpy.hpp"

namespace bptt::bindings {

inline Reduction reduction_of(const std::string& caller, py::handle reduction) {
    if (!py::isinstance<py::str>(reduction))
        type_error(caller, "reduction is a " + type_name(reduction) + ", expected a str");
    const std::string name = py::cast<std::string>(reduction);
    if (name == "mean") return Reduction::mean;
    if (name == "sum") return Reduction::sum;
    if (name == "mean_sequences") return Reduction::mean_sequences;
    throw py::value_error(caller + ": reduction is \"" + name +
                          "\", expected \"mean\", \"sum\" or \"mean_sequences\"");
}

}  // namespace bptt::bindings
