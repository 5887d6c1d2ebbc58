#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "bptt/runtime.hpp"

// Which sets there are is the build's choice: it defines BPTT_HAVE_... for each.
#if !(defined(BPTT_HAVE_BASELINE) || defined(BPTT_HAVE_X86_64_V3) || defined(BPTT_HAVE_X86_64_V4))
#error "the build compiles no instruction set"
#endif

namespace bptt {
namespace baseline {
struct Set;
}
namespace x86_64_v3 {
struct Set;
}
namespace x86_64_v4 {
struct Set;
}

namespace {

// Their order is that of the tables in detail::table, below.
struct Set {
    const char* name;
    bool supported;
};

// From the least to the most capable.
std::vector<Set> compiled_sets() {
    std::vector<Set> sets;
#if defined(BPTT_HAVE_BASELINE)
    sets.push_back({"baseline", true});
#endif
#if defined(BPTT_HAVE_X86_64_V3) || defined(BPTT_HAVE_X86_64_V4)
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#endif
#if defined(BPTT_HAVE_X86_64_V3)
    sets.push_back({"x86-64-v3", v3});
#endif
#if defined(BPTT_HAVE_X86_64_V4)
    sets.push_back(
        {"x86-64-v4", v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl")});
#endif
    return sets;
}

std::size_t choose(const std::vector<Set>& sets) {
    const char* environment = std::getenv("BPTT_INSTRUCTION_SET");
    const std::string wanted = environment == nullptr ? "" : environment;
    std::size_t best = sets.size();
    std::string names;
    for (std::size_t i = 0; i < sets.size(); ++i) {
        if (wanted == sets[i].name) {
            if (sets[i].supported) return i;
            throw std::runtime_error("BPTT_INSTRUCTION_SET is \"" + wanted +
                                     "\", which this processor does not have");
        }
        if (sets[i].supported) best = i;
        names += (names.empty() ? "" : ", ") + std::string(sets[i].name);
    }
    if (!wanted.empty())
        throw std::runtime_error("BPTT_INSTRUCTION_SET is \"" + wanted + "\", expected one of " + names);
    if (best == sets.size())
        throw std::runtime_error("this processor has none of the instruction sets that bptt was built for: " +
                                 names);
    return best;
}

std::size_t chosen() {
    static const std::size_t set = choose(compiled_sets());
    return set;
}

}  // namespace

namespace detail {

#if defined(__clang__)
// Each set's kernels.cpp defines its tables.
#pragma clang diagnostic ignored "-Wundefined-var-template"
#endif

template <class Table>
const Table& table() {
    static const Table* const tables[] = {
#if defined(BPTT_HAVE_BASELINE)
        &kernels::Of<baseline::Set, Table>::table,
#endif
#if defined(BPTT_HAVE_X86_64_V3)
        &kernels::Of<x86_64_v3::Set, Table>::table,
#endif
#if defined(BPTT_HAVE_X86_64_V4)
        &kernels::Of<x86_64_v4::Set, Table>::table,
#endif
    };
    return *tables[chosen()];
}

#define BPTT_FOR(Table)                                                   \
    template const kernels::Table<float>& table<kernels::Table<float>>(); \
    template const kernels::Table<double>& table<kernels::Table<double>>();
BPTT_FOR(ForwardTable)
BPTT_FOR(BackwardTable)
BPTT_FOR(LedgerTable)
BPTT_FOR(StreamTable)
BPTT_FOR(DenseTable)
BPTT_FOR(ActivationTable)
BPTT_FOR(LossTable)
BPTT_FOR(OptimTable)
#undef BPTT_FOR

}  // namespace detail

std::string instruction_set() { return compiled_sets()[chosen()].name; }

std::vector<std::string> supported_instruction_sets() {
    std::vector<std::string> names;
    for (const Set& set : compiled_sets())
        if (set.supported) names.emplace_back(set.name);
    return names;
}

}  // namespace bptt
