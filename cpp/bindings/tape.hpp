// The tape as Python holds it.
#pragma once

#include <memory>
#include <variant>

#include "bptt/recurrent.hpp"
#include "numpy.hpp"

namespace bptt::bindings {

// The arrays that a tape points into stay alive with it.
template <class R>
struct HeldTape {
    using Scalar = R;
    Tape<R> tape;
    Input<R> x, weight_ih, weight_hh, bias_ih, bias_hh;
    IndexInput lengths;
    Input<bool> reset;
    py::object owner;  // or all of it is kept alive by this
};

class PyTape {
public:
    template <class R>
    explicit PyTape(std::unique_ptr<HeldTape<R>> held) : held_(std::move(held)) {}

    template <class Visitor>
    auto visit(Visitor&& visitor) const {
        return std::visit([&](const auto& held) { return visitor(*held); }, held_);
    }

    // A tape has one reader at a time: a second thread's backward call on it is refused, not raced.
    bool busy = false;

private:
    std::variant<std::unique_ptr<HeldTape<float>>, std::unique_ptr<HeldTape<double>>> held_;
};

// A tape has one reader at a time, as long as this lives.
class Reader {
public:
    Reader(const std::string& caller, bool& busy) : busy_(busy) {
        if (busy) throw py::value_error(caller + ": tape is in use by another thread's backward call");
        busy = true;
    }
    ~Reader() { busy_ = false; }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

private:
    bool& busy_;
};

}  // namespace bptt::bindings
