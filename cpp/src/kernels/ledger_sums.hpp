// What a ledger's parts add up to: squares and dot products of D[k], and of what each window leaves out.
//
// The parts are more than any cache holds, and are read once: a strip of elements at a time, whose rests, in
// double, stay near while all lags go by.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

template <class R>
class LedgerSums {
public:
    explicit LedgerSums(const kernels::LedgerSumsArgs<R>& args)
        : a_(args),
          bands_(smaller(kMostBands, ceil_div(args.size, kStrip))),
          sums_(args.parts * (2 + 2 * args.groups)),
          strip_((args.groups + 3) * kWide),
          room_(bands_ * (sums_ + strip_)) {}

    void run() const {
        const double bytes = static_cast<double>(a_.parts * a_.groups * a_.size) * sizeof(R);
        for_each_block(bands_, bytes / kBytesPerCycle, a_.threads, [this](Index b) { band(b); });
        for (Index i = 0; i < sums_; ++i) {
            double sum = 0;
            for (Index b = 0; b < bands_; ++b) sum += room_[b * (sums_ + strip_) + i];
            const Index lags = 2 * a_.parts;
            (i < lags ? a_.lag[i] : a_.rest[i - lags]) = sum;
        }
    }

private:
    static constexpr int W = Vec<R>::size;
    using Wide = WideLanes<R>;

    // Elements of a strip, and the doubles that they take.
    static constexpr Index kStrip = 512;
    static constexpr Index kWide = kStrip / W * Wide::kParts * Vec<double>::size;
    // However many threads there are: the bits do not depend on it.
    static constexpr Index kMostBands = 64;
    static constexpr double kBytesPerCycle = 2;

    // Sums of products of doubles with each other.
    struct Dot {
        Lanes<double> part[Wide::kParts];
        Dot() {
            unroll<Wide::kParts>([&](auto p) { part[p] = Lanes<double>(0.0); });
        }
        BPTT_INLINE void add(const Wide& x, const Wide& y) {
            unroll<Wide::kParts>([&](auto p) BPTT_ALWAYS { part[p] = fma(x.part[p], y.part[p], part[p]); });
        }
        BPTT_INLINE double total() const {
            double sum = 0;
            for (const Lanes<double>& its : part) sum += sum_of_lanes(its);
            return sum;
        }
    };

    // Where a vector of a strip stands in double.
    BPTT_INLINE static Wide get(const double* from, Index i) {
        Wide x;
        unroll<Wide::kParts>([&](auto p) BPTT_ALWAYS {
            x.part[p] = Lanes<double>(load(from + (i / W * Wide::kParts + p) * Vec<double>::size));
        });
        return x;
    }
    BPTT_INLINE static void put(double* to, Index i, const Wide& x) {
        unroll<Wide::kParts>([&](auto p) BPTT_ALWAYS {
            store(to + (i / W * Wide::kParts + p) * Vec<double>::size, x.part[p].v);
        });
    }
    BPTT_INLINE static Wide plus(const Wide& x, const Wide& y) {
        Wide sum;
        unroll<Wide::kParts>([&](auto p) BPTT_ALWAYS { sum.part[p] = x.part[p] + y.part[p]; });
        return sum;
    }
    BPTT_INLINE static Wide minus(const Wide& x, const Wide& y) {
        Wide sum;
        unroll<Wide::kParts>([&](auto p) BPTT_ALWAYS { sum.part[p] = x.part[p] - y.part[p]; });
        return sum;
    }

    // Elements [from, from + count) of part j of a group; what is beyond them is zero.
    struct Part {
        const R* data;
        Index count;
        BPTT_INLINE Wide at(Index i) const {
            return Wide(Lanes<R>(load_lanes(data + i, static_cast<int>(smaller<Index>(W, count - i)))));
        }
    };
    BPTT_INLINE Part part(Index group, Index j, Index from, Index count) const {
        return {a_.weight_hh + (group * a_.parts + j) * a_.size + from, count};
    }

    void band(Index b) const {
        double* const sums = room_.data() + b * (sums_ + strip_);
        fill(sums, sums_, 0.0);
        const Range strips = share(ceil_div(a_.size, kStrip), b, bands_);
        for (Index s = strips.first; s < strips.last; ++s)
            strip(s * kStrip, smaller(kStrip, a_.size - s * kStrip), sums, sums + sums_);
    }

    // room: each group's rest, the rest of all, D[k] of all, and the whole of all.
    BPTT_SHARED void strip(Index from, Index count, double* sums, double* room) const {
        double *const all = room + a_.groups * kWide, *const lag = all + kWide, *const whole = lag + kWide;
        sum_of_groups(a_.parts - 1, from, count, whole);
        for (Index i = 0; i < count; i += W) put(all, i, get(whole, i));
        for (Index g = 0; g < a_.groups; ++g) {
            const Part its = part(g, a_.parts - 1, from, count);
            for (Index i = 0; i < count; i += W) put(room + g * kWide, i, its.at(i));
            note_rest(0, g, count, sums, room + g * kWide, all);
        }
        note_lag(a_.parts - 1, count, sums, whole, whole);
        for (Index k = 0; k + 1 < a_.parts; ++k) {
            sum_of_groups(k, from, count, lag);
            note_lag(k, count, sums, lag, whole);
            for (Index i = 0; i < count; i += W) put(all, i, minus(get(all, i), get(lag, i)));
            for (Index g = 0; g < a_.groups; ++g) {
                const Part its = part(g, k, from, count);
                double* const rest = room + g * kWide;
                for (Index i = 0; i < count; i += W) put(rest, i, minus(get(rest, i), its.at(i)));
                note_rest(k + 1, g, count, sums, rest, all);
            }
        }
    }

    BPTT_INLINE void sum_of_groups(Index j, Index from, Index count, double* to) const {
        const Part first = part(0, j, from, count);
        for (Index i = 0; i < count; i += W) {
            Wide sum = first.at(i);
            for (Index g = 1; g < a_.groups; ++g) sum = plus(sum, part(g, j, from, count).at(i));
            put(to, i, sum);
        }
    }
    BPTT_INLINE void note_lag(Index j, Index count, double* sums, const double* its,
                              const double* whole) const {
        note(count, its, whole, sums + 2 * j);
    }
    BPTT_INLINE void note_rest(Index window, Index group, Index count, double* sums, const double* rest,
                               const double* all) const {
        note(count, rest, all, sums + 2 * (a_.parts + window * a_.groups + group));
    }
    // to[0] += x . x, to[1] += x . y.
    BPTT_SHARED static void note(Index count, const double* x, const double* y, double* to) {
        Dot square, dot;
        for (Index i = 0; i < count; i += W) {
            const Wide its = get(x, i);
            square.add(its, its);
            dot.add(its, get(y, i));
        }
        to[0] += square.total();
        to[1] += dot.total();
    }

    const kernels::LedgerSumsArgs<R>& a_;
    const Index bands_, sums_, strip_;
    const Space<double> room_;
};

}  // namespace bptt::BPTT_SET
