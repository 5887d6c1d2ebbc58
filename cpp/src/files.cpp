#include "files.hpp"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <system_error>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace bptt::files {
namespace {

struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

[[noreturn]] void fail(const std::string& where, const std::string& what, const std::string& path) {
    const int code = errno;
    throw std::system_error(code, std::generic_category(), where + ": can't " + what + " " + path);
}

File open(const std::string& path, const char* mode, const std::string& where) {
    File file(std::fopen(path.c_str(), mode));
    if (!file) fail(where, *mode == 'r' ? "read" : "write", path);
    return file;
}

// A name beside the file's own that no other thread or process writes to at the same time.
std::filesystem::path beside(const std::filesystem::path& path) {
    static std::atomic<unsigned> count{0};
    std::string name = "." + path.filename().string() + ".";
#if defined(__unix__) || defined(__APPLE__)
    name += std::to_string(::getpid()) + ".";
#endif
    return std::filesystem::path(path).replace_filename(name + std::to_string(count++) + ".tmp");
}

}  // namespace

std::string read(const std::string& path, std::size_t limit, const std::string& where) {
    const File file = open(path, "rb", where);
    std::string bytes;
    std::size_t size = 0;
    do {
        // Grown as it is read: what a file says of its own size may be wrong (pipes, devices).
        bytes.resize(size + (size < 65536 ? 65536 : size));
        errno = 0;
        size += std::fread(bytes.data() + size, 1, bytes.size() - size, file.get());
        if (std::ferror(file.get())) fail(where, "read", path);
        if (size > limit)
            throw std::invalid_argument(where + ": the file is longer than " + std::to_string(limit) +
                                        " bytes");
    } while (size == bytes.size());
    bytes.resize(size);
    return bytes;
}

void write_atomically(const std::string& path, std::string_view bytes, const std::string& where) {
    const std::filesystem::path temporary = beside(path);
    try {
        File file = open(temporary.string(), "wb", where);
        errno = 0;
        bool written = std::fwrite(bytes.data(), 1, bytes.size(), file.get()) == bytes.size() &&
                       std::fflush(file.get()) == 0;
#if defined(__unix__) || defined(__APPLE__)
        written = written && ::fsync(::fileno(file.get())) == 0;
#endif
        if (!written) fail(where, "write", path);
        if (std::fclose(file.release()) != 0) fail(where, "write", path);
        std::error_code error;
        std::filesystem::rename(temporary, path, error);
        if (error) throw std::system_error(error, where + ": can't write " + path);
    } catch (...) {
        std::error_code ignored;
        std::filesystem::remove(temporary, ignored);
        throw;
    }
}

}  // namespace bptt::files
