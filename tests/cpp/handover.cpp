// From thread to thread without waiting; worth most under ThreadSanitizer.
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "check.hpp"

namespace {

using bptt::Cell;
using bptt::Index;

void a_ring_is_a_queue() {
    bptt::Ring<int> ring(3);
    const int five[] = {1, 2, 3, 4, 5};
    int out[5] = {};
    check(ring.capacity() == 3 && !ring.pop(out[0]), "a new ring is empty");
    check(ring.push(five, 5) == 3 && !ring.push(6), "a full ring takes no more");
    check(ring.pop(out, 2) == 2 && out[0] == 1 && out[1] == 2, "the oldest come first");
    check(ring.push(five + 3, 2) == 2, "there is room again");
    check(ring.pop(out, 5) == 3 && out[0] == 3 && out[1] == 4 && out[2] == 5, "around the end");
    check_refused("capacity is 0", [] { bptt::Ring<int>(0); });
}

void everything_goes_through_a_ring_in_order() {
    constexpr int count = 200000;
    bptt::Ring<int> ring(64);
    std::thread pushing([&] {
        int next = 0, block[7];
        while (next < count) {
            int size = 0;
            while (size < 7 && next + size < count) {
                block[size] = next + size;
                ++size;
            }
            const auto pushed = static_cast<int>(ring.push(block, static_cast<std::size_t>(size)));
            if (pushed == 0) std::this_thread::yield();
            next += pushed;
        }
    });
    int expected = 0, block[5];
    bool in_order = true;
    while (expected < count) {
        const std::size_t popped = ring.pop(block, 5);
        if (popped == 0) std::this_thread::yield();
        for (std::size_t i = 0; i < popped; ++i) in_order = in_order && block[i] == expected++;
    }
    pushing.join();
    check(in_order && !ring.pop(block[0]), "what is pushed is popped, once and in order");
}

// A value that is whole only when all of it comes from one writing.
struct Whole {
    long parts[32];
};

void a_reader_sees_whole_values_and_never_older_ones() {
    constexpr long count = 50000;
    bptt::TripleBuffer<Whole> buffer([] { return Whole{}; });
    check(!buffer.update(), "at first there is nothing new");
    std::thread writing([&] {
        for (long i = 1; i <= count; ++i) {
            for (long& part : buffer.back().parts) part = i;
            buffer.publish();
            if (i % 64 == 0) std::this_thread::yield();
        }
    });
    long last = 0;
    bool whole = true, forward = true;
    while (last < count) {
        if (!buffer.update()) {
            std::this_thread::yield();
            continue;
        }
        const long now = buffer.front().parts[0];
        forward = forward && now > last;
        last = now;
        for (const long part : buffer.front().parts) whole = whole && part == now;
    }
    writing.join();
    check(whole, "a value is never half of one and half of another");
    check(forward, "each value is newer than the one before");
}

// The whole of online training: a real-time thread runs the model and sends its samples; a worker trains on
// them and publishes the weights. The model learns y = the sample two steps before.
void a_worker_trains_what_a_real_time_thread_runs() {
    constexpr Index block = 50, N = 1;
    bptt::Random random(3);
    bptt::Model<float> model = bptt::sequential<float>(
        {bptt::make_recurrent<float>(Cell::gru, 1, 12), bptt::make_linear<float>(12, 1)});
    bptt::initialize(model, random);
    bptt::LiveStream<float> live(model);
    bptt::Ring<float> samples(512);
    std::atomic<bool> stop{false};
    int updates = 0;

    std::thread worker([&] {
        const auto parameters = bptt::parameters(model);
        bptt::NamedArrays<float> first, second;
        for (const auto& [name, value] : parameters)
            for (bptt::NamedArrays<float>* moments : {&first, &second}) {
                moments->push_back({name, bptt::Array<float>(value.shape())});
                std::fill_n(moments->back().value.data(), value.elements(), 0.0f);
            }
        std::vector<float> heard(block);
        std::size_t count = 0;
        while (!stop) {
            count += samples.pop(heard.data() + count, block - count);
            if (count < block) {
                std::this_thread::yield();
                continue;
            }
            count = 0;
            std::vector<float> target(heard);
            for (Index t = block; t-- > 2;)
                target[static_cast<std::size_t>(t)] = heard[static_cast<std::size_t>(t - 2)];
            auto run = bptt::forward(model, bptt::View<const float>(heard.data(), {block, N, 1}));
            const auto loss = bptt::mse<float>(run.y, bptt::View<const float>(target.data(), {block, N, 1}));
            const auto gradients = bptt::backward(model, run.tape, loss.gradient);
            bptt::adam<float>(bptt::views(parameters), bptt::const_views(gradients.parameters),
                              bptt::views(first), bptt::views(second), ++updates, 0.01, 0.9, 0.999, 1e-8, 0,
                              false);
            live.publish(model);
        }
    });

    unsigned seed = 1;
    float past[3] = {};
    double early = 0, late = 0;
    int taken = 0;
    Index steps = 0;
    for (; steps < 400000 && taken < 800; ++steps) {
        seed = seed * 1664525u + 1013904223u;
        const float x = static_cast<float>(seed >> 8) / static_cast<float>(1 << 24) - 0.5f;
        past[2] = past[1];
        past[1] = past[0];
        past[0] = x;
        if (live.update()) ++taken;
        const float error = *live.step(&x) - past[2];
        double& mean = taken < 20 ? early : late;
        mean += 0.002 * (static_cast<double>(error) * static_cast<double>(error) - mean);
        if (!samples.push(x)) std::this_thread::yield();  // a real-time thread would drop it
    }
    stop = true;
    worker.join();
    check(taken >= 20, "the real-time thread took weights while it ran");
    check(late < 0.5 * early, "and its model became better by them: " + std::to_string(early) + " to " +
                                  std::to_string(late) + " after " + std::to_string(taken) + " of " +
                                  std::to_string(updates) + " updates");
}

}  // namespace

int main() {
    bptt::set_num_threads(1);
    a_ring_is_a_queue();
    everything_goes_through_a_ring_in_order();
    a_reader_sees_whole_values_and_never_older_ones();
    a_worker_trains_what_a_real_time_thread_runs();
    if (failures == 0) std::puts("from thread to thread: all laws hold");
    return failures == 0 ? 0 : 1;
}
