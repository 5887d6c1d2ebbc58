// Uses every public header from C++, without Python: exact laws, not stored numbers.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "bptt/bptt.hpp"

namespace {

using bptt::Index;
using bptt::Shape;
using bptt::View;

int failures = 0;

void check(bool holds, const std::string& sentence) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "does not hold: %s\n", sentence.c_str());
}

bool close(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

// Memory of the application's own, as it would come from its files or its microphone.
struct Numbers {
    Shape shape;
    std::vector<double> values;

    Numbers(const Shape& its_shape, unsigned seed) : shape(its_shape) {
        values.resize(static_cast<std::size_t>(shape.elements()));
        unsigned state = seed;
        for (double& value : values) {
            state = state * 1664525u + 1013904223u;
            value = (state >> 8) / double(1 << 24) - 0.5;
        }
    }
    operator View<const double>() const { return {values.data(), shape}; }
    operator View<double>() { return {values.data(), shape}; }
};

struct Network {
    static constexpr Index T = 7, N = 3, D = 5, H = 6;
    bptt::Cell cell;
    Index G = bptt::cell_gates(cell);
    Numbers x{{T, N, D}, 1}, weight_ih{{G * H, D}, 2}, weight_hh{{G * H, H}, 3};
    Numbers bias_ih{{G * H}, 4}, bias_hh{{G * H}, 5}, h{{N, H}, 6}, c{{N, H}, 7}, dy{{T, N, H}, 8};

    bptt::Weights<double> weights() const { return {weight_ih, weight_hh, bias_ih, bias_hh}; }
    bptt::State<double> initial() const {
        bptt::State<double> state;
        state.h = h;
        if (bptt::cell_has_c(cell)) state.c = c;
        return state;
    }
    bptt::Forward<double> forward(bool keep = true) const {
        return bptt::forward<double>(cell, x, weights(), initial(), {}, keep);
    }
    double loss() const {
        const bptt::Forward<double> run = forward(false);
        double sum = 0;
        for (Index i = 0; i < run.y.elements(); ++i) sum += run.y.data()[i] * dy.values[std::size_t(i)];
        return sum;
    }
};

// (L(w + e) - L(w - e)) / 2e for every element of `argument`.
void check_gradient(Network& network, Numbers& argument, const bptt::Array<double>& gradient,
                    const std::string& name) {
    check(gradient.shape() == argument.shape, name + ": the gradient has the shape of the argument");
    for (std::size_t i = 0; i < argument.values.size(); ++i) {
        const double kept = argument.values[i], e = 1e-5;
        argument.values[i] = kept + e;
        const double above = network.loss();
        argument.values[i] = kept - e;
        const double below = network.loss();
        argument.values[i] = kept;
        if (!close(gradient.data()[i], (above - below) / (2 * e), 1e-6)) {
            check(false, name + ": the gradient equals central differences");
            return;
        }
    }
}

void gradients_equal_central_differences(bptt::Cell cell) {
    Network network{cell};
    bptt::Forward<double> run = network.forward();
    const bptt::Gradients<double> gradients = bptt::backward<double>(run.tape, network.dy);
    const std::string name = bptt::cell_name(cell);
    check_gradient(network, network.x, gradients.x, name + " x");
    check_gradient(network, network.h, gradients.h, name + " h");
    check_gradient(network, network.weight_ih, gradients.weight_ih, name + " weight_ih");
    check_gradient(network, network.weight_hh, gradients.weight_hh, name + " weight_hh");
    check_gradient(network, network.bias_ih, gradients.bias_ih, name + " bias_ih");
    check_gradient(network, network.bias_hh, gradients.bias_hh, name + " bias_hh");
    if (bptt::cell_has_c(cell)) check_gradient(network, network.c, gradients.c, name + " c");
}

// Sequence 0, fed step by step, against the whole batch run at once.
void a_stream_equals_the_loop(bptt::Cell cell) {
    const Network network{cell};
    const bptt::Forward<double> run = network.forward(false);
    bptt::State<double> initial;
    initial.h = {network.h.values.data(), {1, Network::H}};
    if (bptt::cell_has_c(cell)) initial.c = {network.c.values.data(), {1, Network::H}};
    bptt::Stream<double> stream(cell, network.weights(), initial);
    bool equal = true;
    for (Index t = 0; t < Network::T; ++t) {
        const double* h = stream.step(network.x.values.data() + t * Network::N * Network::D);
        for (Index j = 0; j < Network::H; ++j)
            equal = equal && close(h[j], run.y.data()[t * Network::N * Network::H + j], 1e-14);
    }
    check(equal, std::string(bptt::cell_name(cell)) + ": a stream equals the loop");
}

bool same(const bptt::Array<double>& a, const bptt::Array<double>& b) {
    return a.shape() == b.shape() && std::equal(a.data(), a.data() + a.elements(), b.data());
}

// Both directions at once have the bits of a call forward and a call in reverse.
void both_directions_equal_two_calls(bptt::Cell cell) {
    const Network network{cell};
    bptt::Steps back;
    back.reverse = true;
    auto both = bptt::forward_both<double>(cell, network.x, {network.weights(), network.weights()},
                                           {network.initial(), network.initial()});
    bptt::Forward<double> one[] = {
        network.forward(),
        bptt::forward<double>(cell, network.x, network.weights(), network.initial(), back)};
    const auto gradients =
        bptt::backward_both<double>({&both[0].tape, &both[1].tape}, {network.dy, network.dy});
    const std::string name = bptt::cell_name(cell);
    for (std::size_t i = 0; i < 2; ++i) {
        const bptt::Gradients<double> expected = bptt::backward<double>(one[i].tape, network.dy);
        check(same(both[i].y, one[i].y) && same(both[i].h, one[i].h), name + ": both directions at once");
        check(same(gradients[i].x, expected.x) && same(gradients[i].weight_hh, expected.weight_hh),
              name + ": the gradients of both directions at once");
    }
}

template <class Call>
std::string refusal(Call call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

void wrong_input_is_refused_with_a_sentence() {
    Network network{bptt::Cell::lstm};
    const Numbers narrow({Network::N, Network::H - 1}, 9);
    const std::string sentence = refusal([&] {
        bptt::State<double> state;
        state.h = narrow;
        bptt::forward<double>(network.cell, network.x, network.weights(), state);
    });
    check(sentence.find("(3, 5)") != std::string::npos && sentence.find("(3, 6)") != std::string::npos,
          "the sentence names the given and the expected shape; it is: " + sentence);

    bptt::Forward<double> run = network.forward();
    bptt::backward<double>(run.tape, network.dy);
    check(!refusal([&] { bptt::backward<double>(run.tape, network.dy); }).empty(),
          "a consumed tape is refused");
    bptt::Forward<double> other = network.forward();
    check(!refusal([&] {
               bptt::backward_both<double>({&other.tape, &other.tape}, {network.dy, network.dy});
           }).empty(),
          "one tape twice is refused");
    check(!refusal([] { bptt::set_num_threads(0); }).empty(), "no threads are refused");
}

void reductions_divide_by_what_is_valid() {
    Network network{bptt::Cell::gru};
    const std::int64_t lengths[Network::N] = {7, 0, 3};
    bptt::Steps steps;
    steps.lengths = {lengths, {Network::N}};
    const auto gradient = [&](bptt::Reduction reduction) {
        auto run = bptt::forward<double>(network.cell, network.x, network.weights(), {}, steps);
        return bptt::backward<double>(run.tape, network.dy, {}, reduction).weight_hh.data()[0];
    };
    const double sum = gradient(bptt::Reduction::sum);
    check(close(gradient(bptt::Reduction::mean), sum / 10, 1e-14), "a mean gradient is of 10 valid steps");
    check(close(gradient(bptt::Reduction::mean_sequences), sum / 2, 1e-14),
          "a gradient's mean over sequences is of 2 that have steps");

    const Numbers prediction({7, 3, 4}, 1), target({7, 3, 2}, 2);
    bool valid[21];
    for (int i = 0; i < 21; ++i) valid[i] = i / 3 < lengths[i % 3];
    const auto loss = [&](bptt::Reduction reduction) {
        return bptt::gaussian_nll<double>(prediction, target, {valid, {7, 3}}, reduction).value;
    };
    const double all = loss(bptt::Reduction::sum);
    check(close(loss(bptt::Reduction::mean), all / 20, 1e-14), "a mean loss is of 20 valid elements");
    check(close(loss(bptt::Reduction::mean_sequences), all / 2, 1e-14), "and of 2 sequences");
}

void a_dense_model_learns() {
    // One linear map onto two classes, by Adam.
    const Index T = 4, N = 8, D = 3, V = 2;
    Numbers x({T, N, D}, 1), weight({V, D}, 2);
    std::vector<std::int64_t> target;
    for (Index i = 0; i < T * N; ++i) target.push_back(x.values[std::size_t(i * D)] > 0);
    const View<const std::int64_t> targets(target.data(), {T, N});
    Numbers first({V, D}, 0), second({V, D}, 0);
    std::fill(first.values.begin(), first.values.end(), 0.0);
    std::fill(second.values.begin(), second.values.end(), 0.0);

    double start = 0, end = 0;
    for (Index step = 1; step <= 100; ++step) {
        const bptt::Array<double> y = bptt::linear_forward<double>(x, weight);
        const bptt::Loss<double> loss = bptt::softmax_cross_entropy<double>(y, targets);
        const auto gradients = bptt::linear_backward<double>(x, weight, loss.gradient, false);
        bptt::adam<double>({weight}, {gradients.weight}, {first}, {second}, step, 0.05, 0.9, 0.999, 1e-8, 0,
                           false);
        (step == 1 ? start : end) = loss.value;
    }
    check(end < 0.5 * start, "Adam at least halves the loss");
}

// The ledger's lags sum to the gradient, as does the row of all losses.
void lags_sum_to_the_gradient(bptt::Cell cell) {
    const Network network{cell};
    bptt::Tape<double> tape = network.forward().tape;
    bptt::Trace<double> trace;
    trace.full = true;
    const bptt::Gradients<double> grads =
        bptt::backward<double>(tape, network.dy, {}, bptt::Reduction::sum, true, &trace);
    bptt::Ledger<double> ledger(tape, Network::T - 1, 2);
    ledger.back(3, network.dy);
    ledger.back(0, network.dy);
    const Index size = grads.weight_hh.elements(), slots = Network::T + 1;
    for (Index i = 0; i < size; ++i) {
        double lags = 0, all = 0, steps = 0;
        for (Index b = 0; b < 2; ++b)
            for (Index k = 0; k < slots; ++k)
                (k + 1 < slots ? lags : all) += ledger.weight_hh().data()[(b * slots + k) * size + i];
        for (Index t = 0; t < Network::T; ++t) steps += trace.weight_hh.data()[t * size + i];
        const double whole = grads.weight_hh.data()[i];
        check(close(lags, whole, 1e-12) && close(all, whole, 1e-12) && close(steps, whole, 1e-12),
              "lags, and steps, sum to dW_hh");
    }
}

}  // namespace

int main() {
    for (bptt::Cell cell : {bptt::Cell::rnn_tanh, bptt::Cell::rnn_identity, bptt::Cell::lstm, bptt::Cell::gru,
                            bptt::Cell::gru_reset_before}) {
        both_directions_equal_two_calls(cell);
        gradients_equal_central_differences(cell);
        a_stream_equals_the_loop(cell);
        lags_sum_to_the_gradient(cell);
    }
    wrong_input_is_refused_with_a_sentence();
    reductions_divide_by_what_is_valid();
    a_dense_model_learns();
    std::printf("bptt %s, %s, %s\n", bptt::version(), bptt::instruction_set().c_str(),
                failures == 0 ? "all holds" : "FAILED");
    return failures == 0 ? 0 : 1;
}
