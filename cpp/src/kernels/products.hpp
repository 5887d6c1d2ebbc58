// Rows times a packed matrix: THE tile, and the products made of it.
//
// Every product is C[i][j] = sum over k of A[i][k] * B[k][j], to which C or a bias is the first term. B
// stands packed in panels of two vectors: panel p holds B[k][its columns] for k = 0, 1, ...; A is read where
// its rows stand. Each element of C is one chain of fused multiply-adds in the order of k, whatever the tile:
// so the bits depend neither on how rows are grouped nor on the number of threads.
#pragma once

#include "kernels/vector.hpp"

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

// Weights larger than L2 come from farther away, and a tile has no room to read ahead in every k. Many tiles
// share a panel: each asks for its part of the next one, some lines at every block of kBlock k.
constexpr Index kBlock = 64;

constexpr Index kNearBytes = Index{256} << 10;  // panels of so many bytes stay in L2 by themselves

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

// The part of the next panel that a tile asks for.
struct Fetch {
    const char* line = nullptr;
    Index lines = 0;  // at every block

    // The first of `tiles` parts of panel p, which is one of `count`; nothing where all of them are near.
    template <class R>
    BPTT_INLINE static Fetch part(const Panels<R>& b, Index p, Index count, Index k0, Index tiles) {
        constexpr Index k_bytes = kPanel<R> * static_cast<Index>(sizeof(R));
        if (tiles == 1 || count * b.K * k_bytes <= kNearBytes) return {};
        return {reinterpret_cast<const char*>(b.at(p) + k0 * kPanel<R>),
                ceil_div(kBlock * k_bytes / kLine, tiles)};
    }
    BPTT_INLINE void next_tile(Index K) { line += lines * ceil_div(K, kBlock) * kLine; }
};

// ---- packing -------------------------------------------------------------------------------------

// Memory that will be read soon, in lines one behind the other.
struct Coming {
    const char* line = nullptr;
    Index lines = 0;

    // `share` lines more, as far as there are any.
    BPTT_INLINE void ask_for(Index share) {
        for (; share > 0 && lines > 0; --share, --lines, line += kLine) ahead_to_l2(line);
    }
};

// A panel whose columns are `count` rows: out[k][lane] = rows[lane][k] for k < K; lanes beyond them are zero.
//
// Many rows read side by side come slowly from memory. So what is read next is asked for meanwhile, in order.
template <class R>
BPTT_SHARED void pack_rows(const R* const* rows, int count, Index K, R* out, Coming coming) {
    constexpr int W = Vec<R>::size, lanes = kPanel<R>;
    const Index lines = ceil_div(coming.lines, larger<Index>(1, K / W));
    for (Index k = 0; k < K; k += W) {
        coming.ask_for(lines);
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

// M rows of C times `wide` vectors, which are wide/2 panels (or the first half of one), from p on; k runs
// over k0..k0+K-1.
template <class R, int M, int wide, bool fetches = false>
BPTT_SHARED void tile(const Panels<R>& b, Index p, Index k0, Index K, const R* const* a, R* const* c,
                      Fetch fetch = {}) {
    constexpr int W = Vec<R>::size;
    const Panel<R>* panel = b.panel + p;
    const Index panel_stride = b.K * kPanel<R>;
    const R* from = b.at(p) + k0 * kPanel<R>;

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
        }
        return k;
    };
    constexpr std::integral_constant<int, round_of(M, wide)> several{};
    Index k = 0;
    if constexpr (fetches) {
        for (; k + kBlock <= K; k = rounds(several, k, k + kBlock))
            for (Index line = 0; line < fetch.lines; ++line, fetch.line += kLine) ahead_to_l2(fetch.line);
        if (k < K)
            for (Index line = 0; line < fetch.lines; ++line, fetch.line += kLine) ahead_to_l2(fetch.line);
    }
    k = rounds(several, k, K);
    if constexpr (several > 1) rounds(std::integral_constant<int, 1>{}, k, K);

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

// Tiles of M rows over panels first..last-1: as wide as the height allows, then narrower ones.
template <class R, int M, int wide>
BPTT_INLINE void tiles_of_width(const Panels<R>& b, Index& p, Index last, Index k0, Index K,
                                const R* const* a, R* const* c, Fetch fetch) {
    if constexpr (wide > 2) {
        for (; takes(M, wide, last - p); p += wide / 2) {
            if constexpr (M > 1) {
                // The last half of a panel may be empty.
                if (b.panel[p + wide / 2 - 1].width <= Vec<R>::size) {
                    tile<R, M, wide - 1>(b, p, k0, K, a, c);
                    continue;
                }
            }
            tile<R, M, wide>(b, p, k0, K, a, c);
        }
        tiles_of_width<R, M, narrower(M, wide)>(b, p, last, k0, K, a, c, fetch);
    } else {
        for (; p < last; ++p) {
            if (b.panel[p].width <= Vec<R>::size) {
                tile<R, M, 1>(b, p, k0, K, a, c);
                continue;
            }
            if constexpr (M + 1 >= kMostRows) {
                if (fetch.lines > 0) {
                    tile<R, M, 2, true>(b, p, k0, K, a, c, fetch);
                    continue;
                }
            }
            tile<R, M, 2>(b, p, k0, K, a, c);
        }
    }
}

template <class R, int M = kMostRows>
BPTT_INLINE void tiles(int rows, const Panels<R>& b, Index first, Index last, Index k0, Index K,
                       const R* const* a, R* const* c, Fetch fetch = {}) {
    if constexpr (M >= 1) {
        if (rows == M)
            tiles_of_width<R, M, M == 1 ? kMostOfOneRow : widest(M)>(b, first, last, k0, K, a, c, fetch);
        else
            tiles<R, M - 1>(rows, b, first, last, k0, K, a, c, fetch);
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
// tile's, or fewer where these would drive out each other before the product turns round.
constexpr Index kTurnBytes = Index{256} << 10;
BPTT_INLINE Index panels_on_end(Index rows, Index count, Index panel_bytes) {
    if (count * panel_bytes <= kNearBytes) return count;
    const Index most = widest(static_cast<int>(rows)) / 2, least = smaller<Index>(most, 2);
    return larger(least, smaller(most, kTurnBytes / panel_bytes));
}

// C rows c[0..m-1] from A rows a[0..m-1] and panels first..last-1.
template <class R>
BPTT_SHARED void product(const Panels<R>& b, Index first, Index last, const R* const* a, R* const* c, Index m,
                         Order order = Order::up) {
    if (m == 0 || first == last) return;
    const Index tile_count = ceil_div(m, kMostRows), count = last - first;
    // A single tile's rows stay near however long they are.
    const Index depth = tile_count > 1 ? kDepth : larger<Index>(1, b.K);
    for (Index t0 = 0; t0 < tile_count; t0 += kGroup) {
        const Index group = smaller<Index>(kGroup, tile_count - t0);
        const Index step = group > 1 ? 1 : panels_on_end(m, count, b.K * kPanel<R> * Index{sizeof(R)});
        const Index steps = step == count ? 1 : ceil_div(count, step);
        // Depths first..: an empty sum (K = 0) still writes what C starts from.
        for (Index k0 = 0; k0 == 0 || k0 < b.K; k0 += depth) {
            const Index K = smaller(depth, b.K - k0);
            const auto begin_of = [&](Index i) BPTT_ALWAYS {
                return first + (order == Order::up ? i : steps - 1 - i) * step;
            };
            for (Index i = 0; i < steps; ++i) {
                const Index p = begin_of(i), p_last = smaller(p + step, last);
                Fetch fetch;
                if (i + 1 < steps) fetch = Fetch::part(b, begin_of(i + 1), count, k0, group);
                for (Index t = 0; t < group; ++t) {
                    const Range rows = share(m, t0 + t, tile_count);
                    tiles<R>(static_cast<int>(rows.count()), b, p, p_last, k0, K, a + rows.first,
                             c + rows.first, fetch);
                    fetch.next_tile(K);
                }
            }
        }
    }
}

}  // namespace bptt::BPTT_SET
