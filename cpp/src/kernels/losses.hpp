// Losses: the sum of the losses and the gradient in one pass over the prediction.
#pragma once

#include "kernels/blocks.hpp"
#include "kernels/softmax.hpp"
#include "kernels/table.hpp"

namespace bptt::BPTT_SET {

// ---- element by element ----------------------------------------------------------------------------

constexpr Index kLossBlock = 4096;  // elements

// The mask of one vector after the other, as lanes that are 1 where valid and 0 elsewhere.
template <class R>
class MaskReader {
public:
    BPTT_INLINE MaskReader(const bool* mask, Index width, Index first)
        : at_(mask + first / width), width_(width), left_(width - first % width) {}

    BPTT_INLINE Lanes<R> next(int count) {
        constexpr int W = Vec<R>::size;
        if (left_ >= count) {  // all lanes are of one entry
            const Lanes<R> lanes(static_cast<R>(*at_));
            if ((left_ -= count) == 0) go_on();
            return lanes;
        }
        alignas(64) R lanes[W] = {};
        if (width_ == 1) {
            for (int i = 0; i < count; ++i) lanes[i] = static_cast<R>(at_[i]);
            at_ += count;
        } else {
            for (int i = 0; i < count; ++i) {
                lanes[i] = static_cast<R>(*at_);
                if (--left_ == 0) go_on();
            }
        }
        return {load(lanes)};
    }

private:
    BPTT_INLINE void go_on() {
        ++at_;
        left_ = width_;
    }

    const bool* at_;
    Index width_, left_;
};

// element(prediction, target, value, gradient) on lanes. What is masked out counts as zero, whatever it is.
template <class R, class Element>
double element_loss(const kernels::ElementLossArgs<R>& a, double cycles, Element element) {
    using L = Lanes<R>;
    constexpr int W = Vec<R>::size;
    const L factor(static_cast<R>(a.factor));
    const auto block_of = [&](Index block) {
        return Range{block * kLossBlock, smaller((block + 1) * kLossBlock, a.count)};
    };
    const auto plain = [&](Index block) {
        const R *prediction = a.prediction, *target = a.target;
        R* const to = a.gradient;
        DoubleSum sum;
        for_each_vector<R>(block_of(block), [&](int count, auto get, auto put) BPTT_ALWAYS {
            L value, gradient;
            element(get(prediction), get(target), value, gradient);
            sum.add(count == W ? value : first_or(value, count, R(0)));
            put(to, gradient * factor);
        });
        return sum.total();
    };
    const auto masked = [&](Index block) {
        const R *prediction = a.prediction, *target = a.target;
        R* const to = a.gradient;
        DoubleSum sum;
        MaskReader<R> mask(a.mask, a.mask_width, block_of(block).first);
        for_each_vector<R>(block_of(block), [&](int count, auto get, auto put) BPTT_ALWAYS {
            L value, gradient;
            const L valid = mask.next(count);
            element(get(prediction), get(target), value, gradient);
            sum.add(zero_where_not_positive(valid, count == W ? value : first_or(value, count, R(0))));
            put(to, zero_where_not_positive(valid, gradient * factor));
        });
        return sum.total();
    };
    const Index blocks = ceil_div(a.count, kLossBlock);
    const double all = static_cast<double>(a.count) / W * cycles;
    return a.mask != nullptr ? sum_of_blocks(blocks, all, a.threads, masked)
                             : sum_of_blocks(blocks, all, a.threads, plain);
}

template <class R>
double mse(const kernels::ElementLossArgs<R>& args) {
    using L = Lanes<R>;
    return element_loss(args, 8 * 3, [](L prediction, L target, L& value, L& gradient) BPTT_ALWAYS {
        const L difference = prediction - target;
        value = difference * difference;
        gradient = difference + difference;
    });
}

// With the difference clipped to c, |c| <= delta: the loss is c * (difference - c/2), its slope c.
template <class R>
double huber(const kernels::ElementLossArgs<R>& args) {
    using L = Lanes<R>;
    const R delta = static_cast<R>(args.parameter);
    return element_loss(args, 8 * 3, [=](L prediction, L target, L& value, L& gradient) BPTT_ALWAYS {
        const L difference = prediction - target;
        gradient = clamp(difference, -delta, delta);
        value = gradient * fnma(L(R(0.5)), gradient, difference);
    });
}

// A row of the prediction is `width` means and then `width` logarithms s of variances. The loss of an
// element is (s + (mean - target)^2 / exp(s)) / 2.
template <class R>
double gaussian_nll(const kernels::ElementLossArgs<R>& a) {
    using L = Lanes<R>;
    constexpr int W = Vec<R>::size;
    const L half(R(0.5)), one(R(1)), factor(static_cast<R>(a.factor)), constant(static_cast<R>(a.parameter));
    const Index F = a.width, rows = a.count / F, height = larger<Index>(1, kLossBlock / F);
    const double cycles = static_cast<double>(rows * ceil_div(F, Index{W})) * 50;
    return sum_of_blocks(ceil_div(rows, height), cycles, a.threads, [&](Index block) {
        const Index first = block * height, last = smaller(first + height, rows);
        const bool always = true;
        MaskReader<R> mask(a.mask != nullptr ? a.mask : &always, a.mask != nullptr ? a.mask_width : a.count,
                           a.mask != nullptr ? first * F : 0);
        DoubleSum sum;
        for (Index m = first; m < last; ++m) {
            const R *const mean = a.prediction + 2 * m * F, *const target = a.target + m * F;
            R* const to = a.gradient + 2 * m * F;
            for_each_vector<R>(Range{0, F}, [&](int count, auto get, auto put) BPTT_ALWAYS {
                const L valid = mask.next(count), s = get(mean + F), difference = get(mean) - get(target);
                const L scaled = difference * exp(-s), square = difference * scaled;
                const L value = fma(half, s + square, constant);
                sum.add(zero_where_not_positive(valid, count == W ? value : first_or(value, count, R(0))));
                put(to, zero_where_not_positive(valid, scaled * factor));
                put(to + F, zero_where_not_positive(valid, half * (one - square) * factor));
            });
        }
        return sum.total();
    });
}

// With e = exp(-|x|), which cannot overflow: the loss is max(x, 0) - x*target + log(1 + e), and
// sigmoid(x) is q = e / (1 + e) where x is negative, else 1 - q.
template <class R>
double binary_cross_entropy_with_logits(const kernels::ElementLossArgs<R>& args) {
    using L = Lanes<R>;
    return element_loss(args, 40, [](L x, L target, L& value, L& gradient) BPTT_ALWAYS {
        const L one(R(1)), e = exp(-absolute(x));
        value = fnma(x, target, relu(x)) + log1p_of_fraction(e);
        const L q = e / (one + e);
        gradient = where_positive(x, (one - target) - q, q - target);
    });
}

// ---- softmax cross-entropy -------------------------------------------------------------------------

constexpr Index kSoftmaxBlock = 4096;  // elements, about; of whole rows
constexpr Index kSoftmaxRows = 64;     // at most

// to[j] -= by * weight[j]; returns the sum of weight[j] * (most - x[j]). Without weights they are ones.
template <class R>
BPTT_INLINE double smooth_row(const R* x, R most, const R* weight, R by, Index V, R* to) {
    using L = Lanes<R>;
    constexpr int W = Vec<R>::size;
    const L top(most), amount(by), one(R(1));
    DoubleSum sum;
    for_each_vector<R>(Range{0, V}, [&](int count, auto get, auto put) BPTT_ALWAYS {
        const L w = weight != nullptr ? get(weight) : one, below = w * (top - get(x));
        sum.add(count == W ? below : first_or(below, count, R(0)));
        put(to, fnma(amount, w, get(to)));
    });
    return sum.total();
}

// The losses of some rows. The target's distribution q has (1 - smoothing) * weight[target] at the target
// and smoothing/V * weight[j] everywhere; the loss is the sum of q[j] * (log(sum of exp(x - max)) + max -
// x[j]), with q = 1 at the target alone where there are neither weights nor smoothing. One pass over all rows
// after the other, while they are in cache: a row's passes wait for each other, those of many do not.
template <class R>
double softmax_rows(const kernels::SoftmaxArgs<R>& a, Range rows) {
    Index row[kSoftmaxRows];
    R most[kSoftmaxRows];
    double exponentials[kSoftmaxRows], share[kSoftmaxRows];  // share: the sum of a row's q
    const double even = a.smoothing / static_cast<double>(a.V);
    int valid = 0;
    for (Index m = rows.first; m < rows.last; ++m) {
        if (a.mask == nullptr || a.mask[m])
            row[valid++] = m;
        else
            fill(a.gradient + m * a.V, a.V, R(0));
    }
    for (int i = 0; i < valid; ++i) most[i] = row_maximum(a.prediction + row[i] * a.V, a.V);
    for (int i = 0; i < valid; ++i)
        exponentials[i] =
            row_exponentials(a.prediction + row[i] * a.V, most[i], a.V, a.gradient + row[i] * a.V);
    double sum = 0;
    for (int i = 0; i < valid; ++i) {
        const Index target = a.target[row[i]];
        const R* const x = a.prediction + row[i] * a.V;
        R* const to = a.gradient + row[i] * a.V;
        const double at_target =
            (1 - a.smoothing) * (a.weight != nullptr ? static_cast<double>(a.weight[target]) : 1);
        share[i] = at_target + even * a.weight_sum;
        scale_row(to, static_cast<R>(a.factor * share[i] / exponentials[i]), a.V);
        to[target] -= static_cast<R>(a.factor * at_target);
        sum += at_target * (static_cast<double>(most[i]) - static_cast<double>(x[target]));
        if (a.smoothing > 0)
            sum += even * smooth_row(x, most[i], a.weight, static_cast<R>(a.factor * even), a.V, to);
    }
    DoubleSum logs;
    for_each_vector<double>(Range{0, valid}, [&](int count, auto get, auto) BPTT_ALWAYS {
        logs.add(log(first_or(get(exponentials), count, 1.0)) * first_or(get(share), count, 0.0));
    });
    return sum + logs.total();
}

template <class R>
double softmax_cross_entropy(const kernels::SoftmaxArgs<R>& args) {
    constexpr double cycles = 24;  // a vector
    const Index height = larger<Index>(1, smaller(kSoftmaxRows, kSoftmaxBlock / args.V));
    const double all = static_cast<double>(args.M * ceil_div(args.V, Index{Vec<R>::size})) * cycles;
    return sum_of_blocks(ceil_div(args.M, height), all, args.threads, [&](Index block) {
        return softmax_rows(args, Range{block * height, smaller((block + 1) * height, args.M)});
    });
}

template <class R>
constexpr kernels::LossTable<R> loss_table() {
    return {mse<R>, huber<R>, gaussian_nll<R>, binary_cross_entropy_with_logits<R>, softmax_cross_entropy<R>};
}

}  // namespace bptt::BPTT_SET
