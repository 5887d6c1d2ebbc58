// Learns a noisy sine while it comes in: guesses each sample from those before, and every 20 samples makes an
// update by what they were, propagated back through these 20. The state runs on from window to window.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "training.hpp"

int main() {
    constexpr bptt::Index window = 20;
    constexpr int windows = 1500;

    bptt::Random random(0);
    auto model = bptt::sequential<float>(
        {bptt::make_recurrent<float>(bptt::Cell::gru, 1, 16), bptt::make_linear<float>(16, 1)});
    bptt::initialize(model, random);
    Training training(model, 0.01);

    std::normal_distribution<float> noise(0, 0.05f);
    int t = 0;
    const auto listen = [&] { return std::sin(0.3f * static_cast<float>(t++)) + noise(random); };
    std::vector<float> heard(window + 1, 0.0f);
    bptt::ModelState<float> state;
    double ours = 0, repeated = 0;  // squared errors over the last fifth: the model's, and of "as just now"
    for (int w = 0; w < windows; ++w) {
        heard[0] = heard[window];
        for (bptt::Index i = 1; i <= window; ++i) heard[static_cast<std::size_t>(i)] = listen();
        const bptt::View<const float> x(heard.data(), {window, 1, 1}), next(heard.data() + 1, {window, 1, 1});

        auto run = bptt::forward(model, x, state);
        state = run.state;
        const auto loss = bptt::mse<float>(run.y, next);
        training.update(bptt::backward(model, run.tape, loss.gradient).parameters);

        if (w >= windows - windows / 5) {
            ours += loss.value;
            repeated += bptt::mse<float>(x, next).value;
        }
        if (w % 250 == 0) std::printf("sample %5d: mean squared error %.4f\n", t, loss.value);
    }
    std::printf("over the last fifth: %.4f; by the sample before: %.4f; the noise alone: %.4f\n",
                ours / (windows / 5), repeated / (windows / 5), 0.05 * 0.05);
    return ours < 0.25 * repeated ? 0 : 1;
}
