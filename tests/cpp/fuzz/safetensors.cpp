// Any bytes as a model's file: refused by name, or a model that is written and read again the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "bptt/model_io.hpp"

namespace {

template <class R>
void read(std::string_view file) {
    bptt::LoadedModel<R> loaded;
    try {
        loaded = bptt::model_from_bytes<R>(file);
    } catch (const std::invalid_argument&) {
        return;
    }
    const std::string written = bptt::model_to_bytes(loaded.model, loaded.metadata);
    const auto again = bptt::model_from_bytes<R>(written);
    if (bptt::model_to_bytes(again.model, again.metadata) != written) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    read<float>(bytes);
    read<double>(bytes);
    if (size < 8) return 0;
    // A length that is right: that of the header as far as its last brace. Else the fuzzer would seldom get
    // by.
    const std::string_view rest = bytes.substr(8);
    std::uint64_t length = rest.rfind('}') + 1;
    std::string file;
    for (int i = 0; i < 8; ++i, length >>= 8) file += static_cast<char>(length & 0xFF);
    read<float>(file.append(rest));
    return 0;
}
