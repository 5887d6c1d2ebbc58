// The choice of instruction set on a processor that has nothing beyond the baseline, and in a library that
// was built without one: what an application gets told.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>

#define BPTT_HAVE_X86_64_V3
#define BPTT_HAVE_X86_64_V4
#define __builtin_cpu_init() (void)0
#define __builtin_cpu_supports(feature) processor_has(feature)

namespace {

std::string processor;  // its features, each between spaces

bool processor_has(const char* feature) {
    return processor.find(" " + std::string(feature) + " ") != std::string::npos;
}

}  // namespace

#include "dispatch.cpp"

// In place of the kernels.
namespace bptt::kernels {
template <class Set, class Table>
const Table Of<Set, Table>::table{};
}  // namespace bptt::kernels

namespace {

int failures = 0;

// What is chosen for the value of BPTT_INSTRUCTION_SET, or the sentence of the refusal.
void expect(const char* wanted, const std::string& expected) {
    setenv("BPTT_INSTRUCTION_SET", wanted, 1);
    const std::vector<bptt::Set> sets = bptt::compiled_sets();
    std::string found;
    try {
        found = sets[bptt::choose(sets)].name;
    } catch (const std::runtime_error& error) {
        found = error.what();
    }
    if (found == expected) return;
    ++failures;
    std::fprintf(stderr, "processor \"%s\", BPTT_INSTRUCTION_SET \"%s\": \"%s\", expected \"%s\"\n",
                 processor.c_str(), wanted, found.c_str(), expected.c_str());
}

}  // namespace

int main() {
    const std::string none =
        "this processor has none of the instruction sets that bptt was built for: x86-64-v3, x86-64-v4";
    expect("", none);
    expect("x86-64-v3", "BPTT_INSTRUCTION_SET is \"x86-64-v3\", which this processor does not have");
    expect("baseline", "BPTT_INSTRUCTION_SET is \"baseline\", expected one of x86-64-v3, x86-64-v4");

    processor = " avx2 bmi bmi2 ";  // and no fma
    expect("", none);

    processor = " avx2 bmi bmi2 fma avx512f avx512bw avx512cd avx512vl ";  // and no avx512dq
    expect("", "x86-64-v3");
    expect("x86-64-v4", "BPTT_INSTRUCTION_SET is \"x86-64-v4\", which this processor does not have");

    processor += "avx512dq ";
    expect("", "x86-64-v4");
    expect("x86-64-v3", "x86-64-v3");
    expect("avx512", "BPTT_INSTRUCTION_SET is \"avx512\", expected one of x86-64-v3, x86-64-v4");
    return failures == 0 ? 0 : 1;
}
