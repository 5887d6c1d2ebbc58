// Any text as RTNeural's JSON: refused by name, or a model that is written and read again the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "bptt/model_io.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    std::string written;
    try {
        written = bptt::rtneural_to_text(bptt::rtneural_from_text<float>(text));
    } catch (const std::invalid_argument&) {
        return 0;
    }
    if (bptt::rtneural_to_text(bptt::rtneural_from_text<float>(written)) != written) std::abort();
    return 0;
}
