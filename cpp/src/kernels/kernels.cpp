// Compiled once for each instruction set (BPTT_SET) and each of float and double (BPTT_REAL): lists the
// cells and fills the set's tables.
#include "kernels/activations.hpp"
#include "kernels/backward_loop.hpp"
#include "kernels/beside.hpp"
#include "kernels/cells/gru.hpp"
#include "kernels/cells/lstm.hpp"
#include "kernels/cells/rnn.hpp"
#include "kernels/dense_step.hpp"
#include "kernels/forward_loop.hpp"
#include "kernels/ledger_loop.hpp"
#include "kernels/ledger_sums.hpp"
#include "kernels/losses.hpp"
#include "kernels/optim.hpp"
#include "kernels/single_step.hpp"
#include "kernels/stream_step.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {
namespace {

template <class Cell, class R>
void forward(const kernels::Calls<kernels::ForwardArgs<R>>& calls) {
    run_calls<R, ForwardLoop<Cell, R>>(calls);
}

template <class Cell, class R>
void backward(const kernels::Calls<kernels::BackwardArgs<R>>& calls) {
    run_calls<R, BackwardLoop<Cell, R>>(calls);
}

template <class Cell, class R>
bool beside(const Dims* dims, int count, const std::int64_t* lengths, int threads) {
    return beside_now<R>(
               forward_work<Cell>, count, [dims](int l) { return dims[l]; }, lengths, true, threads)
               .threads > 1;
}

template <class Cell, class R>
void* prepare(const kernels::WeightArgs<R>& args) {
    return new Prepared<Cell, R>(args);
}

template <class Cell, class R>
void forget(void* prepared) noexcept {
    delete static_cast<Prepared<Cell, R>*>(prepared);
}

template <class Cell, class R>
void ledger(const kernels::LedgerArgs<R>& args) {
    LedgerLoop<Cell, R>(args).run();
}

template <class R>
void ledger_sums(const kernels::LedgerSumsArgs<R>& args) {
    LedgerSums<R>(args).run();
}

template <class Cell, class R>
void* stream_new(const kernels::WeightArgs<R>& args) {
    return new StreamStep<Cell, R>(args);
}

template <class Cell, class R>
void stream_delete(void* stream) noexcept {
    delete static_cast<StreamStep<Cell, R>*>(stream);
}

template <class Cell, class R>
void stream_step(const void* stream, const R* x, R* h, R* c) noexcept {
    static_cast<const StreamStep<Cell, R>*>(stream)->step(x, h, c);
}

template <class... Cells>
struct List {
    template <class R>
    static constexpr kernels::ForwardTable<R> forward_table() {
        return {{forward<Cells, R>...}, {single_step<Cells, R>...}, {beside<Cells, R>...},
                {Cells::kept...},       {prepare<Cells, R>...},     {forget<Cells, R>...}};
    }
    template <class R>
    static constexpr kernels::BackwardTable<R> backward_table() {
        return {{backward<Cells, R>...}};
    }
    template <class R>
    static constexpr kernels::LedgerTable<R> ledger_table() {
        return {{ledger<Cells, R>...}, ledger_sums<R>};
    }
    template <class R>
    static constexpr kernels::StreamTable<R> stream_table() {
        return {{stream_new<Cells, R>...}, {stream_delete<Cells, R>...}, {stream_step<Cells, R>...}};
    }
};

// In the order of bptt::Cell, of which the first three are one to the loops. A fourth cell is one more name.
using Cells = List<Rnn, Rnn, Rnn, Lstm, Gru, GruResetBefore>;

}  // namespace

struct Set;

}  // namespace bptt::BPTT_SET

namespace bptt::kernels {

using BPTT_SET::Cells;
using BPTT_SET::Set;
using Real = BPTT_REAL;

template <>
const ForwardTable<Real> Of<Set, ForwardTable<Real>>::table = Cells::forward_table<Real>();
template <>
const BackwardTable<Real> Of<Set, BackwardTable<Real>>::table = Cells::backward_table<Real>();
template <>
const LedgerTable<Real> Of<Set, LedgerTable<Real>>::table = Cells::ledger_table<Real>();
template <>
const StreamTable<Real> Of<Set, StreamTable<Real>>::table = Cells::stream_table<Real>();
template <>
const DenseTable<Real> Of<Set, DenseTable<Real>>::table = BPTT_SET::dense_table<Real>();
template <>
const ActivationTable<Real> Of<Set, ActivationTable<Real>>::table = BPTT_SET::AllActivations::table<Real>();
template <>
const LossTable<Real> Of<Set, LossTable<Real>>::table = BPTT_SET::loss_table<Real>();
template <>
const OptimTable<Real> Of<Set, OptimTable<Real>>::table = BPTT_SET::optim_table<Real>();

}  // namespace bptt::kernels
