// Rows times a packed matrix: THE tile, and the products made of it.
//
// Every product is C[i][j] = sum over k of A[i][k] * B[k][j], to which C or a bias is the first term. B
// stands packed in panels of two vectors: panel p holds B[k][its columns] for k = 0, 1, ...; A is read where
// its rows stand. Each element of C is one chain of fused multiply-adds in the order of k, whatever the tile:
// so the bits depend neither on how rows are grouped nor on the number of threads.
#pragma once

#include "kernels/coming.hpp"

namespace bptt::BPTT_SET {

// The tallest tile of two vectors. With 16 registers it has as many rows as keep their sums in them; with 32
// not so many, as each needs an address as well, but enough to keep the multipliers busy. Low tiles are wider
// instead.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMostRows = 8;
constexpr int widest(int rows) { return rows == 1 ? 16 : rows <= 3 ? 8 : rows <= 6 ? 4 : 2; }
constexpr int kMostOfOneRow = 16;
#else
constexpr int kMostRows = 6;
constexpr int widest(int rows) { return rows == 1 ? 8 : rows <= 3 ? 4 : 2; }
constexpr int kMostOfOneRow = 12;
#endif

// What follows for the panels that are left. A single row is bound by its chains' latency: all that are left
// go into one tile where there are registers for them (kMostOfOneRow).
constexpr int narrower(int rows, int wide) { return rows == 1 ? wide - 2 : wide / 2; }
constexpr bool takes(int rows, int wide, Index panels_left) {
    return wide <= widest(rows) ? wide / 2 <= panels_left : wide / 2 == panels_left;
}

// How many k a tile takes in a round of its loop, where its sums and what they are made of leave a register
// free. The processor fetches instructions up to a branch, and where two hardware threads share a core each
// has every second fetch: short rounds then wait for instructions. (A single row waits for its weights
// anyway.)
#if defined(__FMA__) && !defined(__AVX512F__)
constexpr int kRound = 4;
#else
constexpr int kRound = 1;
#endif
constexpr int round_of(int rows, int wide) {
    return rows > 1 && rows * wide + (rows < wide ? rows : wide) + 1 < 16 ? kRound : 1;
}

constexpr Index kNearBytes = Index{256} << 10;    // panels of so many bytes stay in L2 by themselves,
constexpr Index kNearestBytes = Index{48} << 10;  // of so many in L1

// How many k a product goes through before it starts on the next panel: a group's rows of so many stay in L2.
constexpr Index kDepth = kMostRows == 8 ? 1024 : 512;

template <class R>
constexpr int kPanel = 2 * Vec<R>::size;  // columns of a panel

// Where a panel's columns come from, where they stand in C, and what they start from.
template <class R>
struct Panel {
    Index source;    // the first one's row or column in what is packed
    Index column;    // in the row of C
    int width;       // 1..kPanel
    const R* start;  // kPanel values instead of C's own, or nullptr
};

// B, packed. data: [count][K][kPanel].
template <class R>
struct Panels {
    R* data = nullptr;
    Panel<R>* panel = nullptr;
    Index K = 0;
    Index count = 0;

    BPTT_INLINE R* at(Index p) const { return data + p * K * kPanel<R>; }
};

// ---- packing -------------------------------------------------------------------------------------

// A panel whose columns are `count` rows: out[k][lane] = rows[lane][k] for k < K; lanes beyond them are zero.
//
// Many rows read side by side come slowly from memory. So what is read next is asked for meanwhile, in order.
template <class R>
BPTT_SHARED void pack_rows(const R* const* rows, int count, Index K, R* out, Coming coming) {
    constexpr int W = Vec<R>::size, lanes = kPanel<R>;
    coming.share_out(ceil_div(K, W));
    for (Index k = 0; k < K; k += W) {
        coming.ask();
        const int depth = static_cast<int>(smaller<Index>(W, K - k));
        for (int group = 0; group < lanes; group += W) {
            V<R> block[W];
            unroll<W>([&](auto i) {
                block[i] = group + i < count ? load_lanes(rows[group + i] + k, depth) : all(R(0));
            });
            transpose<R>(block);
            unroll<W>([&](auto i) {
                if (i < depth) store(out + (k + i) * lanes + group, block[i]);
            });
        }
    }
}

// One whose rows they are: out[k][lane] = rows[k][column + lane]; lanes beyond `count` are zero.
template <class R>
BPTT_SHARED void pack_columns(const R* const* rows, Index K, Index column, int count, R* out) {
    constexpr int W = Vec<R>::size, lanes = kPanel<R>;
    for (Index k = 0; k < K; ++k) {
        const R* from = rows[k] + column;
        unroll<lanes / W>([&](auto i) {
            constexpr int lane = decltype(i)::value * W;
            const V<R> v = lane < count ? load_lanes(from + lane, count - lane) : all(R(0));
            store(out + k * lanes + lane, v);
        });
    }
}

// Panels p of `mine`, at out + p*K*kPanel<R>, whose sources are columns of the rows. Several whole panels at
// a time: each row is then read a few lines on end.
template <class R>
BPTT_SHARED void pack_panels(const R* const* rows, Index K, const Panel<R>* panel, Range mine, R* out) {
    constexpr int W = Vec<R>::size, at_once = 4;
    const Index size = K * kPanel<R>;
    for (Index p = mine.first; p < mine.last;) {
        int whole = 0;
        while (whole < at_once && p + whole < mine.last && panel[p + whole].width == kPanel<R>) ++whole;
        if (whole < at_once) {
            pack_columns<R>(rows, K, panel[p].source, panel[p].width, out + p * size);
            ++p;
            continue;
        }
        Index column[at_once];
        R* to[at_once];
        BPTT_UNROLL (i, at_once) {
            column[i] = panel[p + i].source;
            to[i] = out + (p + i) * size;
        }
        for (Index k = 0; k < K; ++k) {
            BPTT_UNROLL (i, at_once) {
                store(to[i] + k * kPanel<R>, load(rows[k] + column[i]));
                store(to[i] + k * kPanel<R> + W, load(rows[k] + column[i] + W));
            }
        }
        p += at_once;
    }
}

// ---- the tile ------------------------------------------------------------------------------------

// What else a tile does: it asks for a share of what is coming, a little in each round, or goes on with a
// second product's panels, which stand where the first one's do.
enum class Also { nothing, ask, second };

template <class R>
struct More {
    Coming* coming;
    const Panels<R>* b;
    const R* const* a;
};

// M rows of C times `wide` vectors, which are wide/2 panels (or the first half of one), from p on; k runs
// over k0..k0+K-1.
template <class R, int M, int wide, Also also = Also::nothing>
BPTT_SHARED void tile(const Panels<R>& b, Index p, Index k0, Index K, const R* const* a, R* const* c,
                      More<R> more = {}) {
    constexpr int W = Vec<R>::size;
    const Panel<R>* panel = b.panel + p;
    const Index panel_stride = b.K * kPanel<R>;
    const R* from = b.at(p) + k0 * kPanel<R>;

    constexpr std::integral_constant<int, round_of(M, wide)> several{};
    const char* line = reinterpret_cast<const char*>(from);
    Index step = 0;
    if constexpr (also == Also::ask) more.coming->take(K / several, line, step);

    // Vector v of a row is half of a panel: where it stands, and how many of its lanes.
    const auto panel_of = [&](int v) BPTT_ALWAYS -> const Panel<R>& { return panel[v / 2]; };
    const auto width_of = [&](int v) BPTT_ALWAYS { return panel[v / 2].width - v % 2 * W; };
    const auto place_of = [&](int i, int v) BPTT_ALWAYS { return c[i] + panel[v / 2].column + v % 2 * W; };

    V<R> sum[M][wide];
    BPTT_UNROLL (v, wide) {
        const int width = width_of(v);
        if (k0 == 0 && panel_of(v).start != nullptr) {
            const V<R> start = load(panel_of(v).start + v % 2 * W);
            BPTT_UNROLL (i, M) sum[i][v] = start;
        } else if (width >= W) {
            BPTT_UNROLL (i, M) sum[i][v] = load(place_of(i, v));
        } else if (width > 0) {
            BPTT_UNROLL (i, M) sum[i][v] = load_first(place_of(i, v), width);
        } else {
            BPTT_UNROLL (i, M) sum[i][v] = all(R(0));
        }
    }

    const R* row[M];
    BPTT_UNROLL (i, M) row[i] = a[i] + k0;
    // Rounds of `number` k each, as many as there are from k to last; returns how far that is. Sums that go
    // through one more lambda would not stay in registers.
    const auto rounds = [&](auto number, Index k, Index last) BPTT_ALWAYS {
        constexpr int at_once = decltype(number)::value;
        for (; k + at_once <= last; k += at_once) {
            BPTT_UNROLL (further, at_once) {
                // The shorter side's values wait in registers for the longer one's.
                V<R> lefts[M], rights[wide];
                if constexpr (M < wide)
                    BPTT_UNROLL (i, M) lefts[i] = all(row[i][k + further]);
                else
                    BPTT_UNROLL (v, wide)
                        rights[v] = load(from + v / 2 * panel_stride + v % 2 * W + further * kPanel<R>);
                if constexpr (M < wide) {
                    BPTT_UNROLL (v, wide) {
                        const V<R> right =
                            load(from + v / 2 * panel_stride + v % 2 * W + further * kPanel<R>);
                        BPTT_UNROLL (i, M) BPTT_ACCUMULATE(sum[i][v], lefts[i], right);
                    }
                } else {
                    BPTT_UNROLL (i, M) {
                        const V<R> left = all(row[i][k + further]);
                        BPTT_UNROLL (v, wide) BPTT_ACCUMULATE(sum[i][v], left, rights[v]);
                    }
                }
            }
            from += at_once * kPanel<R>;
            if constexpr (also == Also::ask) {
                ahead_to_l2(line);
                line += step;
            }
        }
        return k;
    };
    const Index k = rounds(several, 0, K);
    if constexpr (several > 1) rounds(std::integral_constant<int, 1>{}, k, K);
    if constexpr (also == Also::second) {
        from = more.b->at(p);
        BPTT_UNROLL (i, M) row[i] = more.a[i];
        const Index then = rounds(several, 0, more.b->K);
        if constexpr (several > 1) rounds(std::integral_constant<int, 1>{}, then, more.b->K);
    }

    BPTT_UNROLL (v, wide) {
        const int width = width_of(v);
        if (width <= 0) continue;
        const bool whole = width >= W;
        BPTT_UNROLL (i, M) {
            if (whole)
                store(place_of(i, v), sum[i][v]);
            else
                store_first(place_of(i, v), sum[i][v], width);
        }
    }
}

// Tiles of M rows over panels first..last-1: as wide as the height allows, then narrower ones. For what is
// coming, a share a panel, high ones ask all along, the others before they begin.
template <class R, int M, int wide>
BPTT_INLINE void tiles_of_width(const Panels<R>& b, Index& p, Index last, Index k0, Index K,
                                const R* const* a, R* const* c, Coming* coming) {
    if constexpr (wide > 2) {
        for (; takes(M, wide, last - p); p += wide / 2) {
            if (coming != nullptr) coming->ask(wide / 2);
            if constexpr (M > 1) {
                // The last half of a panel may be empty.
                if (b.panel[p + wide / 2 - 1].width <= Vec<R>::size) {
                    tile<R, M, wide - 1>(b, p, k0, K, a, c);
                    continue;
                }
            }
            tile<R, M, wide>(b, p, k0, K, a, c);
        }
        tiles_of_width<R, M, narrower(M, wide)>(b, p, last, k0, K, a, c, coming);
    } else {
        for (; p < last; ++p) {
            const bool half = b.panel[p].width <= Vec<R>::size;
            if constexpr (M + 2 >= kMostRows) {
                if (coming != nullptr && !half) {
                    tile<R, M, 2, Also::ask>(b, p, k0, K, a, c, {coming, nullptr, nullptr});
                    continue;
                }
            }
            if (coming != nullptr) coming->ask();
            if (half)
                tile<R, M, 1>(b, p, k0, K, a, c);
            else
                tile<R, M, 2>(b, p, k0, K, a, c);
        }
    }
}

template <class R, int M = kMostRows>
BPTT_INLINE void tiles(int rows, const Panels<R>& b, Index first, Index last, Index k0, Index K,
                       const R* const* a, R* const* c, Coming* coming) {
    if constexpr (M >= 1) {
        if (rows == M)
            tiles_of_width<R, M, M == 1 ? kMostOfOneRow : widest(M)>(b, first, last, k0, K, a, c, coming);
        else
            tiles<R, M - 1>(rows, b, first, last, k0, K, a, c, coming);
    }
}

// ---- the product of rows -------------------------------------------------------------------------

// Tiles that a panel is used for while it is near.
constexpr int kGroup = kMostRows == 8 ? 18 : 24;
constexpr Index kGroupRows = kGroup * kMostRows;  // rows: weights larger than L2 come as seldom as may be

// In which order a product takes its panels. Of weights that are larger than a cache, read again and again in
// one order, nothing stays there until its turn comes; there and back, what was read last comes first.
enum class Order { up, down };
BPTT_INLINE Order order_of(Index turn) { return turn % 2 == 0 ? Order::up : Order::down; }

// How many panels one tile after the other goes through all k of. All, if they stay near; else a widest
// tile's, or fewer where these would drive out each other before the product turns round. A single row has so
// little to do with its panels that even L2 is slow: it turns round within the nearest cache, with as many as
// keep the multipliers busy.
constexpr Index kTurnBytes = Index{256} << 10, kBusyPanels = 4;
BPTT_INLINE Index panels_on_end(Index rows, Index count, Index panel_bytes) {
    if (count * panel_bytes <= kNearBytes)
        return rows == 1 && count >= 2 * kBusyPanels && count * panel_bytes > kNearestBytes ? kBusyPanels
                                                                                            : count;
    const Index most = widest(static_cast<int>(rows)) / 2, least = smaller<Index>(most, 2);
    return larger(least, smaller(most, kTurnBytes / panel_bytes));
}

// C rows c[0..m-1] from A rows a[0..m-1] and panels first..last-1. after: what will be read then, or null.
//
// Weights larger than L2 come from farther away, and a panel of them serves many tiles: meanwhile these ask
// for the next one.
template <class R>
BPTT_SHARED void product(const Panels<R>& b, Index first, Index last, const R* const* a, R* const* c, Index m,
                         Order order = Order::up, Coming* after = nullptr) {
    if (m == 0 || first == last) return;
    if (after != nullptr && !after->any()) after = nullptr;
    const Index tile_count = ceil_div(m, kMostRows), count = last - first;
    const Index panel_bytes = b.K * kPanel<R> * Index{sizeof(R)};
    const bool far = count * panel_bytes > kNearBytes;
    // A single tile's rows stay near however long they are.
    const Index depth = tile_count > 1 ? kDepth : larger<Index>(1, b.K);
    for (Index t0 = 0; t0 < tile_count; t0 += kGroup) {
        const Index group = smaller<Index>(kGroup, tile_count - t0);
        const Index step = group > 1 ? 1 : panels_on_end(m, count, panel_bytes);
        const Index steps = step == count ? 1 : ceil_div(count, step);
        if (after != nullptr)
            after->share_out(group * (far ? step : count) * ceil_div(larger<Index>(b.K, 1), depth));
        // Depths first..: an empty sum (K = 0) still writes what C starts from.
        for (Index k0 = 0; k0 == 0 || k0 < b.K; k0 += depth) {
            const Index K = smaller(depth, b.K - k0);
            const auto begin_of = [&](Index i) BPTT_ALWAYS {
                return first + (order == Order::up ? i : steps - 1 - i) * step;
            };
            for (Index i = 0; i < steps; ++i) {
                const Index p = begin_of(i), p_last = smaller(p + step, last);
                const bool more = far && i + 1 < steps;
                Coming next, *coming = more ? nullptr : after;
                if (more && group > 1) {
                    next.add(b.at(begin_of(i + 1)) + k0 * kPanel<R>, K * kPanel<R> * Index{sizeof(R)});
                    next.share_out(group);
                    coming = &next;
                }
                for (Index t = 0; t < group; ++t) {
                    const Range rows = share(m, t0 + t, tile_count);
                    tiles<R>(static_cast<int>(rows.count()), b, p, p_last, k0, K, a + rows.first,
                             c + rows.first, coming);
                }
            }
        }
    }
}

// The rows from which on a tile of two products is worth a function of its own.
constexpr int kLeastOfTwo = kMostRows - 1;

template <class R, int M = kMostRows>
BPTT_INLINE void tile_of_two(int rows, const Panels<R>& b, const Panels<R>& b2, Index p, const R* const* a,
                             const R* const* a2, R* const* c) {
    if constexpr (M >= kLeastOfTwo) {
        if (rows == M && b.panel[p].width > Vec<R>::size)
            tile<R, M, 2, Also::second>(b, p, 0, b.K, a, c, {nullptr, &b2, a2});
        else
            tile_of_two<R, M - 1>(rows, b, b2, p, a, a2, c);
    } else {
        tiles<R>(rows, b, p, p + 1, 0, b.K, a, c, nullptr);
        tiles<R>(rows, b2, p, p + 1, 0, b2.K, a2, c, nullptr);
    }
}

// Two products into the same rows. Where a panel of each has the same columns, the second one is added to the
// first without a way through memory. Both matrices are near.
template <class R>
BPTT_SHARED void product_of_two(const Panels<R>& b, const Panels<R>& b2, const R* const* a,
                                const R* const* a2, R* const* c, Index m) {
    const Index tile_count = ceil_div(m, kMostRows);
    for (Index p = 0; p < larger(b.count, b2.count); ++p) {
        const bool alike = p < b.count && p < b2.count && b.panel[p].column == b2.panel[p].column;
        for (Index t = 0; t < tile_count; ++t) {
            const Range mine = share(m, t, tile_count);
            const R *const *from = a + mine.first, *const *from2 = a2 + mine.first;
            R* const* const to = c + mine.first;
            const int rows = static_cast<int>(mine.count());
            if (alike) {
                tile_of_two<R>(rows, b, b2, p, from, from2, to);
                continue;
            }
            if (p < b.count) tiles<R>(rows, b, p, p + 1, 0, b.K, from, to, nullptr);
            if (p < b2.count) tiles<R>(rows, b2, p, p + 1, 0, b2.K, from2, to, nullptr);
        }
    }
}

}  // namespace bptt::BPTT_SET
