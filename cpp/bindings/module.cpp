#include "bind.hpp"
#include "bptt/version.hpp"

// Free-threaded Python may call from several threads: the core's calls share nothing but the pool.
PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of bptt. What is public is wrapped, and documented, in the package.";
    module.attr("__version__") = bptt::version();
    bptt::bindings::register_runtime(module);
    bptt::bindings::register_recurrent(module);
    bptt::bindings::register_layers(module);
    bptt::bindings::register_ledger(module);
    bptt::bindings::register_stream(module);
    bptt::bindings::register_activations(module);
    bptt::bindings::register_dense(module);
    bptt::bindings::register_losses(module);
    bptt::bindings::register_optim(module);
}
