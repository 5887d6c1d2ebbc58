// Calls side by side (kernels/beside.hpp), with loops that write down what is asked of them: every part is
// done once, in its order, and after what it reads. And which way is chosen for which sizes. ThreadSanitizer
// runs it too.
#include "kernels/beside.hpp"

#include <atomic>
#include <cstdio>
#include <string>
#include <vector>

#include "bptt/runtime.hpp"

namespace {

using namespace bptt::tested;
using bptt::Dims;
using bptt::Index;

int failures = 0;

void check(bool holds, const std::string& sentence) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "does not hold: %s\n", sentence.c_str());
}

// A call sums up what it reads, a number a step.
struct Args {
    Dims dims;
    const std::int64_t* lengths;
    int threads;
    const long* from;  // (T,), written by the call before; null: ones
    long* to;          // (T,)
    Index* begun;      // parts
    std::atomic<bool>* in_order;
};

class Sum {
public:
    static constexpr StepWork work{4, 4, 1, 1};  // an LSTM's

    explicit Sum(const Args& args, Index part_steps = kAllSteps)
        : a_(args), steps_(smaller(part_steps, args.dims.T)) {}

    // The first part and every third one have no steps.
    Index parts() const {
        Index parts = 0;
        while (reached(parts) < a_.dims.T) ++parts;
        return parts + 1;
    }
    Index reached(Index parts) const {
        return parts <= 1 ? 0 : smaller(a_.dims.T, (parts - 1 - (parts - 1) / 3) * steps_);
    }
    void part(Index i, int, Barrier&) const {
        if (i != *a_.begun) *a_.in_order = false;
        ++*a_.begun;
        for (Index t = reached(i); t < reached(i + 1); ++t)
            a_.to[t] = (t > 0 ? a_.to[t - 1] : 0) + (a_.from != nullptr ? a_.from[t] : 1);
    }
    void run() {
        Barrier alone(1);
        for (Index i = 0; i < parts(); ++i) part(i, 0, alone);
    }

private:
    const Args& a_;
    const Index steps_;
};

// The calls, what they write, and what is passed on: twice of it.
struct Stack {
    Dims dims;
    std::vector<std::vector<long>> sums, doubles;
    std::vector<Index> begun, told;
    std::atomic<bool> in_order{true};
    std::vector<Args> args;

    Stack(const Dims& its_dims, int count, bool chained, int threads) : dims(its_dims) {
        const auto T = static_cast<std::size_t>(dims.T), layers = static_cast<std::size_t>(count);
        sums.assign(layers, std::vector<long>(T));
        doubles = sums;
        begun.assign(layers, 0);
        told = begun;
        for (std::size_t l = 0; l < layers; ++l)
            args.push_back({dims, nullptr, threads, chained && l > 0 ? doubles[l - 1].data() : nullptr,
                            sums[l].data(), &begun[l], &in_order});
    }

    bptt::kernels::Calls<Args> calls(bool chained) const {
        const auto pass = [](const void* context, int call, Index first, Index last) {
            Stack& its = *static_cast<Stack*>(const_cast<void*>(context));
            const auto l = static_cast<std::size_t>(call);
            if (its.told[l] != first || last <= first) its.in_order = false;
            its.told[l] = last;
            for (auto t = static_cast<std::size_t>(first); t < static_cast<std::size_t>(last); ++t)
                its.doubles[l][t] = 2 * its.sums[l][t];
        };
        return {args.data(), static_cast<int>(args.size()), chained, pass, this};
    }

    void check_against(const Stack& one_by_one, const std::string& what) const {
        check(in_order, what + ": parts come in their order, and each step is passed on once");
        check(doubles == one_by_one.doubles, what + ": what one thread computes");
    }
};

void side_by_side_is_one_after_the_other(int count, bool chained) {
    const Dims dims{37, 1, 1, 1};
    Stack alone(dims, count, chained, 1);
    run_calls<float, Sum>(alone.calls(chained));
    alone.check_against(alone, "one by one");
    for (Index part_steps : {Index{1}, Index{5}, Index{36}, kAllSteps})
        for (int threads : {1, 2, 3, 7}) {
            Stack stack(dims, count, chained, threads);
            const Team team(threads);
            const auto calls = stack.calls(chained);
            const Beside<Sum, Args> beside(calls, part_steps, team.threads());
            team.run([&](int thread, Barrier&) { beside.work(thread); });
            stack.check_against(alone, std::to_string(count) + (chained ? " chained" : "") + " calls, " +
                                           std::to_string(threads) + " threads, parts of " +
                                           std::to_string(part_steps));
        }
}

void whichever_way_is_chosen_gives_the_same() {
    const Dims dims{100, 1, 64, 64};
    Stack alone(dims, 3, true, 1), several(dims, 3, true, 2);
    run_calls<float, Sum>(alone.calls(true));
    run_calls<float, Sum>(several.calls(true));
    several.check_against(alone, "as planned");
    const bool granted = Team(2).threads() > 1;  // not without OpenMP
    check((several.begun[0] > alone.begun[0]) == granted, "side by side the parts are shorter");
    bptt::spend_most_memory(true);
    Stack dear(dims, 3, true, 2);
    run_calls<float, Sum>(dear.calls(true));
    bptt::spend_most_memory(false);
    dear.check_against(alone, "with most memory");
    check(dear.begun == alone.begun, "where room is made for both ways it is one call after the other");
    const Team all(2);  // no other call gets threads now
    Stack refused(dims, 3, true, 2);
    run_calls<float, Sum>(refused.calls(true));
    refused.check_against(alone, "with the threads elsewhere");
    check(refused.begun == alone.begun, "where no threads are granted it is one call after the other");
}

BesidePlan plan(int layers, Dims dims, int threads, bool chained = true) {
    return plan_beside<float>(
        Sum::work, layers, [&](int l) { return Dims{dims.T, dims.N, l > 0 ? dims.H : dims.D, dims.H}; },
        nullptr, chained, threads);
}

// What holds for every instruction set.
void the_way_is_chosen_by_the_sizes() {
    check(plan(2, {100, 1, 64, 64}, 2).threads == 2, "a sequence through two layers has a thread for each");
    check(plan(3, {1000, 1, 64, 64}, 2).threads == 2, "three layers have two threads where there are two");
    check(plan(2, {10000, 1, 4, 4}, 8).threads == 2, "two layers have no use for more than two");
    check(plan(2, {1000, 1, 64, 64}, 1).threads == 1, "one thread does one layer after the other");
    check(plan(1, {1000, 1, 64, 64}, 2).threads == 1, "one layer has nothing beside it");
    check(plan(3, {1, 1, 64, 64}, 2).threads == 1, "one step has no next one to go on with");
    check(plan(2, {100, 64, 64, 64}, 2).threads == 1, "many sequences are split instead");
    check(plan(2, {100, 1, 64, 2048}, 16).threads == 1, "with many threads and units, units are split");
    check(plan(2, {100, 64, 64, 64}, 2, false).threads == 2, "directions wait for nothing");
    const BesidePlan some = plan(2, {1000, 1, 64, 64}, 2);
    check(some.part_steps > 1 && some.part_steps < 250, "parts are neither single steps nor the most of it");
    check(plan(2, {1000, 1, 64, 64}, 2, false).part_steps == 1000, "nobody waits: no short parts");
}

}  // namespace

int main() {
    for (int count : {1, 2, 3, 6})
        for (bool chained : {false, true}) side_by_side_is_one_after_the_other(count, chained);
    whichever_way_is_chosen_gives_the_same();
    the_way_is_chosen_by_the_sizes();
    std::printf("beside: %s\n", failures == 0 ? "all holds" : "FAILED");
    return failures == 0 ? 0 : 1;
}
