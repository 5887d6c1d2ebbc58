#include <memory>
#include <variant>

#include "bind.hpp"
#include "bptt/ledger.hpp"
#include "tape.hpp"

namespace bptt::bindings {
namespace {

class PyLedger {
public:
    template <class R>
    explicit PyLedger(std::unique_ptr<Ledger<R>> ledger) : ledger_(std::move(ledger)) {}

    template <class Visitor>
    auto visit(Visitor&& visitor) const {
        return std::visit([&](const auto& ledger) { return visitor(*ledger); }, ledger_);
    }

private:
    std::variant<std::unique_ptr<Ledger<float>>, std::unique_ptr<Ledger<double>>> ledger_;
};

template <class R>
py::tuple back(Ledger<R>& ledger, Index first, py::handle dy, bool by_slots, bool want_dx) {
    const Input<R> its_dy("Ledger.back", "dy", dy);
    typename Ledger<R>::Part part;
    {
        py::gil_scoped_release without_gil;
        part = ledger.back(first, its_dy, by_slots, want_dx);
    }
    return py::make_tuple(to_numpy(part.map), to_numpy(part.dx));
}

template <class R>
py::tuple sums(const Ledger<R>& ledger) {
    typename Ledger<R>::Sums sums;
    {
        py::gil_scoped_release without_gil;
        sums = ledger.sums();
    }
    return py::make_tuple(to_numpy(sums.lag), to_numpy(sums.rest));
}

}  // namespace

void register_ledger(py::module_& module) {
    py::class_<PyLedger>(module, "Ledger", "The gradient of a tape, taken apart by lag.")
        .def(py::init([](const PyTape& tape, Index max_lag, Index groups, bool only_c, bool both_ways) {
                 return tape.visit([&](auto& held) {
                     using R = typename std::decay_t<decltype(held)>::Scalar;
                     return PyLedger(
                         std::make_unique<Ledger<R>>(held.tape, max_lag, groups, only_c, both_ways));
                 });
             }),
             py::arg("tape"), py::arg("max_lag"), py::arg("groups"), py::arg("only_c"),
             py::arg("both_ways") = false, py::keep_alive<1, 2>())
        .def(
            "back",
            [](const PyLedger& ledger, Index first, py::object dy, bool by_slots, bool want_dx) {
                return ledger.visit([&](auto& its) { return back(its, first, dy, by_slots, want_dx); });
            },
            py::arg("first"), py::arg("dy").none(true), py::arg("by_slots"), py::arg("want_dx"))
        .def("sums", [](const PyLedger& ledger) { return ledger.visit([](auto& its) { return sums(its); }); })
        .def_property_readonly("weight_hh", [](const PyLedger& ledger) {
            return ledger.visit([](auto& its) { return to_numpy(its.weight_hh()); });
        });
}

}  // namespace bptt::bindings
