// Truncated windows from C++. What it trains it prints to the bit: tests/cpp/same_bits.py trains the same in
// Python.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "bptt/bptt.hpp"

namespace {

using bptt::Index;
using bptt::View;

constexpr Index T = 11, N = 3, V = 7;

int failures = 0;

void check(bool holds, const std::string& sentence) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "does not hold: %s\n", sentence.c_str());
}

// The same numbers in C++ and Python: a generator of one line, and sizes that no rounding hides behind.
bptt::Model<float> model(bptt::Cell cell) {
    bptt::RecurrentOptions options;
    options.num_layers = 2;
    options.learn_initial_state = true;
    auto its = bptt::sequential<float>(
        {bptt::make_embedding<float>(V, 4), bptt::make_recurrent<float>(cell, 4, 5, options),
         bptt::Activation<float>{bptt::Nonlinearity::elu}, bptt::make_linear<float>(5, 6),
         bptt::Activation<float>{bptt::Nonlinearity::softmax}, bptt::make_linear<float>(6, V)});
    std::uint32_t seed = 1;
    for (const auto& parameter : bptt::parameters(its))
        for (Index i = 0; i < parameter.value.elements(); ++i) {
            seed = seed * 1664525u + 1013904223u;
            parameter.value.data()[i] = static_cast<float>(seed >> 8) / static_cast<float>(1 << 24) - 0.5f;
        }
    return its;
}

struct Stream {
    std::vector<std::int64_t> x, target;
    Stream() {
        for (Index i = 0; i < T * N; ++i) {
            x.push_back(i * i % V);
            target.push_back((i * i + i) % V);
        }
    }
    View<const std::int64_t> input() const { return {x.data(), {T, N}}; }
    bptt::Loss<float> loss(View<const float> prediction, Index start, Index stop) const {
        const View<const std::int64_t> its(target.data() + start * N, {stop - start, N});
        return bptt::softmax_cross_entropy<float>(prediction, its);
    }
};

using Each = std::vector<bptt::Update<float>>;

Each train(const bptt::Model<float>& its, bptt::TruncatedBPTT schedule, double lr) {
    const Stream stream;
    bptt::Windows<float> windows(its, schedule, stream.input());
    const auto parameters = bptt::parameters(its);
    Each all;
    while (auto update =
               windows.next([&](View<const float> y, Index a, Index b) { return stream.loss(y, a, b); })) {
        bptt::sgd(bptt::views(parameters), bptt::const_views(update->gradients), {}, lr, 0, false, 0);
        all.push_back(std::move(*update));
    }
    return all;
}

void a_window_of_all_steps_is_full_bptt(bptt::Cell cell) {
    const auto its = model(cell);
    const Stream stream;
    auto run = bptt::forward<float>(its, stream.input());
    const auto loss = stream.loss(run.y, 0, T);
    const auto whole = bptt::backward(its, run.tape, loss.gradient);
    const Each all = train(its, {T, T}, 0);
    check(all.size() == 1 && all[0].loss == loss.value, "one window of all steps");
    for (std::size_t i = 0; i < whole.parameters.size(); ++i) {
        const auto &a = whole.parameters[i].value, &b = all[0].gradients[i].value;
        check(std::equal(a.data(), a.data() + a.elements(), b.data()), "full BPTT, to the bit");
    }
}

// What a long window adds to a short one is what travelled further.
void windows_go_back_as_far_as_they_say() {
    const auto its = model(bptt::Cell::gru);
    const Each narrow = train(its, {3, 3}, 0), wide = train(its, {3, 6}, 0);
    check(narrow.size() == 4 && wide.size() == 4 && wide[3].start == 9 && wide[3].stop == T,
          "four windows, the last of two steps");
    for (std::size_t w = 0; w < 4; ++w) {
        const auto &a = narrow[w].gradients[2].value, &b = wide[w].gradients[2].value;
        const bool same = std::equal(a.data(), a.data() + a.elements(), b.data());
        check(narrow[w].loss == wide[w].loss && same == (w == 0), "only later windows can go further back");
    }
}

std::string refusal(bptt::TruncatedBPTT schedule, bool bidirectional) {
    bptt::RecurrentOptions options;
    options.bidirectional = bidirectional;
    const auto its = bptt::sequential<float>({bptt::make_recurrent<float>(bptt::Cell::gru, 2, 3, options)});
    const std::vector<float> x(8);
    try {
        bptt::Windows<float> windows(its, schedule, View<const float>(x.data(), {4, 1, 2}));
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

void print(bptt::Cell cell) {
    const auto its = model(cell);
    for (const auto& update : train(its, {3, 5}, 0.1)) std::printf("%a\n", update.loss);
    for (const auto& parameter : bptt::parameters(its))
        for (Index i = 0; i < parameter.value.elements(); ++i)
            std::printf("%a\n", static_cast<double>(parameter.value.data()[i]));
}

}  // namespace

int main(int count, char** arguments) {
    if (count > 1) {
        print(bptt::cell_from_name(arguments[1]));
        return 0;
    }
    for (bptt::Cell cell : {bptt::Cell::rnn_tanh, bptt::Cell::lstm, bptt::Cell::gru})
        a_window_of_all_steps_is_full_bptt(cell);
    windows_go_back_as_far_as_they_say();
    check(refusal({0, 2}, false).find("k1 is 0") != std::string::npos, "k1 = 0 is refused");
    check(refusal({3, 2}, false).find("k2 is 2, expected k2 >= k1 = 3") != std::string::npos,
          "k2 < k1 is refused");
    check(refusal({3, 4}, true).find("layer 0 is bidirectional") != std::string::npos,
          "both directions are refused");
    std::printf("truncation: %s\n", failures == 0 ? "all holds" : "FAILED");
    return failures == 0 ? 0 : 1;
}
