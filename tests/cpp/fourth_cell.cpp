// docs/design.md says what a further cell is: its example, cut out of the page as it is printed there, goes
// through the loops. y is what the page's formulas say, the gradients are those of y, and threads change
// nothing.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/backward_loop.hpp"
#include "kernels/cells/cell.hpp"
#include "kernels/forward_loop.hpp"

namespace bptt::tested {
#include "minimal_gated.inc"
}

namespace {

using namespace bptt::tested;
using bptt::Index;
using Numbers = std::vector<double>;

constexpr Index G = MinimalGated::gates;

int failures = 0;

void check(bool holds, const std::string& sentence) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "does not hold: %s\n", sentence.c_str());
}

Numbers numbers(Index count, unsigned seed) {
    Numbers values(static_cast<std::size_t>(count));
    for (double& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<double>(seed >> 8) / (1 << 24) - 0.5;
    }
    return values;
}

// All that the loss depends on.
struct Layer {
    bptt::Dims dims;
    Numbers x = numbers(dims.T * dims.N * dims.D, 1), weight_ih = numbers(G * dims.H * dims.D, 2),
            weight_hh = numbers(G * dims.H * dims.H, 3), bias_ih = numbers(G * dims.H, 4),
            bias_hh = numbers(G * dims.H, 5), initial = numbers(dims.N * dims.H, 6),
            dy = numbers(dims.T * dims.N * dims.H, 7);
};

struct Tape {
    Numbers h, gates;
};

Tape forward(const Layer& layer, int threads) {
    Tape tape{Numbers(layer.dy.size() + layer.initial.size()), Numbers(layer.dy.size() * MinimalGated::kept)};
    std::copy(layer.initial.begin(), layer.initial.end(), tape.h.begin());
    ForwardLoop<MinimalGated, double>({bptt::Cell{}, layer.dims, layer.x.data(), layer.weight_ih.data(),
                                       layer.weight_hh.data(), layer.bias_ih.data(), layer.bias_hh.data(),
                                       nullptr, nullptr, false, tape.h.data(), nullptr, tape.gates.data(),
                                       true, threads, nullptr})
        .run();
    return tape;
}

// Gradients of sum(dy * y), in the order of Layer's members.
std::vector<Numbers> backward(const Layer& layer, const Tape& tape, int threads) {
    std::vector<Numbers> found;
    for (const Numbers* of :
         {&layer.x, &layer.weight_ih, &layer.weight_hh, &layer.bias_ih, &layer.bias_hh, &layer.initial})
        found.emplace_back(of->size());
    const bptt::kernels::BackwardArgs<double> args{bptt::Cell{},
                                                   layer.dims,
                                                   layer.x.data(),
                                                   layer.weight_ih.data(),
                                                   layer.weight_hh.data(),
                                                   nullptr,
                                                   nullptr,
                                                   false,
                                                   tape.h.data(),
                                                   nullptr,
                                                   tape.gates.data(),
                                                   layer.dy.data(),
                                                   found[0].data(),
                                                   found[5].data(),
                                                   nullptr,
                                                   found[1].data(),
                                                   found[2].data(),
                                                   found[3].data(),
                                                   found[4].data(),
                                                   threads,
                                                   {}};
    BackwardLoop<MinimalGated, double>(args).run();
    return found;
}

double loss(const Layer& layer) {
    const Tape tape = forward(layer, 1);
    double sum = 0;
    for (std::size_t i = 0; i < layer.dy.size(); ++i) sum += layer.dy[i] * tape.h[i + layer.initial.size()];
    return sum;
}

// The page's formulas, a number at a time.
void formulas(const Layer& layer, const Tape& tape) {
    const auto at = [](const Numbers& values, Index i) { return values[static_cast<std::size_t>(i)]; };
    const auto [T, N, D, H] = layer.dims;
    double furthest = 0;
    for (Index row = 0; row < T * N; ++row)
        for (Index u = 0; u < H; ++u) {
            double a[G];
            for (Index g = 0; g < G; ++g) {
                const Index unit = g * H + u;
                a[g] = at(layer.bias_ih, unit) + at(layer.bias_hh, unit);
                for (Index d = 0; d < D; ++d)
                    a[g] += at(layer.weight_ih, unit * D + d) * at(layer.x, row * D + d);
                for (Index k = 0; k < H; ++k)
                    a[g] += at(layer.weight_hh, unit * H + k) * at(tape.h, row * H + k);
            }
            const double f = 1 / (1 + std::exp(-a[0])), n = std::tanh(a[1]),
                         h = f * at(tape.h, row * H + u) + (1 - f) * n;
            furthest = std::fmax(furthest, std::fabs(h - at(tape.h, (row + N) * H + u)));
        }
    check(furthest < 1e-14, "y is what the formulas say");
}

void differences(Layer layer, const std::vector<Numbers>& gradients) {
    Numbers* const all[] = {&layer.x,       &layer.weight_ih, &layer.weight_hh,
                            &layer.bias_ih, &layer.bias_hh,   &layer.initial};
    const char* const names[] = {"x", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "the initial state"};
    constexpr double step = 1e-5;
    for (std::size_t which = 0; which < gradients.size(); ++which) {
        double furthest = 0;
        for (std::size_t i = 0; i < all[which]->size(); ++i) {
            double& value = (*all[which])[i];
            const double was = value;
            value = was + step;
            const double above = loss(layer);
            value = was - step;
            const double below = loss(layer);
            value = was;
            furthest = std::fmax(furthest, std::fabs((above - below) / (2 * step) - gradients[which][i]));
        }
        check(furthest < 1e-8, std::string("the gradient of ") + names[which] + " is its differences'");
    }
}

}  // namespace

int main() {
    const Layer small{{9, 3, 4, 7}};
    const Tape tape = forward(small, 1);
    formulas(small, tape);
    differences(small, backward(small, tape, 1));

    for (const Layer& large : {Layer{{300, 1, 16, 80}}, Layer{{60, 9, 16, 40}}}) {
        const int threads = make_plan<double>(forward_work<MinimalGated>, large.dims, nullptr, 2).threads;
        check(threads == 2, "the layer is worth two threads");
        const Tape one = forward(large, 1), two = forward(large, 2);
        check(one.h == two.h && one.gates == two.gates, "two threads make the same tape");
        check(backward(large, one, 1) == backward(large, two, 2), "and the same gradients");
    }
    if (failures == 0) std::puts("a fourth cell is one file");
    return failures == 0 ? 0 : 1;
}
