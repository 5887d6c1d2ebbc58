// The two kinds of RTNeural's JSON, and what their readers stand on.
#pragma once

#include <string>

#include "bptt/layers.hpp"
#include "json.hpp"
#include "validate_models.hpp"

namespace bptt::rtneural {

// A file that is an object with the entry "layers".
template <class R>
Model<R> read_keras(const validate::Caller& caller, const json::Value& file);
// A state_dict.
template <class R>
Model<R> read_torch(const validate::Caller& caller, const json::Value& tensors);
template <class R>
std::string write_keras(const validate::Caller& caller, const Model<R>& model);

// Arrays of numbers in JSON: a refusal names where in the file they stand.
template <class R>
class Numbers {
public:
    explicit Numbers(const validate::Caller& caller) : caller_(caller) {}

    // (first, second), each at least 1.
    Array<R> matrix(const json::Value& value, const std::string& what) const {
        const json::List& rows = list(value, what);
        const std::size_t columns = list(rows[0], what + "[0]").size();
        Array<R> out({static_cast<Index>(rows.size()), static_cast<Index>(columns)});
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const std::string row = validate::entry(what.c_str(), i);
            fill(list(rows[i], row, columns), out.data() + i * columns, row);
        }
        return out;
    }
    Array<R> vector(const json::Value& value, const std::string& what) const {
        const json::List& entries = list(value, what);
        Array<R> out({static_cast<Index>(entries.size())});
        fill(entries, out.data(), what);
        return out;
    }
    const json::List& list(const json::Value& value, const std::string& what, std::size_t count = 0) const {
        if (value.list() == nullptr) caller_.fail(what + " is " + value.kind() + ", expected a list");
        const json::List& entries = *value.list();
        if (entries.empty()) caller_.fail(what + " is empty");
        if (count > 0 && entries.size() != count)
            caller_.fail(what + " has " + std::to_string(entries.size()) + " entries, expected " +
                         std::to_string(count));
        return entries;
    }

private:
    void fill(const json::List& entries, R* to, const std::string& what) const {
        for (std::size_t i = 0; i < entries.size(); ++i) {
            const double* const number = entries[i].number();
            if (number == nullptr)
                caller_.fail(validate::entry(what.c_str(), i) + " is " + entries[i].kind() +
                             ", expected a number");
            to[i] = static_cast<R>(*number);
        }
        validate::finite<R>(caller_, View<const R>(to, {static_cast<Index>(entries.size())}), what);
    }

    const validate::Caller& caller_;
};

}  // namespace bptt::rtneural
