// The ledger of a small net: how far the gradient that trains it travels back through time. The net learns to
// say what it read 4 steps ago, so what it learns from is 4 steps away.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "training.hpp"

int main() {
    constexpr bptt::Index T = 40, N = 16, delay = 4, max_lag = 9;
    bptt::Random random(0);
    auto model = bptt::sequential<float>(
        {bptt::make_recurrent<float>(bptt::Cell::rnn_tanh, 1, 16), bptt::make_linear<float>(16, 1)});
    bptt::initialize(model, random);
    Training training(model, 5e-3);

    std::uniform_real_distribution<float> uniform(-1, 1);
    bptt::Array<float> x({T, N, 1}), y({T, N, 1});
    const auto read = [&] {
        for (bptt::Index i = 0; i < T * N; ++i) x.data()[i] = uniform(random);
        for (bptt::Index i = 0; i < T * N; ++i) y.data()[i] = i < delay * N ? 0 : x.data()[i - delay * N];
    };
    double loss = 0;
    for (int update = 0; update < 600; ++update) {
        read();
        auto run = bptt::forward(model, x);
        const auto mse = bptt::mse<float>(run.y, y);
        loss += 0.02 * (mse.value - loss);
        training.update(bptt::backward(model, run.tape, mse.gradient).parameters);
    }
    std::printf("mean squared error %.4f; always 0: %.4f\n\n", loss, 1 / 3.0 * (T - delay) / T);

    // The gradient of one more batch, taken apart: dW_hh is the sum over k of D[k], what travelled k steps.
    read();
    auto run = bptt::forward(model, x);
    const auto mse = bptt::mse<float>(run.y, y);
    const auto& linear = std::get<bptt::Linear<float>>(model.layers[1].layer);
    const auto dy = bptt::linear_backward<float>(run.tape[1].input.x, linear.weight, mse.gradient).x;
    bptt::Ledger<float> ledger(run.tape[0].rows[0], T - 1);
    ledger.back(0, dy);
    const bptt::Array<float>& parts = ledger.weight_hh();  // (1, T + 1, H, H), the last one: all
    const bptt::Index size = 16 * 16;
    const auto part = [&](bptt::Index k) { return parts.data() + k * size; };

    double of_all = 0, left_over = 0, largest = 0;
    bptt::Index at = 0;
    for (bptt::Index i = 0; i < size; ++i) {
        double sum = 0;
        for (bptt::Index k = 0; k < T; ++k) sum += static_cast<double>(part(k)[i]);
        of_all += std::pow(static_cast<double>(part(T)[i]), 2);
        left_over += std::pow(sum - static_cast<double>(part(T)[i]), 2);
    }
    std::puts("steps back   norm of that part of dL/dW_hh");
    for (bptt::Index k = 0; k <= max_lag; ++k) {
        double norm = 0;
        for (bptt::Index i = 0; i < size; ++i) norm += std::pow(static_cast<double>(part(k)[i]), 2);
        norm = std::sqrt(norm);
        if (norm > largest) {
            largest = norm;
            at = k;
        }
        std::printf("%10td   %.5f %s\n", k, norm,
                    std::string(static_cast<std::size_t>(std::min(60.0, norm * 2000)), '#').c_str());
    }
    std::printf("\nthe largest part is %td steps back; all parts together miss the gradient by %.1e of it\n",
                at, std::sqrt(left_over / of_all));
    return loss < 0.1 && left_over < 1e-8 * of_all ? 0 : 1;
}
