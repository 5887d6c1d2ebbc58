// Several threads within a call, and several callers at once: the same bits always. ThreadSanitizer runs it
// too.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "bptt/bptt.hpp"

namespace {

using bptt::Index;
using bptt::Shape;
using R = float;

struct Sizes {
    Index T, N, D, H;
};

std::vector<R> numbers(Index count, unsigned seed) {
    std::vector<R> values(static_cast<std::size_t>(count));
    for (R& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<R>(seed >> 8) / static_cast<R>(1 << 24) - R(0.5);
    }
    return values;
}

void append(std::vector<R>& all, const bptt::Array<R>& array) {
    if (array) all.insert(all.end(), array.data(), array.data() + array.elements());
}

// One update of a layer, with all that is parallel in it: what it computed.
std::vector<R> update(bptt::Cell cell, const Sizes& s) {
    const Index G = bptt::cell_gates(cell);
    const std::vector<R> x = numbers(s.T * s.N * s.D, 1), dy = numbers(s.T * s.N * s.H, 2);
    std::vector<R> weight_ih = numbers(G * s.H * s.D, 3), weight_hh = numbers(G * s.H * s.H, 4);
    std::vector<std::int64_t> lengths;
    for (Index n = 0; n < s.N; ++n) lengths.push_back(s.T - n % 3 % s.T);
    bptt::Steps steps;
    steps.lengths = {lengths.data(), Shape{s.N}};
    const bptt::View<R> ih(weight_ih.data(), {G * s.H, s.D}), hh(weight_hh.data(), {G * s.H, s.H});
    const bptt::View<const R> input(x.data(), {s.T, s.N, s.D}), gradient(dy.data(), {s.T, s.N, s.H});
    const bptt::Weights<R> weights{ih, hh, {}, {}};

    bptt::Forward<R> run = bptt::forward<R>(cell, input, weights, {}, steps);
    std::vector<R> found;
    append(found, run.y);
    bptt::Ledger<R> ledger(run.tape, 2);
    append(found, ledger.back(0, gradient).map);
    append(found, ledger.weight_hh());
    const bptt::Gradients<R> gradients = bptt::backward<R>(run.tape, gradient);
    append(found, gradients.x);
    append(found, gradients.weight_ih);
    append(found, gradients.weight_hh);

    auto both = bptt::forward_both<R>(cell, input, {weights, weights});
    for (const auto& its : bptt::backward_both<R>({&both[0].tape, &both[1].tape}, {gradient, gradient}))
        append(found, its.weight_hh);

    const bptt::Array<R> logits = bptt::linear_forward<R>(run.y, hh);
    append(found, logits);
    append(found, bptt::linear_backward<R>(run.y, hh, logits).weight);
    const std::vector<R> other = numbers(logits.elements(), 5);
    append(found, bptt::mse<R>(logits, {other.data(), logits.shape()}).gradient);
    const std::vector<std::int64_t> target(static_cast<std::size_t>(s.T * s.N), 0);
    append(found, bptt::softmax_cross_entropy<R>(logits, {target.data(), {s.T, s.N}}).gradient);

    bptt::sgd<R>({ih, hh}, {gradients.weight_ih, gradients.weight_hh}, {}, 0.1, 0, false, 0);
    found.insert(found.end(), weight_ih.begin(), weight_ih.end());
    return found;
}

// Layers of one sequence, which run side by side, with dropout between them.
std::vector<R> update_of_stack(bptt::Cell cell) {
    const Index T = 150, D = 16, H = 64;
    bptt::RecurrentOptions options;
    options.num_layers = 3;
    options.dropout = 0.2;
    bptt::Recurrent<R> layer = bptt::make_recurrent<R>(cell, D, H, options);
    bptt::Random random(7);
    bptt::initialize(layer, random);
    const std::vector<R> x = numbers(T * D, 1), dy = numbers(T * H, 2);
    const bptt::View<const R> input(x.data(), {T, 1, D});
    std::vector<R> found;
    auto run = bptt::forward<R>(layer, input, {}, {}, bptt::dropout_masks(layer, T, 1, random));
    append(found, run.y);
    const auto gradients = bptt::backward<R>(layer, run.tape, bptt::View<const R>(dy.data(), {T, 1, H}));
    append(found, gradients.x);
    append(found, gradients.state.h);
    for (const auto& parameter : gradients.parameters) append(found, parameter.value);
    append(found, bptt::predict<R>(layer, input).y);
    return found;
}

// All that `compute` computes is the same for any number of threads, and for several callers at once: one of
// them has the threads, and that changes from call to call.
template <class Compute>
int failures_of(const Compute& compute) {
    int failures = 0;
    bptt::set_num_threads(1);
    const std::vector<R> alone = compute();
    for (Index threads : {2, 4}) {
        bptt::set_num_threads(threads);
        if (compute() != alone) ++failures;
    }
    std::vector<std::thread> callers;
    bool agrees[3] = {};
    for (bool& mine : agrees) callers.emplace_back([&] { mine = compute() == alone; });
    bptt::set_num_threads(3);
    for (std::thread& caller : callers) caller.join();
    return failures + static_cast<int>(std::count(agrees, agrees + 3, false));
}

// Whoever calls a prepared layer first lays its weights out, also where several callers are first.
int failures_of_prepared(bptt::Cell cell) {
    const Index T = 3, N = 2, D = 16;
    bptt::Recurrent<R> layer = bptt::make_recurrent<R>(cell, D, 40);
    bptt::Random random(7);
    bptt::initialize(layer, random);
    const std::vector<R> x = numbers(T * N * D, 1);
    const auto compute = [&] {
        std::vector<R> found;
        append(found, bptt::predict<R>(layer, bptt::View<const R>(x.data(), {T, N, D})).y);
        return found;
    };
    const std::vector<R> expected = compute();
    bptt::prepare(layer);
    std::vector<std::thread> callers;
    bool agrees[3] = {};
    for (bool& mine : agrees) callers.emplace_back([&] { mine = compute() == expected; });
    for (std::thread& caller : callers) caller.join();
    return static_cast<int>(std::count(agrees, agrees + 3, false));
}

}  // namespace

int main() {
    // A split by sequences and a split by units.
    const Sizes sizes[] = {{14, 48, 16, 32}, {14, 2, 16, 200}};
    const bptt::Cell cells[] = {bptt::Cell::rnn_tanh, bptt::Cell::lstm, bptt::Cell::gru,
                                bptt::Cell::gru_reset_before};
    int failures = 0;
    for (bptt::Cell cell : cells) {
        for (const Sizes& size : sizes) failures += failures_of([=] { return update(cell, size); });
        failures += failures_of([=] { return update_of_stack(cell); });
        failures += failures_of_prepared(cell);
    }
    std::printf("threads: %s\n", failures == 0 ? "all holds" : "FAILED");
    return failures == 0 ? 0 : 1;
}
