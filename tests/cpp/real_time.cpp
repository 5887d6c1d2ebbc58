// No step of a stream makes a system call: seen by Linux's seccomp, whose strict mode kills a process that
// makes any but read, write and exit. Exits with 77, skipped, where there is no such mode. A sanitizer makes
// system calls of its own; under one the steps are run as they are, for it to look at.
#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"

#if defined(__linux__) && !BPTT_SANITIZED
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#define BPTT_STRICT_MODE 1
#endif

namespace {

using bptt::Cell;
using bptt::Index;

constexpr Index T = 5000;

enum class End { returned, killed, unknown, no_strict_mode };

#if defined(BPTT_STRICT_MODE)
constexpr int kNoStrictMode = 3;

template <class Call>
End in_strict_mode(Call call) {
    const pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(kNoStrictMode);
        call();
        syscall(SYS_exit, 0);  // _exit would make another one
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return End::unknown;
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGKILL ? End::killed : End::unknown;
    if (WEXITSTATUS(status) == kNoStrictMode) return End::no_strict_mode;
    return WEXITSTATUS(status) == 0 ? End::returned : End::unknown;
}

// What a real-time thread may not do is seen.
void strict_mode_kills() {
    check(in_strict_mode([] { syscall(SYS_getpid); }) == End::killed, "a system call is seen");
    check(in_strict_mode([] {
              volatile char* const block = static_cast<char*>(std::malloc(std::size_t{1} << 28));
              block[0] = 1;
          }) == End::killed,
          "much memory is seen");
    std::mutex mutex;
    mutex.lock();
    check(in_strict_mode([&] { mutex.lock(); }) == End::killed, "waiting for a lock is seen");
    mutex.unlock();
    check(in_strict_mode([] { std::thread([] {}).join(); }) == End::killed, "a new thread is seen");
}
#else
template <class Call>
End in_strict_mode(Call call) {
    call();
    return BPTT_SANITIZED ? End::returned : End::no_strict_mode;
}
void strict_mode_kills() {}
#endif

template <class R>
bptt::Model<R> network(Cell cell, bool embedding) {
    bptt::RecurrentOptions two;
    two.num_layers = 2;
    std::vector<bptt::Layer<R>> layers;
    if (embedding) layers.push_back(bptt::make_embedding<R>(7, 3));
    layers.push_back(bptt::make_recurrent<R>(cell, 3, 40, two));
    layers.push_back(bptt::make_linear<R>(40, 19));
    for (const auto each : {bptt::Nonlinearity::tanh, bptt::Nonlinearity::relu, bptt::Nonlinearity::sigmoid,
                            bptt::Nonlinearity::elu, bptt::Nonlinearity::softmax})
        layers.push_back(bptt::Activation<R>{each});
    bptt::Model<R> model = bptt::sequential<R>(std::move(layers));
    bptt::Random random(1);
    bptt::initialize(model, random);
    return model;
}

template <class R, class Stream>
void run(Stream& stream, const R* x, bool embedding) noexcept BPTT_NONBLOCKING {
    for (Index t = 0; t < T; ++t)
        if (embedding)
            stream.step_index(t % 7);
        else
            stream.step(x);
    stream.reset();
}

template <class R>
void run_layer(bptt::Stream<R>& stream, const R* x) noexcept BPTT_NONBLOCKING {
    for (Index t = 0; t < T; ++t) stream.step(x);
}

template <class R>
void steps_make_no_system_call(Cell cell) {
    const std::string name = bptt::cell_name(cell);
    const bptt::Array<R> x = numbers<R>({3}, 1);
    for (const bool embedding : {false, true}) {
        const bptt::Model<R> model = network<R>(cell, embedding);
        bptt::ModelStream<R> whole(model);
        check(in_strict_mode([&] { run(whole, x.data(), embedding); }) == End::returned,
              name + ": a model's stream makes no system call");
        bptt::LiveStream<R> live(model);
        live.publish(model);
        check(in_strict_mode([&] { run(live, x.data(), embedding); }) == End::returned,
              name + ": a live stream that takes new weights makes no system call");
    }
    const auto layer = bptt::make_recurrent<R>(cell, 3, 40);
    const auto& row = layer.rows[0];
    bptt::Stream<R> stream(cell, {row.weight_ih, row.weight_hh, row.bias_ih, row.bias_hh});
    check(in_strict_mode([&] { run_layer(stream, x.data()); }) == End::returned,
          name + ": a layer's stream makes no system call");
}

}  // namespace

int main() {
    if (in_strict_mode([] {}) == End::no_strict_mode) {
        std::puts("skipped: this system has no strict mode of seccomp");
        return 77;
    }
    strict_mode_kills();
    for (const Cell cell : {Cell::rnn_tanh, Cell::lstm, Cell::gru, Cell::gru_reset_before}) {
        steps_make_no_system_call<float>(cell);
        steps_make_no_system_call<double>(cell);
    }
    if (failures == 0)
        std::puts(BPTT_SANITIZED ? "real time: a sanitizer has looked at the steps"
                                 : "real time: no step makes a system call");
    return failures == 0 ? 0 : 1;
}
