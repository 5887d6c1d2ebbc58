// An audio effect by example: a recurrent model of an overdriven low-pass filter learns from what goes in and
// what comes out, block by block, and then runs sample by sample as a plug-in would run it.
//   audio_effect [effect.json]    also writes the model as RTNeural reads it
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "training.hpp"

// The effect to be learned: a low-pass filter with feedback, driven into saturation, softer upwards than
// downwards.
struct Effect {
    float low = 0, band = 0;

    float operator()(float x) {
        low += 0.2f * band;
        band += 0.2f * (3 * x - low - 0.8f * band);
        return std::tanh(low > 0 ? 0.7f * low : 1.2f * low);
    }
};

// Something to play: notes of changing pitch and loudness.
struct Player {
    std::mt19937 random{2};
    float phase = 0, pitch = 0.1f, loudness = 0.5f;

    float operator()() {
        std::uniform_real_distribution<float> uniform(0, 1);
        if (uniform(random) < 0.002f) {
            pitch = 0.02f + 0.3f * uniform(random) * uniform(random);
            loudness = uniform(random);
        }
        phase += pitch;
        return loudness * (std::sin(phase) + 0.3f * std::sin(2.7f * phase)) +
               0.02f * (uniform(random) - 0.5f);
    }
};

int main(int argc, char** argv) {
    constexpr bptt::Index T = 128, N = 16;  // a block is so long, and so many play side by side
    constexpr int blocks = 800;

    bptt::Random random(0);
    auto model = bptt::sequential<float>(
        {bptt::make_recurrent<float>(bptt::Cell::lstm, 1, 16), bptt::make_linear<float>(16, 1)});
    bptt::initialize(model, random);
    Training training(model, 5e-3);

    std::vector<Player> players(N);
    std::vector<Effect> effects(N);
    for (std::size_t n = 0; n < N; ++n) players[n].random.seed(static_cast<unsigned>(n) + 10);
    bptt::Array<float> x({T, N, 1}), y({T, N, 1});
    bptt::ModelState<float> state;
    for (int block = 0; block < blocks; ++block) {
        for (std::size_t t = 0; t < T; ++t)
            for (std::size_t n = 0; n < N; ++n) {
                x.data()[t * N + n] = players[n]();
                y.data()[t * N + n] = effects[n](x.data()[t * N + n]);
            }
        auto run = bptt::forward(model, x, state);
        state = run.state;
        const auto loss = bptt::mse<float>(run.y, y);
        training.update(bptt::backward(model, run.tape, loss.gradient).parameters);
        if (block % 100 == 0) std::printf("block %3d: mean squared error %.5f\n", block, loss.value);
    }

    // Two seconds that it has never heard, sample by sample. Beside it: the input, as loud as fits best.
    constexpr std::size_t samples = 2 * 48000;
    std::vector<float> in(samples), out(samples), wanted(samples);
    Player player;
    Effect effect;
    for (std::size_t i = 0; i < samples; ++i) wanted[i] = effect(in[i] = player());
    bptt::ModelStream<float> stream(model);
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < samples; ++i) out[i] = *stream.step(&in[i]);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;

    double power = 0, error = 0, crossed = 0, in_power = 0;
    for (std::size_t i = 0; i < samples; ++i) {
        const double w = static_cast<double>(wanted[i]), o = static_cast<double>(out[i]);
        const double dry = static_cast<double>(in[i]);
        power += w * w;
        error += (o - w) * (o - w);
        crossed += dry * w;
        in_power += dry * dry;
    }
    const double dry_error = power - crossed * crossed / in_power;
    std::printf("error to signal: %.2f %%; the input itself, scaled: %.1f %%\n", 100 * error / power,
                100 * dry_error / power);
    std::printf("time per sample: %.0f ns, %.2f %% of what a sample may take at 48 kHz\n",
                1e9 * seconds.count() / samples, 100 * seconds.count() / 2);
    if (argc > 1) bptt::save_rtneural(argv[1], model);
    return error < 0.1 * dry_error ? 0 : 1;
}
