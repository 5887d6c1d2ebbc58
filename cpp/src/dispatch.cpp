#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "bptt/runtime.hpp"

// Which sets there are is the build's choice: it defines BPTT_HAVE_... for each beyond the baseline.
namespace bptt {
namespace baseline {
extern const kernels::Table table;
}
namespace x86_64_v3 {
extern const kernels::Table table;
}
namespace x86_64_v4 {
extern const kernels::Table table;
}

namespace {

struct Set {
    const char* name;
    const kernels::Table* table;
    bool supported;
};

// From the least to the most capable.
std::vector<Set> compiled_sets() {
    std::vector<Set> sets{{"baseline", &baseline::table, true}};
#if defined(BPTT_HAVE_X86_64_V3) || defined(BPTT_HAVE_X86_64_V4)
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#endif
#if defined(BPTT_HAVE_X86_64_V3)
    sets.push_back({"x86-64-v3", &x86_64_v3::table, v3});
#endif
#if defined(BPTT_HAVE_X86_64_V4)
    sets.push_back({"x86-64-v4", &x86_64_v4::table,
                    v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl")});
#endif
    return sets;
}

Set choose() {
    const std::vector<Set> sets = compiled_sets();
    const char* wanted = std::getenv("BPTT_INSTRUCTION_SET");
    if (wanted == nullptr || *wanted == '\0') {
        Set best = sets.front();
        for (const Set& set : sets)
            if (set.supported) best = set;
        return best;
    }
    std::string names;
    for (const Set& set : sets) {
        if (std::string(wanted) == set.name) {
            if (set.supported) return set;
            throw std::runtime_error("BPTT_INSTRUCTION_SET is \"" + std::string(wanted) +
                                     "\", which this processor does not have");
        }
        names += (names.empty() ? "" : ", ") + std::string(set.name);
    }
    throw std::runtime_error("BPTT_INSTRUCTION_SET is \"" + std::string(wanted) + "\", expected one of " +
                             names);
}

const Set& chosen() {
    static const Set set = choose();
    return set;
}

}  // namespace

namespace detail {
const kernels::Table& table() { return *chosen().table; }
}  // namespace detail

std::string instruction_set() { return chosen().name; }

std::vector<std::string> supported_instruction_sets() {
    std::vector<std::string> names;
    for (const Set& set : compiled_sets())
        if (set.supported) names.emplace_back(set.name);
    return names;
}

}  // namespace bptt
