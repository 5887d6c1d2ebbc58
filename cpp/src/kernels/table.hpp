// What a compiled set of kernels provides: plain functions over plain pointers, checked by nobody here.
// The caller (cpp/src) has checked everything and made room.
#pragma once

#include "bptt/types.hpp"

namespace bptt::kernels {

// ---- the recurrent layer: shapes are those of bptt/recurrent.hpp; T, N, D, H > 0 -------------------

template <class R>
struct ForwardArgs {
    Cell cell;
    Dims dims;
    const R* x;
    const R *weight_ih, *weight_hh;
    const R *bias_ih, *bias_hh;   // both or neither
    const std::int64_t* lengths;  // or null
    const bool* reset;            // or null
    bool reverse;                 // from each sequence's end to its beginning
    R* h;                         // (T+1, N, H), slot 0 (in reverse T) filled
    R* c;                         // (T+1, N, H), likewise; without a tape (N, H), updated in place
    R* gates;                     // (T, N, kept*H); null without a tape, and where the cell keeps none
    bool keep;                    // whether there is a tape
    int threads;
    void* prepared;  // the weights as ForwardTable::prepare took them, or null
};

// What a look at the gradient's way wants of a backward call; null: not wanted.
template <class R>
struct TraceArgs {
    R* recurrent;   // (T, N, H): of dL/dh_t what step t+1 handed back; zeroed beyond lengths
    R* c;           // (T, N, H): dL/dc_t, where the cell has a c; likewise
    double* norms;  // (T, 4): of weight_ih, weight_hh, bias_ih, bias_hh; zeroed
    // With norms only, all or none: each step's share of the gradients (T, ...), and
    R *weight_ih, *weight_hh, *bias_ih, *bias_hh;
    R* delta;  // (T, N, G*H): dL/d(W_hh h + b_hh)
};

template <class R>
struct BackwardArgs {
    Cell cell;
    Dims dims;
    const R* x;
    const R *weight_ih, *weight_hh;
    const std::int64_t* lengths;  // or null
    const bool* reset;            // or null
    bool reverse;
    const R *h, *c, *gates;  // the tape
    const R* dy;             // (T, N, H), or null
    R* dx;                   // (T, N, D), or null: not wanted
    R *dh, *dc;              // (N, H): the final state's gradient on entry, the initial state's on return
    R *dweight_ih, *dweight_hh;
    R *dbias_ih, *dbias_hh;  // both or neither
    int threads;
    TraceArgs<R> trace;
};

// Rows of gradient are (slot, n) for slot = 0..max_lag+1. Slot s mod (max_lag+1) is what the loss at step s
// sends back, slot max_lag+1 what all losses do. dh, dc are (max_lag+2, N, H), and stay from call to call.
// Steps are counted as they are taken; arrays of the call's steps have them in the order of time.
template <class R>
struct LedgerArgs {
    Cell cell;
    Dims dims;
    const R* x;
    const R *weight_ih, *weight_hh;
    const std::int64_t* lengths;  // or null
    const bool* reset;            // or null
    bool reverse;
    const R *h, *c, *gates;  // the tape
    const R* dy;             // (T, N, H); with dy_slots (last-first, max_lag+2, N, H); or null
    R* dx;                   // (last-first, max_lag+2, N, D), or null
    R *dh, *dc;
    R* dweight_hh;  // (groups, max_lag+2, G*H, H): entry k of lag k, the last of all; added to
    int threads;
    Index first, last;  // the steps: first <= t < last; the call before ended at `last`
    Index max_lag, groups;
    bool dy_slots, only_c;
    bool both_ways;  // whether a lag may be more than there are steps ahead
    R* map;          // (last-first, max_lag+1, N): |dL_{t+k}/dh_t|; zeroed; or null
};

// Weights that many calls will have.
template <class R>
struct WeightArgs {
    Cell cell;
    Index D, H;
    const R *weight_ih, *weight_hh;
    const R *bias_ih, *bias_hh;  // both or neither
};

// One step, from unpacked weights.
template <class R>
struct StepArgs {
    Cell cell;
    Index N, D, H;
    const R* x;  // (N, D)
    const R *weight_ih, *weight_hh;
    const R *bias_ih, *bias_hh;  // both or neither
    const R *h, *c;              // (N, H); c where the cell has one
    R *h_next, *c_next;          // (N, H), not h and c
};

constexpr int kCells = 6;

// Calls that may run side by side, of the same T, N, H, lengths and threads. Chained: what one writes for a
// step (y, or dx) the next one reads (as x, or dy).
template <class Args>
struct Calls {
    const Args* call;
    int count;
    bool chained;
    // Told of a call's steps first..last-1, counted as they are taken, when they are done and before the next
    // call reads them; null: nobody is. It must not throw.
    void (*passed)(const void* context, int call, Index first, Index last);
    const void* context;

    void pass(int its, Index first, Index last) const {
        if (passed != nullptr) passed(context, its, first, last);
    }
};

// All by Cell.
template <class R>
struct ForwardTable {
    void (*forward[kCells])(const Calls<ForwardArgs<R>>&);
    void (*step[kCells])(const StepArgs<R>&);
    // Whether chained calls of these sizes run side by side. Else nothing asks for room for all of them at
    // once.
    bool (*beside[kCells])(const Dims* dims, int count, const std::int64_t* lengths, int threads);
    Index kept[kCells];
    // The object is the kernel's own, and keeps what is made of the weights. They must stay where and what
    // they are.
    void* (*prepare[kCells])(const WeightArgs<R>&);
    void (*forget[kCells])(void* prepared) noexcept;
};

template <class R>
struct BackwardTable {
    void (*backward[kCells])(const Calls<BackwardArgs<R>>&);
};

// See bptt::Ledger::Sums, whose arrays lag and rest are.
template <class R>
struct LedgerSumsArgs {
    Index groups, parts, size;  // parts: max_lag+2
    const R* weight_hh;         // (groups, parts, size)
    double *lag, *rest;         // (parts, 2), (parts, groups, 2)
    int threads;
};

template <class R>
struct LedgerTable {
    void (*ledger[kCells])(const LedgerArgs<R>&);
    void (*sums)(const LedgerSumsArgs<R>&);
};

// A stream is the kernel's own object, made and ended by it.
template <class R>
struct StreamTable {
    void* (*make[kCells])(const WeightArgs<R>&);
    void (*end[kCells])(void* stream) noexcept;
    void (*step[kCells])(const void* stream, const R* x, R* h, R* c) noexcept;
};

// ---- the linear map: y (M, V) = x (M, D) @ weight^T (V, D) + bias (V) -------------------------------

template <class R>
struct LinearArgs {
    Index M, D, V;
    const R *x, *weight, *bias;   // bias or null
    const R* dy;                  // backward only, as what follows
    R *y, *dx, *dweight, *dbias;  // dbias or null
    int threads;
};

template <class R>
struct EmbeddingArgs {
    Index M, V, E;
    const std::int64_t* index;  // (M,), each in 0..V-1
    const R *weight, *dy;       // (V, E) forward; (M, E) backward
    R *y, *dweight;             // (M, E) forward; (V, E) backward
    int threads;
};

template <class R>
struct DenseTable {
    void (*linear_forward)(const LinearArgs<R>&);
    void (*linear_backward)(const LinearArgs<R>&);
    void (*embedding_forward)(const EmbeddingArgs<R>&);
    void (*embedding_backward)(const EmbeddingArgs<R>&);
    // One row at a time, with prepared weights that are the kernel's own object (of D, V, weight, bias).
    void* (*linear_new)(const LinearArgs<R>&);
    void (*linear_delete)(void* prepared) noexcept;
    void (*linear_step)(const void* prepared, const R* x, R* y) noexcept;
};

// ---- activations -----------------------------------------------------------------------------------

constexpr int kNonlinearities = 5;

template <class R>
struct ActivationArgs {
    Index M, V;   // rows and their width, V > 0
    const R* x;   // (M, V) of a forward call; null of a backward one, which has instead
    const R* y;   // (M, V), what forward gave, and
    const R* dy;  // (M, V)
    R* out;       // (M, V): y or dx
    int threads;
};

// All by Nonlinearity.
template <class R>
struct ActivationTable {
    void (*whole[kNonlinearities])(const ActivationArgs<R>&);
    void (*step[kNonlinearities])(const R* x, R* y, Index V) noexcept;  // of one row
};

// ---- losses: each returns the sum of the valid elements' losses ------------------------------------

template <class R>
struct ElementLossArgs {
    Index count;  // elements
    const R *prediction, *target;
    const bool* mask;  // or null
    Index mask_width;  // neighbouring elements that one entry of the mask speaks of
    R* gradient;
    double factor;  // of the gradient
    int threads;
    double parameter;  // the loss's own, where it has one
    Index width;       // elements in a row, where rows matter
};

template <class R>
struct SoftmaxArgs {
    Index M, V;
    const R* prediction;         // (M, V)
    const std::int64_t* target;  // (M,), each in 0..V-1 unless masked out
    const bool* mask;            // (M,), or null
    R* gradient;                 // (M, V)
    double factor;               // of the gradient
    int threads;
    const R* weight;    // (V,), or null: ones
    double weight_sum;  // of all classes
    double smoothing;   // 0..1
};

template <class R>
struct LossTable {
    double (*mse)(const ElementLossArgs<R>&);
    double (*huber)(const ElementLossArgs<R>&);  // parameter: delta
    double (*gaussian_nll)(
        const ElementLossArgs<R>&);  // parameter: added to each; prediction: rows of 2*width
    double (*binary_cross_entropy_with_logits)(const ElementLossArgs<R>&);
    double (*softmax_cross_entropy)(const SoftmaxArgs<R>&);
};

// ---- optimizers: formulas are those of bptt/optim.hpp ----------------------------------------------

// One array of a list and what belongs to it, where the call has a use for it.
template <class R>
struct ListEntry {
    R* value;  // changed in place
    const R* gradient;
    R *first, *second;  // the optimizer's own
    Index count;
    R decay;  // g = gradient + decay*value
    R keep;   // Adam: of the value, before the step
};

template <class R>
struct List {
    const ListEntry<R>* entry;
    Index count;
    int threads;
};

struct SgdStep {
    double lr, momentum;  // `first` may be null where momentum is 0
    bool nesterov;
};
struct RmspropStep {
    double lr, alpha, eps;
};
struct AdagradStep {
    double lr, eps;
};
// p = keep*p - rate * m / (root*sqrt(v) + eps).
struct AdamStep {
    double beta1, beta2, eps;
    double rate, root;  // lr and 1, with the bias corrections
};

template <class R>
struct OptimTable {
    void (*sgd)(const List<R>&, const SgdStep&);
    void (*rmsprop)(const List<R>&, const RmspropStep&);
    void (*adagrad)(const List<R>&, const AdagradStep&);
    void (*adam)(const List<R>&, const AdamStep&);
    double (*square_sum)(const List<R>&);  // of the gradients
    void (*scale)(const List<R>&, double factor);
    void (*clip_by_value)(const List<R>&, double limit);
};

// ---- all of a set ----------------------------------------------------------------------------------

// A table of a set, which is named by the struct `Set` of the set's namespace. Each stands alone, so that a
// linker that drops what nobody asks for (--gc-sections) drops the tables, and all that they refer to.
template <class Set, class Table>
struct Of {
    static const Table table;
};

}  // namespace bptt::kernels
