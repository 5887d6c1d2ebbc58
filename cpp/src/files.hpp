// Whole files: read, and replaced as a whole.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace bptt::files {

// All of a file. `where` begins the sentences. Throws std::system_error where it can't be read,
// std::invalid_argument where it is longer than `limit` bytes.
std::string read(const std::string& path, std::size_t limit, const std::string& where);

// Writes under a temporary name beside its place and renames, so that whoever reads finds the old file or the
// new one, never a part of one. Throws std::system_error; what was there before is then there still.
void write_atomically(const std::string& path, std::string_view bytes, const std::string& where);

}  // namespace bptt::files
