#include "bind.hpp"
#include "bptt/runtime.hpp"

namespace bptt::bindings {

void register_runtime(py::module_& module) {
    // A set that cannot be had is an error when the module is imported, not at the first call.
    try {
        instruction_set();
    } catch (const std::runtime_error& error) {
        throw py::import_error(std::string("bptt: ") + error.what());
    }
    module.def(
        "set_num_threads",
        [](py::handle threads) {
            if (!py::isinstance<py::int_>(threads) || py::isinstance<py::bool_>(threads))
                type_error("set_num_threads", "threads is a " + type_name(threads) + ", expected an int");
            int overflow = 0;
            const long long value = PyLong_AsLongLongAndOverflow(threads.ptr(), &overflow);
            set_num_threads(overflow != 0 ? (overflow < 0 ? -1 : PTRDIFF_MAX) : static_cast<Index>(value));
        },
        py::arg("threads"));
    module.def("get_num_threads", &get_num_threads);
    module.def("used_memory", &used_memory);
    module.def("peak_memory", &peak_memory);
    module.def("reset_peak_memory", &reset_peak_memory);
    module.def(
        "spend_most_memory",
        [](bool on) {
            spend_most_memory(on);
            copies_small = !on;
        },
        py::arg("on"));
    module.def("instruction_set", &instruction_set);
    module.def("supported_instruction_sets", &supported_instruction_sets);
}

}  // namespace bptt::bindings
