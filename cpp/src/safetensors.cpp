#include "safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>

#include "json.hpp"
#include "validate.hpp"

namespace bptt::safetensors {
namespace {

#if defined(__BYTE_ORDER__)
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file's bytes are little-endian");
#endif

struct Dtype {
    std::string_view name;
    std::uint64_t bytes;
};
constexpr Dtype kDtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                             {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U64", 8},  {"U32", 4},
                             {"U16", 2}, {"U8", 1},  {"BOOL", 1}};

class Reader {
public:
    Reader(std::string_view file, const std::string& where) : file_(file), where_(where), caller_(where) {}

    Contents contents() const {
        const std::size_t length = header_length();
        const std::string_view header = file_.substr(8, length);
        const std::string_view data = file_.substr(8 + length);
        if (header.empty() || header[0] != '{') caller_.fail("the header does not begin with {");
        const json::Value value = json::parse(header, where_ + ": header");
        Contents contents;
        std::vector<Range> ranges;
        for (const auto& [name, entry] : *value.object()) {
            if (name == "__metadata__") {
                contents.metadata = metadata(entry);
                continue;
            }
            Tensor tensor = described(name, entry);
            const Range range = offsets(tensor, entry, data.size());
            tensor.bytes = data.substr(range.first, range.last - range.first);
            ranges.push_back(range);
            contents.tensors.push_back(std::move(tensor));
        }
        cover(contents.tensors, ranges, data.size());
        return contents;
    }

private:
    struct Range {
        std::size_t first, last, tensor;
    };

    std::size_t header_length() const {
        if (file_.size() < 8)
            caller_.fail("the file has " + std::to_string(file_.size()) +
                         " bytes, expected at least 8: it is cut short or no safetensors file");
        std::uint64_t length = 0;
        for (int i = 7; i >= 0; --i)
            length = length << 8 | static_cast<unsigned char>(file_[static_cast<std::size_t>(i)]);
        if (length > kMaxHeader)
            caller_.fail("the header's length is " + std::to_string(length) + ", expected at most " +
                         std::to_string(kMaxHeader) + ": this is no safetensors file");
        if (length > file_.size() - 8)
            caller_.fail("the header's length is " + std::to_string(length) + ", and after it the file has " +
                         std::to_string(file_.size() - 8) + " bytes: it is cut short or no safetensors file");
        return static_cast<std::size_t>(length);
    }

    std::map<std::string, std::string> metadata(const json::Value& entry) const {
        const json::Object* entries = entry.object();
        if (entries == nullptr)
            caller_.fail(std::string("__metadata__ is ") + entry.kind() + ", expected an object");
        std::map<std::string, std::string> found;
        for (const auto& [key, value] : *entries) {
            if (value.string() == nullptr)
                caller_.fail("__metadata__'s " + json::quoted(key) + " is " + value.kind() +
                             ", expected a string");
            found.emplace(key, *value.string());
        }
        return found;
    }

    Tensor described(const std::string& name, const json::Value& entry) const {
        const std::string tensor = "tensor " + json::quoted(name);
        const json::Value* const dtype = entry.find("dtype");
        const json::Value* const shape = entry.find("shape");
        if (dtype == nullptr || dtype->string() == nullptr) caller_.fail(tensor + " has no dtype");
        if (shape == nullptr || shape->list() == nullptr) caller_.fail(tensor + " has no shape");
        if (entry.object()->size() != 3)
            caller_.fail(tensor + " has other entries than dtype, shape and data_offsets");
        if (shape->list()->size() > Shape::kMaxRank)
            caller_.fail(tensor + " has " + std::to_string(shape->list()->size()) +
                         " dimensions, expected at most " + std::to_string(Shape::kMaxRank));
        Tensor found{name, *dtype->string(), {}, {}};
        for (const json::Value& size : *shape->list())
            found.shape.size[found.shape.rank++] = static_cast<Index>(count(size, tensor + ": a size"));
        return found;
    }

    // A number of bytes or of elements: what a double holds exactly.
    std::uint64_t count(const json::Value& value, const std::string& what) const {
        constexpr double most = 9007199254740992.0;
        const double* const number = value.number();
        if (number == nullptr || !(*number >= 0 && *number <= most) ||
            static_cast<double>(static_cast<std::uint64_t>(*number)) != *number)
            caller_.fail(what + " is " + (number == nullptr ? value.kind() : json::number(*number)) +
                         ", expected an integer of 0 to 2^53");
        return static_cast<std::uint64_t>(*number);
    }

    Range offsets(const Tensor& tensor, const json::Value& entry, std::size_t available) const {
        const std::string name = "tensor " + json::quoted(tensor.name);
        const json::Value* const pair = entry.find("data_offsets");
        if (pair == nullptr || pair->list() == nullptr || pair->list()->size() != 2)
            caller_.fail(name + " has no two data_offsets");
        const std::uint64_t first = count((*pair->list())[0], name + ": an offset");
        const std::uint64_t last = count((*pair->list())[1], name + ": an offset");
        if (first > last || last > available)
            caller_.fail(name + " is at bytes " + std::to_string(first) + " to " + std::to_string(last) +
                         " of " + std::to_string(available) + ": the file is cut short or broken");
        const auto dtype = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                        [&](const Dtype& each) { return each.name == tensor.dtype; });
        if (dtype == std::end(kDtypes))
            caller_.fail(name + " has dtype " + json::quoted(tensor.dtype) + ", which is none that is known");
        std::uint64_t bytes = dtype->bytes;
        for (int i = 0; i < tensor.shape.rank; ++i) {
            const auto size = static_cast<std::uint64_t>(tensor.shape[i]);
            if (size != 0 && bytes > std::uint64_t{std::numeric_limits<std::int64_t>::max()} / size)
                caller_.fail(name + " has shape " + validate::text(tensor.shape) + ", which overflows");
            bytes *= size;
        }
        if (bytes != last - first)
            caller_.fail(name + " has shape " + validate::text(tensor.shape) + " of " + tensor.dtype +
                         " and " + std::to_string(last - first) + " bytes, expected " +
                         std::to_string(bytes));
        return {static_cast<std::size_t>(first), static_cast<std::size_t>(last), 0};
    }

    // Together the tensors are all of the data, and no two share any.
    void cover(const std::vector<Tensor>& tensors, std::vector<Range>& ranges, std::size_t size) const {
        for (std::size_t i = 0; i < ranges.size(); ++i) ranges[i].tensor = i;
        std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
            return a.first != b.first ? a.first < b.first : a.last < b.last;
        });
        std::size_t at = 0;
        for (const Range& range : ranges) {
            if (range.first != at)
                caller_.fail("tensor " + json::quoted(tensors[range.tensor].name) + " begins at byte " +
                             std::to_string(range.first) + ", expected " + std::to_string(at) +
                             ", where the one before it ends");
            at = range.last;
        }
        if (at != size)
            caller_.fail("the tensors end at byte " + std::to_string(at) + " of " + std::to_string(size) +
                         ", expected the last");
    }

    std::string_view file_;
    const std::string& where_;
    validate::Caller caller_;
};

}  // namespace

Contents parse(std::string_view file, const std::string& where) { return Reader(file, where).contents(); }

std::string text(const Contents& contents) {
    std::string header = "{", data;
    const auto next = [&] { return header.size() > 1 ? "," : ""; };
    if (!contents.metadata.empty()) {
        std::string entries;
        for (const auto& [key, value] : contents.metadata)
            entries += (entries.empty() ? "" : ",") + json::quoted(key) + ":" + json::quoted(value);
        header += "\"__metadata__\":{" + entries + "}";
    }
    for (const Tensor& tensor : contents.tensors) {
        std::string sizes;
        for (int i = 0; i < tensor.shape.rank; ++i)
            sizes += (i > 0 ? "," : "") + std::to_string(tensor.shape[i]);
        header += next() + json::quoted(tensor.name) + ":{\"dtype\":" + json::quoted(tensor.dtype) +
                  ",\"shape\":[" + sizes + "],\"data_offsets\":[" + std::to_string(data.size()) + ",";
        data += tensor.bytes;
        header += std::to_string(data.size()) + "]}";
    }
    header += '}';
    header.resize((header.size() + 7) / 8 * 8, ' ');  // so that the data is aligned
    std::string file;
    for (std::size_t length = header.size(), i = 0; i < 8; ++i, length >>= 8)
        file += static_cast<char>(length & 0xFF);
    return file + header + data;
}

}  // namespace bptt::safetensors
