#include "bptt/ledger.hpp"

#include "arrays.hpp"
#include "bptt/runtime.hpp"
#include "dispatch.hpp"
#include "validate.hpp"

namespace bptt {

template <class R>
Ledger<R>::Ledger(const Tape<R>& tape, Index max_lag, Index groups, bool only_c, bool both_ways)
    : tape_(tape),
      max_lag_(max_lag),
      groups_(groups),
      only_c_(only_c),
      both_ways_(both_ways),
      at_(tape.dims.T) {
    validate::ledger(validate::Caller("Ledger"), tape, max_lag, groups, only_c);
    const Index N = tape.dims.N, H = tape.dims.H;
    dh_ = zeros<R>({max_lag + 2, N, H});
    if (cell_has_c(tape.cell)) dc_ = zeros<R>({max_lag + 2, N, H});
    weight_hh_ = zeros<R>({groups, max_lag + 2, cell_gates(tape.cell) * H, H});
}

template <class R>
typename Ledger<R>::Part Ledger<R>::back(Index first, View<const R> dy, bool by_slots, bool want_dx) {
    const validate::Caller caller("Ledger.back");
    const Dims& dims = tape_.dims;
    if (tape_.consumed) caller.fail("tape was consumed by a backward call; call that one with retain=True");
    if (first < 0 || first > at_)
        caller.fail("first is " + std::to_string(first) + ", expected 0 <= first <= " + std::to_string(at_) +
                    ", where the call before ended");
    const Index steps = at_ - first, slots = max_lag_ + 2;
    if (dy && by_slots)
        caller.shape(dy, "dy", {steps, slots, dims.N, dims.H}, "(steps, max_lag+2, N, H)");
    else if (dy)
        caller.shape(dy, "dy", {dims.T, dims.N, dims.H}, "(T, N, H)");

    Part part;
    part.map = zeros<R>({steps, max_lag_ + 1, dims.N});
    if (want_dx) part.dx = zeros<R>({steps, slots, dims.N, dims.D});
    if (steps > 0 && dims.N > 0)
        detail::table<kernels::LedgerTable<R>>().ledger[static_cast<int>(tape_.cell)](
            {tape_.cell,
             dims,
             tape_.x.data,
             tape_.weights.weight_ih.data,
             tape_.weights.weight_hh.data,
             tape_.steps.lengths.data,
             tape_.steps.reset.data,
             tape_.steps.reverse,
             tape_.h.data(),
             tape_.c.data(),
             tape_.gates.data(),
             dy.data,
             part.dx.data(),
             dh_.data(),
             dc_.data(),
             weight_hh_.data(),
             static_cast<int>(get_num_threads()),
             first,
             at_,
             max_lag_,
             groups_,
             by_slots,
             only_c_,
             both_ways_,
             part.map.data()});
    at_ = first;
    return part;
}

template <class R>
typename Ledger<R>::Sums Ledger<R>::sums() const {
    const Index parts = max_lag_ + 2, size = weight_hh_.elements() / (groups_ * parts);
    Sums sums{zeros<double>({parts, 2}), zeros<double>({parts, groups_, 2})};
    detail::table<kernels::LedgerTable<R>>().sums({groups_, parts, size, weight_hh_.data(), sums.lag.data(),
                                                   sums.rest.data(), static_cast<int>(get_num_threads())});
    return sums;
}

template class Ledger<float>;
template class Ledger<double>;

}  // namespace bptt
