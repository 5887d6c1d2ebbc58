// THE checks of shapes and values, and their sentences:
//   lstm_forward: state[0] has shape (3, 8), expected (N, H) = (4, 8)
// Each throws std::invalid_argument. Nothing is written before everything is checked.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bptt/recurrent.hpp"

namespace bptt::validate {

[[noreturn]] inline void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

inline std::string text(const Shape& shape) {
    std::string out = "(";
    for (int i = 0; i < shape.rank; ++i) out += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return out + (shape.rank == 1 ? ",)" : ")");
}

// An integer as it came; of unsigned ones above 2^63 - 1 the bindings make that.
inline std::string text(std::int64_t value) {
    const bool is_most = value == std::numeric_limits<std::int64_t>::max();
    return (is_most ? "at least " : "") + std::to_string(value);
}

// Who was called; the beginning of each of its sentences.
class Caller {
public:
    explicit Caller(std::string name) : name_(std::move(name)) {}

    const std::string& name() const { return name_; }

    [[noreturn]] void fail(const std::string& sentence) const { validate::fail(name_ + ": " + sentence); }

    // letters names the sizes: "(N, H)".
    template <class R>
    void shape(const View<R>& view, const char* what, const Shape& expected, const char* letters) const {
        if (view.shape != expected)
            fail(std::string(what) + " has shape " + text(view.shape) + ", expected " + letters + " = " +
                 text(expected));
        memory(view, what);
    }
    template <class R>
    void same_shape(const View<R>& view, const char* what, const Shape& expected, const char* as_what) const {
        if (view.shape != expected)
            fail(std::string(what) + " has shape " + text(view.shape) + ", expected " + as_what + "'s " +
                 text(expected));
        memory(view, what);
    }
    template <class R>
    void rank(const View<R>& view, const char* what, int expected, const char* letters) const {
        if (!view.given) fail(std::string(what) + " is missing");
        if (view.shape.rank != expected)
            fail(std::string(what) + " has shape " + text(view.shape) + ", expected " + letters);
        memory(view, what);
    }
    // Of any rank, with this last size: "x has shape (3, 4), expected (..., D) with D = 5".
    template <class R>
    void last_size(const View<R>& view, const char* what, Index expected, const char* letter) const {
        present(view, what);
        const int rank = view.shape.rank;
        if (rank < 1 || view.shape[rank - 1] != expected)
            fail(std::string(what) + " has shape " + text(view.shape) + ", expected (..., " + letter +
                 ") with " + letter + " = " + std::to_string(expected));
    }
    template <class R>
    void present(const View<R>& view, const char* what) const {
        if (!view.given) fail(std::string(what) + " is missing");
        memory(view, what);
    }
    void at_least_one(Index size, const char* what, const char* letter) const {
        if (size < 1)
            fail(std::string(what) + ": " + letter + " is " + std::to_string(size) + ", expected at least 1");
    }

private:
    // An application may hand over anything; Python cannot.
    template <class R>
    void memory(const View<R>& view, const char* what) const {
        for (int i = 0; i < view.shape.rank; ++i)
            if (view.shape[i] < 0) fail(std::string(what) + " has a negative size in " + text(view.shape));
        if (view.data == nullptr && view.elements() > 0)
            fail(std::string(what) + " is null, expected " + text(view.shape));
    }

    std::string name_;
};

// ---- the recurrent layer ---------------------------------------------------------------------------

template <class R>
void state(const Caller& caller, const State<R>& state, Cell cell, const Dims& dims, const char* name) {
    const Shape shape{dims.N, dims.H};
    const bool pair = cell_has_c(cell);
    if (state.h) caller.shape(state.h, pair ? (std::string(name) + "[0]").c_str() : name, shape, "(N, H)");
    if (state.c) {
        if (!pair) caller.fail(std::string(name) + " has a c, which only the LSTM has");
        caller.shape(state.c, (std::string(name) + "[1]").c_str(), shape, "(N, H)");
    }
}

// Returns H. D is the input's, or weight_ih's own where there is no input yet (-1).
template <class R>
Index weights(const Caller& caller, Cell cell, const Weights<R>& weights, Index D = -1) {
    const Index G = cell_gates(cell);
    caller.rank(weights.weight_hh, "weight_hh", 2, "(G*H, H)");
    const Index H = weights.weight_hh.shape[1];
    caller.at_least_one(H, "weight_hh", "H");
    caller.shape(weights.weight_hh, "weight_hh", {G * H, H}, "(G*H, H)");
    caller.rank(weights.weight_ih, "weight_ih", 2, "(G*H, D)");
    if (D < 0) caller.at_least_one(D = weights.weight_ih.shape[1], "weight_ih", "D");
    caller.shape(weights.weight_ih, "weight_ih", {G * H, D}, "(G*H, D)");
    if (weights.bias_ih.given != weights.bias_hh.given)
        caller.fail(weights.bias_ih.given ? "bias_ih is given without bias_hh"
                                          : "bias_hh is given without bias_ih");
    if (weights.bias_ih) {
        caller.shape(weights.bias_ih, "bias_ih", {G * H}, "(G*H,)");
        caller.shape(weights.bias_hh, "bias_hh", {G * H}, "(G*H,)");
    }
    return H;
}

inline void steps(const Caller& caller, const Steps& steps, const Dims& dims) {
    if (steps.lengths) {
        caller.shape(steps.lengths, "lengths", {dims.N}, "(N,)");
        for (Index n = 0; n < dims.N; ++n)
            if (steps.lengths.data[n] < 0 || steps.lengths.data[n] > dims.T)
                caller.fail("lengths[" + std::to_string(n) + "] is " + text(steps.lengths.data[n]) +
                            ", expected 0 <= length <= T = " + std::to_string(dims.T));
    }
    if (steps.reset) caller.shape(steps.reset, "reset", {dims.T, dims.N}, "(T, N)");
}

template <class R>
Dims forward(const Caller& caller, Cell cell, const View<const R>& x, const Weights<R>& its_weights,
             const State<R>& initial, const Steps& its_steps) {
    caller.rank(x, "x", 3, "(T, N, D)");
    Dims dims{x.shape[0], x.shape[1], x.shape[2], 0};
    caller.at_least_one(dims.D, "x", "D");
    dims.H = weights(caller, cell, its_weights, dims.D);
    state(caller, initial, cell, dims, "state");
    steps(caller, its_steps, dims);
    return dims;
}

template <class R>
void backward(const Caller& caller, const Tape<R>& tape, const View<const R>& dy, const State<R>& dstate) {
    if (!tape.h) caller.fail("tape is empty");
    if (tape.consumed)
        caller.fail("tape was consumed by an earlier backward call; call that one with retain=True");
    const Dims& dims = tape.dims;
    if (dy) caller.shape(dy, "dy", {dims.T, dims.N, dims.H}, "(T, N, H)");
    state(caller, dstate, tape.cell, dims, "dstate");
}

// A ledger of a tape: how far it follows, and how many groups of sequences it keeps apart.
template <class R>
void ledger(const Caller& caller, const Tape<R>& tape, Index max_lag, Index groups, bool only_c) {
    if (!tape.h) caller.fail("tape is empty");
    if (tape.consumed)
        caller.fail("tape was consumed by an earlier backward call; call that one with retain=True");
    if (max_lag < 0 || max_lag >= std::max<Index>(tape.dims.T, 1))
        caller.fail("max_lag is " + std::to_string(max_lag) +
                    ", expected 0 <= max_lag < T = " + std::to_string(tape.dims.T));
    if (groups < 1 || groups > std::max<Index>(tape.dims.N, 1))
        caller.fail("groups is " + std::to_string(groups) +
                    ", expected 1 <= groups <= N = " + std::to_string(tape.dims.N));
    if (only_c && !cell_has_c(tape.cell))
        caller.fail(std::string("only_c is true, and the cell is ") + cell_name(tape.cell) +
                    ", expected lstm: no other has a c");
}

// ---- what stands around the layer ------------------------------------------------------------------

// The sizes before the last one, and then `last`.
inline Shape with_last(const Caller& caller, const char* what, const Shape& leading, int rank, Index last) {
    if (rank >= Shape::kMaxRank)
        caller.fail(std::string(what) + " has shape " + text(leading) + ", expected at most " +
                    std::to_string(Shape::kMaxRank - 1) + " dimensions");
    Shape shape = leading;
    shape.rank = rank + 1;
    shape.size[rank] = last;
    return shape;
}
inline Shape without_last(const Shape& shape) {
    Shape leading = shape;
    leading.size[--leading.rank] = 0;
    return leading;
}

// Where element i stands: "[3, 1]", or "" for a single number.
inline std::string position(const Shape& shape, Index i) {
    std::string out;
    for (int d = shape.rank - 1; d >= 0; --d) {
        out = std::to_string(i % shape[d]) + (out.empty() ? "" : ", ") + out;
        i /= shape[d];
    }
    return out.empty() ? out : "[" + out + "]";
}

// What is masked out is not looked at.
inline void indices(const Caller& caller, const View<const std::int64_t>& index, const char* what, Index V,
                    const View<const bool>& mask = {}) {
    const Index count = index.elements();
    for (Index i = 0; i < count; ++i) {
        const std::int64_t value = index.data[i];
        if ((value < 0 || value >= V) && (!mask || mask.data[i]))
            caller.fail(what + position(index.shape, i) + " is " + text(value) +
                        ", expected 0 <= index < V = " + std::to_string(V));
    }
}

template <class R>
void linear(const Caller& caller, const View<const R>& x, const View<const R>& weight) {
    caller.rank(weight, "weight", 2, "(V, D)");
    caller.at_least_one(weight.shape[0], "weight", "V");
    caller.at_least_one(weight.shape[1], "weight", "D");
    caller.last_size(x, "x", weight.shape[1], "D");
}

template <class R>
void activation(const Caller& caller, const View<const R>& x, const char* what) {
    caller.present(x, what);
    if (x.shape.rank < 1 || x.shape[x.shape.rank - 1] < 1)
        caller.fail(std::string(what) + " has shape " + text(x.shape) + ", expected (..., V) with V >= 1");
}

// Element-wise losses; returns how many neighbouring elements one entry of the mask speaks of. The
// prediction's rows are `parts` of the target's: (..., V) where that is one, else (..., parts*F).
template <class R>
Index element_loss(const Caller& caller, const View<const R>& prediction, const View<const R>& target,
                   const View<const bool>& mask, Index parts = 1) {
    caller.present(prediction, "prediction");
    const int rank = prediction.shape.rank;
    Shape expected = prediction.shape;
    if (parts == 1) {
        caller.same_shape(target, "target", expected, "prediction");
    } else {
        if (rank < 1 || expected[rank - 1] % parts != 0)
            caller.fail("prediction has shape " + text(expected) + ", expected (..., " +
                        std::to_string(parts) + "*F)");
        expected.size[rank - 1] /= parts;
        caller.shape(target, "target", expected, "prediction's (..., F)");
    }
    if (!mask || mask.shape == expected) {
        if (mask) caller.present(mask, "mask");
        return 1;
    }
    if (rank == 0) caller.same_shape(mask, "mask", expected, "prediction");
    const Shape rows = without_last(expected);
    if (mask.shape != rows)
        caller.fail("mask has shape " + text(mask.shape) + ", expected " +
                    (parts == 1 ? "prediction's (..., V) = " : "target's (..., F) = ") + text(expected) +
                    " or (...) = " + text(rows));
    caller.present(mask, "mask");
    return expected[rank - 1];
}

// That valid targets of a binary loss are probabilities. An entry of the mask speaks of `width` of them.
template <class R>
void probabilities(const Caller& caller, const View<const R>& target, const View<const bool>& mask,
                   Index width) {
    const auto fits = [](R p) { return (p >= 0) & (p <= 1); };
    const Index count = target.elements();
    bool all = true;  // without branches first: they are hardly ever not
    for (Index i = 0; i < count; ++i) all &= fits(target.data[i]);
    if (all) return;
    for (Index i = 0; i < count; ++i)
        if (!fits(target.data[i]) && (!mask || mask.data[i / width]))
            caller.fail("target" + position(target.shape, i) + " is " + std::to_string(target.data[i]) +
                        ", expected 0 <= target <= 1");
}

// That there are sequences where the reduction asks for them.
inline void sequences(const Caller& caller, const Shape& prediction, Reduction reduction) {
    if (reduction == Reduction::mean_sequences && prediction.rank < 2)
        caller.fail("prediction has shape " + text(prediction) +
                    " and reduction is \"mean_sequences\", expected (T, N, ..., V) or (N, V)");
}

template <class R>
void softmax_shapes(const Caller& caller, const View<const R>& prediction,
                    const View<const std::int64_t>& target, const View<const bool>& mask,
                    const View<const R>& class_weights) {
    caller.present(prediction, "prediction");
    const int rank = prediction.shape.rank;
    if (rank < 1) caller.fail("prediction has shape (), expected (..., V)");
    const Index V = prediction.shape[rank - 1];
    caller.at_least_one(V, "prediction", "V");
    caller.present(target, "target");
    caller.shape(target, "target", without_last(prediction.shape), "prediction's (...)");
    if (mask) caller.same_shape(mask, "mask", target.shape, "target");
    if (!class_weights) return;
    caller.shape(class_weights, "class_weights", {V}, "(V,)");
    for (Index j = 0; j < V; ++j)
        if (!(class_weights.data[j] >= 0 && std::isfinite(class_weights.data[j])))
            caller.fail("class_weights[" + std::to_string(j) + "] is " +
                        std::to_string(class_weights.data[j]) + ", expected a finite number >= 0");
}

// ---- lists of arrays -------------------------------------------------------------------------------

inline std::string entry(const char* list, std::size_t i) {
    return std::string(list) + "[" + std::to_string(i) + "]";
}

template <class R>
void list(const Caller& caller, const std::vector<View<R>>& views, const char* name) {
    for (std::size_t i = 0; i < views.size(); ++i)
        if (views[i].data == nullptr || !views[i].given) caller.present(views[i], entry(name, i).c_str());
}

// Entries correspond to those of the parameters.
template <class R, class Q>
void same_list(const Caller& caller, const std::vector<View<R>>& views, const char* name,
               const std::vector<View<Q>>& parameters) {
    if (views.size() != parameters.size())
        caller.fail(std::string(name) + " has " + std::to_string(views.size()) + " arrays, expected " +
                    std::to_string(parameters.size()) + ", as parameters");
    for (std::size_t i = 0; i < views.size(); ++i)
        if (views[i].shape != parameters[i].shape)
            caller.same_shape(views[i], entry(name, i).c_str(), parameters[i].shape,
                              entry("parameters", i).c_str());
    list(caller, views, name);
}

// Threads write to different arrays at the same time: none may be another's part.
template <class R>
void apart(const Caller& caller,
           const std::vector<std::pair<const char*, const std::vector<View<R>>*>>& lists) {
    struct Piece {
        const R *first, *last;
        const char* name;
        std::size_t entry;
    };
    std::vector<Piece> pieces;
    for (const auto& [name, views] : lists)
        for (std::size_t i = 0; i < views->size(); ++i)
            if (const Index count = (*views)[i].elements(); count > 0)
                pieces.push_back({(*views)[i].data, (*views)[i].data + count, name, i});
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return std::less<const R*>()(a.first, b.first); });
    for (std::size_t i = 1; i < pieces.size(); ++i)
        if (std::less<const R*>()(pieces[i].first, pieces[i - 1].last))
            caller.fail(entry(pieces[i].name, pieces[i].entry) + " shares memory with " +
                        entry(pieces[i - 1].name, pieces[i - 1].entry) +
                        ", expected arrays of their own to write to");
}

}  // namespace bptt::validate
