// The safetensors format: eight bytes of length, a JSON header of that length, and the tensors' bytes.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bptt/types.hpp"

namespace bptt::safetensors {

// As the format's own library has it.
constexpr std::size_t kMaxHeader = 100'000'000;

struct Tensor {
    std::string name;
    std::string dtype;  // "F32", "F64", ...
    Shape shape;
    std::string_view bytes;  // row by row, little-endian, not aligned; in the memory that was parsed
};

struct Contents {
    std::vector<Tensor> tensors;
    std::map<std::string, std::string> metadata;
};

// Throws std::invalid_argument that begins with `where` for what is cut short, lies about a size, has tensors
// that overlap or leave holes, or an element type that the format does not have.
Contents parse(std::string_view file, const std::string& where);

// What parse reads.
std::string text(const Contents& contents);

}  // namespace bptt::safetensors
