// Work that needs no loop through time: how many threads it is worth, and blocks of it dealt to them.
//
// Where a call sums, it sums each block by itself and then the blocks' sums in their order. Blocks have
// fixed sizes, so the bits do not depend on the number of threads.
#pragma once

#include "kernels/plan.hpp"
#include "kernels/space.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

constexpr double kStreamBytesPerCycle = 16;  // of the outer caches, read or written by one thread

// At most as many threads as have work for longer than it takes to start them. cycles: of one thread.
inline int threads_worth(double cycles, int threads) {
    if (detail::spends_most_memory()) return threads;  // each may have working space
    const double most = cycles / kRegionCycles;
    return most < 2 ? 1 : most < threads ? static_cast<int>(most) : threads;
}

// body(block) for each block of `count` things; cycles: of all blocks on one thread.
template <class Body>
void for_each_block(Index blocks, double cycles, int threads, Body&& body) {
    const Team team(threads_worth(cycles, static_cast<int>(smaller<Index>(threads, blocks))));
    team.run([&](int thread, Barrier&) {
        const Range mine = share(blocks, thread, team.threads());
        for (Index b = mine.first; b < mine.last; ++b) body(b);
    });
}

// The sum of body(block), added in the order of the blocks.
template <class Body>
double sum_of_blocks(Index blocks, double cycles, int threads, Body&& body) {
    const Space<double> part(blocks);
    for_each_block(blocks, cycles, threads, [&](Index b) { part[b] = body(b); });
    double sum = 0;
    for (Index b = 0; b < blocks; ++b) sum += part[b];
    return sum;
}

// body(count, get, put) for `count` elements from `first` on, less than a vector: get(p) reads those of p,
// put(p, lanes) writes them.
template <class R, class Body>
BPTT_INLINE void for_part_of_vector(Index first, int count, Body&& body) {
    body(
        count, [=](const R* p) BPTT_ALWAYS { return Lanes<R>(load_first(p + first, count)); },
        [=](R* p, Lanes<R> v) BPTT_ALWAYS { store_first(p + first, v.v, count); });
}

// The same for one vector of a range after the other, and what is left.
template <class R, class Body>
BPTT_INLINE void for_each_vector(Range range, Body&& body) {
    constexpr int W = Vec<R>::size;
    Index i = range.first;
    for (; i + W <= range.last; i += W)
        body(
            W, [i](const R* p) BPTT_ALWAYS { return Lanes<R>(load(p + i)); },
            [i](R* p, Lanes<R> v) BPTT_ALWAYS { store(p + i, v.v); });
    if (i < range.last) for_part_of_vector<R>(i, static_cast<int>(range.last - i), body);
}

// The same for a body that makes each element from what stands at its place, and writes at most `most` of
// them: the last vector is whole where there is room for one, and takes some elements that another one takes
// as well. It reads them before they are written, and is written last. (A part of a vector is written slowly,
// and for a while nothing can be read from what stands beside it.)
template <class R, int most, class Body>
BPTT_INLINE void for_each_element(Range range, Body&& body) {
    constexpr int W = Vec<R>::size;
    if (range.count() <= 0) return;
    if (range.count() < W) return for_part_of_vector<R>(range.first, static_cast<int>(range.count()), body);
    R* to[most];
    V<R> kept[most];
    int count = 0;
    bool keeps = range.count() % W > 0;
    for (Index i = keeps ? range.last - W : range.first; i + W <= range.last;) {
        body(
            W, [i](const R* p) BPTT_ALWAYS { return Lanes<R>(load(p + i)); },
            [&, i](R* p, Lanes<R> v) BPTT_ALWAYS {
                if (keeps) {
                    to[count] = p + i;
                    kept[count++] = v.v;
                } else {
                    store(p + i, v.v);
                }
            });
        i = keeps ? range.first : i + W;
        keeps = false;
    }
    for (int i = 0; i < count; ++i) store(to[i], kept[i]);
}

}  // namespace bptt::BPTT_SET
