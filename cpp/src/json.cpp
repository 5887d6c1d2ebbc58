#include "json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <locale>
#include <sstream>
#include <stdexcept>

namespace bptt::json {
namespace {

// The standard library's own conversions where it has them for floating point; else a stream of the classic
// locale, which gives the same numbers, only slower.
bool to_double(std::string_view digits, double& value) {
#if defined(__cpp_lib_to_chars)
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return result.ec == std::errc() && result.ptr == digits.data() + digits.size();
#else
    std::istringstream stream{std::string(digits)};
    stream.imbue(std::locale::classic());
    return static_cast<bool>(stream >> value) && stream.peek() == std::istringstream::traits_type::eof();
#endif
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, unsigned code) {
    const auto byte = [&](unsigned value) { out += static_cast<char>(value); };
    if (code < 0x80) {
        byte(code);
    } else if (code < 0x800) {
        byte(0xC0 | code >> 6);
        byte(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        byte(0xE0 | code >> 12);
        byte(0x80 | (code >> 6 & 0x3F));
        byte(0x80 | (code & 0x3F));
    } else {
        byte(0xF0 | code >> 18);
        byte(0x80 | (code >> 12 & 0x3F));
        byte(0x80 | (code >> 6 & 0x3F));
        byte(0x80 | (code & 0x3F));
    }
}

class Parser {
public:
    Parser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

    Value whole() {
        Value value = any(0);
        spaces();
        if (at_ < text_.size()) fail("the end");
        return value;
    }

private:
    [[noreturn]] void fail(const std::string& expected) const {
        std::string came = "the end of the text";
        if (at_ < text_.size()) {
            const auto c = static_cast<unsigned char>(text_[at_]);
            char code[8];
            std::snprintf(code, sizeof code, "0x%02x", c);
            came = c > ' ' && c < 0x7F ? std::string(1, text_[at_]) : "the byte " + std::string(code);
        }
        throw std::invalid_argument(where_ + ": byte " + std::to_string(at_) + ": expected " + expected +
                                    ", found " + came);
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    bool take(char c) {
        if (at_ >= text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }
    bool take(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }
    void spaces() {
        while (at_ < text_.size() &&
               (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
            ++at_;
    }

    Value any(int depth) {
        spaces();
        switch (peek()) {
            case '{':
                return object(depth);
            case '[':
                return list(depth);
            case '"':
                return Value(string());
            case 't':
                if (take("true")) return Value(true);
                break;
            case 'f':
                if (take("false")) return Value(false);
                break;
            case 'n':
                if (take("null")) return Value();
                break;
            case 'N':
                if (take("NaN")) return Value(std::numeric_limits<double>::quiet_NaN());
                break;
            case 'I':
                if (take("Infinity")) return Value(std::numeric_limits<double>::infinity());
                break;
            case '-':
                if (take("-Infinity")) return Value(-std::numeric_limits<double>::infinity());
                return Value(number());
            default:
                if (is_digit(peek())) return Value(number());
        }
        fail("a value");
    }

    void deeper(int depth) const {
        if (depth >= kMaxDepth) fail("at most " + std::to_string(kMaxDepth) + " lists within each other");
    }

    Value object(int depth) {
        deeper(depth);
        ++at_;
        Object entries;
        spaces();
        if (take('}')) return Value(std::move(entries));
        do {
            spaces();
            if (peek() != '"') fail("a key in quotes");
            std::string key = string();
            spaces();
            if (!take(':')) fail("a colon");
            entries.emplace_back(std::move(key), any(depth + 1));
            spaces();
        } while (take(','));
        if (!take('}')) fail("a comma or }");
        each_once(entries);
        return Value(std::move(entries));
    }

    void each_once(const Object& entries) const {
        std::vector<std::string_view> keys;
        keys.reserve(entries.size());
        for (const auto& entry : entries) keys.push_back(entry.first);
        std::sort(keys.begin(), keys.end());
        const auto twice = std::adjacent_find(keys.begin(), keys.end());
        if (twice != keys.end())
            throw std::invalid_argument(where_ + ": byte " + std::to_string(at_) + ": the object has " +
                                        quoted(*twice) + " twice");
    }

    Value list(int depth) {
        deeper(depth);
        ++at_;
        List entries;
        spaces();
        if (take(']')) return Value(std::move(entries));
        do {
            entries.push_back(any(depth + 1));
            spaces();
        } while (take(','));
        if (!take(']')) fail("a comma or ]");
        return Value(std::move(entries));
    }

    void digits() {
        if (!is_digit(peek())) fail("a digit");
        while (is_digit(peek())) ++at_;
    }

    double number() {
        const std::size_t first = at_;
        take('-');
        if (!take('0')) digits();
        if (take('.')) digits();
        if (peek() == 'e' || peek() == 'E') {
            ++at_;
            if (peek() == '+' || peek() == '-') ++at_;
            digits();
        }
        double value = 0;
        if (!to_double(text_.substr(first, at_ - first), value)) {
            at_ = first;
            fail("a number that a double can hold");
        }
        return value;
    }

    unsigned hex4() {
        unsigned code = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            const char c = peek();
            code = code * 16;
            if (is_digit(c))
                code += static_cast<unsigned>(c - '0');
            else if (c >= 'a' && c <= 'f')
                code += static_cast<unsigned>(c - 'a' + 10);
            else if (c >= 'A' && c <= 'F')
                code += static_cast<unsigned>(c - 'A' + 10);
            else
                fail("four hexadecimal digits");
        }
        return code;
    }

    void escape(std::string& out) {
        static constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        const std::size_t which = letters.find(peek());
        if (at_ < text_.size() && which != std::string_view::npos) {
            ++at_;
            out += meanings[which];
            return;
        }
        if (!take('u')) fail("an escape");
        unsigned code = hex4();
        if (code >= 0xD800 && code < 0xDC00) {
            if (!take("\\u")) fail("the second half of a surrogate pair");
            const unsigned low = hex4();
            if (low < 0xDC00 || low > 0xDFFF) fail("the second half of a surrogate pair before it");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code < 0xE000) {
            fail("the first half of a surrogate pair before it");
        }
        append_utf8(out, code);
    }

    std::string string() {
        ++at_;
        std::string out;
        while (true) {
            const std::size_t first = at_;
            while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
                   static_cast<unsigned char>(text_[at_]) >= 0x20)
                ++at_;
            out.append(text_.substr(first, at_ - first));
            if (take('"')) return out;
            if (!take('\\')) fail("the rest of a string");
            escape(out);
        }
    }

    std::string_view text_;
    const std::string& where_;
    std::size_t at_ = 0;
};

}  // namespace

const Value* Value::find(std::string_view key) const {
    if (const Object* entries = object())
        for (const auto& [name, value] : *entries)
            if (name == key) return &value;
    return nullptr;
}

const char* Value::kind() const {
    static constexpr const char* names[] = {"null",     "a boolean", "a number",
                                            "a string", "a list",    "an object"};
    return names[content_.index()];
}

Value parse(std::string_view text, const std::string& where) { return Parser(text, where).whole(); }

std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            (out += '\\') += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char code[8];
            std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
            out += code;
        } else {
            out += c;
        }
    }
    return out + '"';
}

template <class R>
std::string number(R value) {
#if defined(__cpp_lib_to_chars)
    char digits[64];
    return std::string(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
#else
    std::ostringstream stream;
    stream.imbue(std::locale::classic());
    stream.precision(std::numeric_limits<R>::max_digits10);
    stream << value;
    return stream.str();
#endif
}

template std::string number(float);
template std::string number(double);

}  // namespace bptt::json
