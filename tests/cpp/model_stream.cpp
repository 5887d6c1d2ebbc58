// Whole models in real time: the bits of predict, and nothing taken from the system while they run.
#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include "check.hpp"

// Counts what is asked of malloc. The C library's own functions are underneath, so that nothing that
// allocates, in whatever way, goes by.
namespace {
std::atomic<long> allocations{0};
thread_local bool counted = false;
}  // namespace

// Sanitizers have a malloc of their own.
#if defined(__GLIBC__) && !BPTT_SANITIZED
#define BPTT_COUNTS_MALLOC 1
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* block, std::size_t size);
void __libc_free(void* block);
void* malloc(std::size_t size) {
    if (counted) ++allocations;
    return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
    if (counted) ++allocations;
    return __libc_calloc(count, size);
}
void* realloc(void* block, std::size_t size) {
    if (counted) ++allocations;
    return __libc_realloc(block, size);
}
void free(void* block) {
    if (counted && block != nullptr) ++allocations;
    __libc_free(block);
}
}
#endif

namespace {

using bptt::Cell;
using bptt::Index;
using bptt::Model;

template <class R>
Model<R> network(Cell cell, bool embedding, unsigned seed) {
    bptt::RecurrentOptions two;
    two.num_layers = 2;
    two.learn_initial_state = true;
    std::vector<bptt::Layer<R>> layers;
    if (embedding) layers.push_back(bptt::make_embedding<R>(7, 3));
    layers.push_back(bptt::Activation<R>{bptt::Nonlinearity::tanh});
    layers.push_back(bptt::make_recurrent<R>(cell, 3, 17, two));
    layers.push_back(bptt::make_linear<R>(17, 40));
    for (const auto each : {bptt::Nonlinearity::elu, bptt::Nonlinearity::tanh, bptt::Nonlinearity::relu,
                            bptt::Nonlinearity::sigmoid, bptt::Nonlinearity::softmax})
        layers.push_back(bptt::Activation<R>{each});
    layers.push_back(bptt::make_linear<R>(40, 5, false));
    layers.push_back(bptt::make_recurrent<R>(Cell::gru, 5, 2));
    Model<R> model = bptt::sequential<R>(layers);
    bptt::Random random(seed);
    bptt::initialize(model, random);
    for (const auto& [name, array] : bptt::parameters(model))
        if (name.find("initial") != std::string::npos)
            for (Index i = 0; i < array.elements(); ++i) array.data()[i] = R(0.1) * static_cast<R>(i);
    return model;
}

constexpr Index T = 20;

// What real-time code does: everything that stands in it runs under the check.
template <class R, class Stream>
void run(Stream& stream, const R* x, const std::int64_t* index, R* y) noexcept BPTT_NONBLOCKING {
    for (Index t = 0; t < T; ++t) {
        const R* const from = index == nullptr ? stream.step(x + 3 * t) : stream.step_index(index[t]);
        for (Index v = 0; v < 2; ++v) y[2 * t + v] = from[v];
    }
}

template <class Call>
void check_takes_nothing(const std::string& what, Call call) {
    allocations = 0;
    counted = true;
    call();
    counted = false;
    check(allocations == 0, what + " takes no memory and gives none back");
}

template <class R>
void a_stream_is_predict(Cell cell, bool embedding) {
    const std::string name = std::string(bptt::cell_name(cell)) + (embedding ? " over an embedding" : "");
    const Model<R> model = network<R>(cell, embedding, 1), other = network<R>(cell, embedding, 2);
    const bptt::Array<R> x = numbers<R>({T, 1, 3}, 8);
    std::vector<std::int64_t> index;
    for (Index t = 0; t < T; ++t) index.push_back(t * t % 7);
    const bptt::View<const std::int64_t> indices(index.data(), {T, 1});
    const auto input = embedding ? bptt::Input<R>(indices) : bptt::Input<R>(x);
    const bptt::Array<R> expected = bptt::predict(model, input).y;
    const std::int64_t* const its = embedding ? index.data() : nullptr;
    bptt::Array<R> y(expected.shape());

    bptt::ModelStream<R> stream(model);
    check(stream.input_size() == (embedding ? 0 : 3) && stream.output_size() == 2, name + ": sizes");
    for (const char* what : {"a stream", "a stream that was reset"}) {
        check_takes_nothing(what, [&] { run<R>(stream, x.data(), its, y.data()); });
        check(same_bits<R>(y, expected), name + ": " + what + " has the bits of predict");
        stream.reset();
    }
    bptt::ModelStream<R> moved(std::move(stream));
    run<R>(moved, x.data(), its, y.data());
    check(same_bits<R>(y, expected), name + ": a moved stream goes on");
    if (embedding) {
        check(moved.step(x.data()) == nullptr && moved.step_index(7) == nullptr &&
                  moved.step_index(-1) == nullptr,
              name + ": an input of another kind, or outside, gives nothing");
    } else {
        check(moved.step_index(0) == nullptr, name + ": an index gives nothing where there is no embedding");
    }

    // New weights, the old state: as two calls of predict, the second from the state of the first.
    bptt::LiveStream<R> live(model);
    run<R>(live, x.data(), its, y.data());
    check(same_bits<R>(y, expected), name + ": a live stream has the bits of predict");
    live.publish(model);
    live.publish(other);
    check_takes_nothing("a live stream that takes new weights",
                        [&] { run<R>(live, x.data(), its, y.data()); });
    const auto first = bptt::predict(model, input);
    check(same_bits<R>(y, bptt::predict(other, input, first.state).y),
          name + ": new weights go on from the old state");
    check(!live.update(), name + ": there are no newer weights");
    check_refused("the model's layers differ", [&] {
        live.publish(network<R>(cell == Cell::lstm ? Cell::gru : Cell::lstm, embedding, 1));
    });
}

void what_can_not_run_is_refused() {
    bptt::RecurrentOptions both;
    both.bidirectional = true;
    check_refused("layer \"0\" is bidirectional", [&] {
        bptt::ModelStream<float>(
            bptt::sequential<float>({bptt::make_recurrent<float>(Cell::gru, 1, 1, both)}));
    });
    check_refused("the layers are activations, expected one at least that has weights",
                  [] { bptt::ModelStream<float>(bptt::sequential<float>({bptt::Activation<float>()})); });
    check_refused("an embedding reads indices, expected it to be the first", [] {
        bptt::ModelStream<float>(
            bptt::sequential<float>({bptt::Activation<float>(), bptt::make_embedding<float>(2, 3)}));
    });
    check_refused("there are no layers", [] { bptt::ModelStream<float>{Model<float>()}; });
    check_refused("layer \"1\": reads 3 numbers, expected 2", [] {
        bptt::ModelStream<float>(bptt::sequential<float>(
            {bptt::make_linear<float>(1, 2), bptt::make_recurrent<float>(Cell::lstm, 3, 1)}));
    });
}

}  // namespace

int main() {
#if defined(BPTT_COUNTS_MALLOC)
    counted = true;
    ::operator delete(::operator new(1));
    counted = false;
    check(allocations == 2, "new and delete are counted");
#endif
    for (const bool embedding : {false, true})
        for (const Cell cell : {Cell::rnn_tanh, Cell::lstm, Cell::gru, Cell::gru_reset_before}) {
            a_stream_is_predict<float>(cell, embedding);
            a_stream_is_predict<double>(cell, embedding);
        }
    what_can_not_run_is_refused();
    if (failures == 0) std::puts("streams of whole models: all laws hold");
    return failures == 0 ? 0 : 1;
}
