// Weights that are packed once, for forward calls without end.
#pragma once

#include "kernels/forward_step.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

// How many parts a call wants the units in depends on its shape and its threads: each number of parts is
// packed by the first call that wants it. Calls may ask at the same time.
template <class Cell, class R>
class Prepared {
public:
    using Parts = Each<ForwardWeights<Cell, R>>;

    explicit Prepared(const kernels::WeightArgs<R>& args) : args_(args) {}
    ~Prepared() {
        for (Packed* packed = first_; packed != nullptr;) {
            Packed* const next = packed->next;
            delete packed;
            packed = next;
        }
    }
    Prepared(const Prepared&) = delete;
    Prepared& operator=(const Prepared&) = delete;

    const Parts& in_parts(int count) {
        for (Packed* packed = __atomic_load_n(&first_, __ATOMIC_ACQUIRE); packed != nullptr;
             packed = packed->next)
            if (packed->count == count) return packed->parts;
        // Two calls that come here at once pack twice; the list has room for both.
        auto* const packed = new Packed(args_, count);
        packed->next = __atomic_load_n(&first_, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(&first_, &packed->next, packed, false, __ATOMIC_RELEASE,
                                            __ATOMIC_RELAXED)) {
        }
        return packed->parts;
    }

private:
    struct Packed {
        const int count;
        const Parts parts;
        Packed* next = nullptr;

        Packed(const kernels::WeightArgs<R>& a, int its_count)
            : count(its_count), parts(count, a.D, a.H, count) {
            for (int part = 0; part < count; ++part)
                parts[part].pack(a.weight_ih, a.weight_hh, {a.bias_ih, a.bias_hh, a.H}, 0, 1);
        }
    };

    const kernels::WeightArgs<R> args_;
    Packed* first_ = nullptr;
};

}  // namespace bptt::BPTT_SET
