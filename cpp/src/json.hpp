// A small strict JSON reader (RFC 8259), for files that anybody may have written: depth, numbers and strings
// are checked, whatever the locale. NaN, Infinity and -Infinity are read as numbers, as Python's json writes
// them, so that whoever knows the number's name can refuse it by that.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace bptt::json {

class Value;
using List = std::vector<Value>;
using Object = std::vector<std::pair<std::string, Value>>;  // in the file's order, each key once

class Value {
public:
    Value() = default;
    explicit Value(bool value) : content_(value) {}
    explicit Value(double value) : content_(value) {}
    explicit Value(std::string value) : content_(std::move(value)) {}
    explicit Value(List value) : content_(std::move(value)) {}
    explicit Value(Object value) : content_(std::move(value)) {}

    // Null where it is of another kind.
    const bool* boolean() const { return std::get_if<bool>(&content_); }
    const double* number() const { return std::get_if<double>(&content_); }
    const std::string* string() const { return std::get_if<std::string>(&content_); }
    const List* list() const { return std::get_if<List>(&content_); }
    const Object* object() const { return std::get_if<Object>(&content_); }
    bool is_null() const { return std::holds_alternative<std::monostate>(content_); }

    // An object's entry; null where there is none.
    const Value* find(std::string_view key) const;
    // "a list", "a number", ...
    const char* kind() const;

private:
    std::variant<std::monostate, bool, double, std::string, List, Object> content_;
};

// Lists and objects within each other; deeper is refused.
constexpr int kMaxDepth = 64;

// One value and nothing after it but spaces. Throws std::invalid_argument: "<where>: byte 17: expected ...".
Value parse(std::string_view text, const std::string& where);

// A string as JSON writes it, quotes and all. What is no ASCII stays as it is.
std::string quoted(std::string_view text);

// The shortest way to write a number that reads back to the same bits, whatever the locale.
template <class R>
std::string number(R value);

}  // namespace bptt::json
