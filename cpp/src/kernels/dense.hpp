// The linear map and the embedding.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/layout.hpp"
#include "kernels/outer_sum.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

// ---- products of whole arrays ----------------------------------------------------------------------

// Neighbouring columns 0..count-1 that come from the same of the weight.
inline Runs columns_run(Index count) {
    Runs runs;
    runs.add({0, 0, count}, false);
    return runs;
}

// So much of the panels (to the depth that a product takes at a time) stays in L2 while all rows pass by.
constexpr Index kPanelBytes = Index{1} << 20;

// Rows of C (M, columns of c) = rows of A (M, K) times some panels.
template <class R>
void product_of_rows(const Panels<R>& b, Range panels, const R* a, R* c, Index c_columns, Range rows) {
    const Index step = kPanelBytes / (larger<Index>(1, smaller(b.K, kDepth)) * kPanel<R> * Index{sizeof(R)});
    for (Index p = panels.first; p < panels.last; p += step)
        for (Index i = rows.first; i < rows.last; i += kGroupRows) {
            const R* from[kGroupRows];
            R* to[kGroupRows];
            const Index m = smaller(kGroupRows, rows.last - i);
            for (Index r = 0; r < m; ++r) {
                from[r] = a + (i + r) * b.K;
                to[r] = c + (i + r) * c_columns;
            }
            product(b, p, smaller(p + step, panels.last), from, to, m);
        }
}

template <class R>
double product_cycles(Index M, Index D, Index V) {
    constexpr double lanes = 2.0 * Vec<R>::size;
    const double weights = static_cast<double>(D * V);
    return weights * static_cast<double>(M) / lanes + weights * sizeof(R) / kStreamBytesPerCycle;
}

// ---- linear ----------------------------------------------------------------------------------------

template <class R>
void linear_forward(const kernels::LinearArgs<R>& a) {
    const Team team(threads_worth(product_cycles<R>(a.M, a.D, a.V), a.threads));
    const int threads = team.threads();
    const PackedWeights<R> weight(columns_run(a.V), a.D);
    const Panels<R>& b = weight.panels();
    // Many outputs: each thread keeps to the panels that it packed. Few: each takes rows.
    const bool by_panels = b.count >= 8 * threads || a.M < threads * kMostRows;
    team.run([&](int thread, Barrier& barrier) {
        weight.pack_transposed(a.weight, thread, threads);
        weight.start_from([&](Index row) { return a.bias != nullptr ? a.bias[row] : R(0); },
                          [](Index) { return true; }, thread, threads);
        if (!by_panels) barrier.wait();
        const Range panels = by_panels ? share(b.count, thread, threads) : Range{0, b.count};
        const Range rows = by_panels ? Range{0, a.M} : share(a.M, thread, threads);
        product_of_rows(b, panels, a.x, a.y, a.V, rows);
    });
}

// Rows of a chunk: the depth of the weight gradient's products.
constexpr Index kLinearChunkRows = 512;

// What a thread needs for itself.
template <class R>
struct LinearSpace : LeftSpace<R> {
    LinearSpace(int, Index columns, Index K) : LeftSpace<R>(columns, K) {}
};

template <class R>
void linear_backward(const kernels::LinearArgs<R>& a) {
    const Team team(threads_worth(2 * product_cycles<R>(a.M, a.D, a.V), a.threads));
    const int threads = team.threads();
    const PackedWeights<R> weight(columns_run(a.D), a.V);
    const RightOperand<R> right(a.D, smaller(a.M, kLinearChunkRows));
    const Space<const R*> weight_rows(a.V);
    const Each<LinearSpace<R>> space(threads, a.V, smaller(a.M, kLinearChunkRows));
    for (Index v = 0; v < a.V; ++v) weight_rows[v] = a.weight + v * a.D;
    const OuterBlock<R> block{0, a.V, {{&right, a.dweight, a.D, a.dbias}, {}}, 1};
    team.run([&](int thread, Barrier& barrier) {
        weight.pack_straight(weight_rows.data(), thread, threads);
        weight.start_from_zero(thread, threads);
        for (Index first = 0; first == 0 || first < a.M; first += kLinearChunkRows) {
            const R *x[kLinearChunkRows], *dy[kLinearChunkRows];
            const Index K = smaller(kLinearChunkRows, a.M - first);
            for (Index k = 0; k < K; ++k) {
                x[k] = a.x + (first + k) * a.D;
                dy[k] = a.dy + (first + k) * a.V;
            }
            right.prepare(x, K, thread, threads);
            barrier.wait();  // operands of all threads are there
            outer_sum(&block, 1, dy, K, thread, threads, space[thread], first == 0 ? Into::fresh : Into::sum);
            // dx of the chunk, while its dy is near.
            const Range mine = share(K, thread, threads);
            product_of_rows(weight.panels(), Range{0, weight.panels().count}, a.dy, a.dx, a.D,
                            Range{first + mine.first, first + mine.last});
            barrier.wait();  // the next chunk writes over the operand
        }
    });
}

// ---- embedding -------------------------------------------------------------------------------------

constexpr Index kGatherRows = 128;  // of a block

template <class R>
void embedding_forward(const kernels::EmbeddingArgs<R>& a) {
    const double cycles = static_cast<double>(2 * a.M * a.E) * sizeof(R) / kStreamBytesPerCycle;
    for_each_block(ceil_div(a.M, kGatherRows), cycles, a.threads, [&](Index block) {
        const Index last = smaller((block + 1) * kGatherRows, a.M);
        for (Index m = block * kGatherRows; m < last; ++m) {
            const R* const from = a.weight + a.index[m] * a.E;
            R* const to = a.y + m * a.E;
            for_each_vector<R>(Range{0, a.E},
                               [=](int, auto get, auto put) BPTT_ALWAYS { put(to, get(from)); });
        }
    });
}

// Each thread takes some columns of all rows, so that each element is summed in the order of the rows,
// without two threads meeting.
template <class R>
void embedding_backward(const kernels::EmbeddingArgs<R>& a) {
    constexpr Index line = 64 / Index{sizeof(R)};
    const Index lines = ceil_div(a.E, line);
    const double cycles = static_cast<double>((3 * a.M + a.V) * a.E) * sizeof(R) / kStreamBytesPerCycle;
    const Team team(threads_worth(cycles, static_cast<int>(smaller<Index>(a.threads, lines))));
    team.run([&](int thread, Barrier& barrier) {
        const Range zero = share(a.V * a.E, thread, team.threads());
        fill(a.dweight + zero.first, zero.count(), R(0));
        barrier.wait();
        const Range mine = share(lines, thread, team.threads());
        const Range columns{mine.first * line, smaller(mine.last * line, a.E)};
        for (Index m = 0; m < a.M; ++m) {
            const R* const from = a.dy + m * a.E;
            R* const to = a.dweight + a.index[m] * a.E;
            for_each_vector<R>(columns,
                               [=](int, auto get, auto put) BPTT_ALWAYS { put(to, get(to) + get(from)); });
        }
    });
}

}  // namespace bptt::BPTT_SET
