// Compiled once for each instruction set: lists the cells and fills the set's table.
#include "kernels/backward_loop.hpp"
#include "kernels/cells/gru.hpp"
#include "kernels/cells/lstm.hpp"
#include "kernels/cells/rnn.hpp"
#include "kernels/dense.hpp"
#include "kernels/forward_loop.hpp"
#include "kernels/ledger_loop.hpp"
#include "kernels/losses.hpp"
#include "kernels/optim.hpp"
#include "kernels/pair.hpp"
#include "kernels/stream_step.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {
namespace {

template <class Cell, class R>
void forward(const kernels::ForwardArgs<R>& args) {
    ForwardLoop<Cell, R>(args).run();
}

template <class Cell, class R>
void backward(const kernels::BackwardArgs<R>& args) {
    BackwardLoop<Cell, R>(args).run();
}

template <class Cell, class R>
void forward_pair(const kernels::ForwardArgs<R>* two) {
    run_pair<Cell, R, ForwardLoop<Cell, R>>(two);
}

template <class Cell, class R>
void backward_pair(const kernels::BackwardArgs<R>* two) {
    run_pair<Cell, R, BackwardLoop<Cell, R>>(two);
}

template <class Cell, class R>
void ledger(const kernels::LedgerArgs<R>& args) {
    LedgerLoop<Cell, R>(args).run();
}

template <class Cell, class R>
void* stream_new(const kernels::StreamArgs<R>& args) {
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

// In the order of bptt::Cell. A fourth cell is one more name here.
template <class R, class... Cells>
constexpr kernels::RecurrentTable<R> recurrent_table() {
    return {{forward<Cells, R>...},       {backward<Cells, R>...},      {forward_pair<Cells, R>...},
            {backward_pair<Cells, R>...}, {ledger<Cells, R>...},        {Cells::kept...},
            {stream_new<Cells, R>...},    {stream_delete<Cells, R>...}, {stream_step<Cells, R>...}};
}

template <class R>
constexpr kernels::RecurrentTable<R> all_cells() {
    return recurrent_table<R, Rnn<Tanh>, Rnn<Relu>, Rnn<Identity>, Lstm, Gru, GruResetBefore>();
}

template <class R>
constexpr kernels::TableOf<R> table_of() {
    return {all_cells<R>(), dense_table<R>(), loss_table<R>(), optim_table<R>()};
}

}  // namespace

extern const kernels::Table table;
const kernels::Table table = {table_of<float>(), table_of<double>()};

}  // namespace bptt::BPTT_SET
