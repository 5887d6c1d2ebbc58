// What module.cpp lists.
#pragma once

#include "numpy.hpp"

namespace bptt::bindings {

void register_runtime(py::module_& module);
void register_recurrent(py::module_& module);
void register_layers(py::module_& module);
void register_ledger(py::module_& module);
void register_stream(py::module_& module);
void register_activations(py::module_& module);
void register_dense(py::module_& module);
void register_losses(py::module_& module);
void register_optim(py::module_& module);

}  // namespace bptt::bindings
