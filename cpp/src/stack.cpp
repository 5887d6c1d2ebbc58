// THE stacking of recurrent layers: their order, both directions, dropout between them, stacked states.
#include <algorithm>
#include <cmath>
#include <utility>

#include "bptt/layers.hpp"
#include "bptt/runtime.hpp"
#include "calls.hpp"
#include "dispatch.hpp"
#include "validate_layers.hpp"

namespace bptt {
namespace {

using validate::layer_caller;

// Entry i of what is stacked (rows, N, H).
template <class R>
View<const R> entry(const View<const R>& stacked, Index i) {
    if (!stacked) return {};
    const Index N = stacked.shape[1], H = stacked.shape[2];
    return {stacked.data + i * N * H, {N, H}};
}
template <class R>
State<R> entry(const State<R>& stacked, Index i) {
    return {entry(stacked.h, i), entry(stacked.c, i)};
}

// (rows, N, H): a learned initial state, which every sequence starts from.
template <class R>
Array<R> repeated(const Array<R>& learned, Index N) {
    const Index rows = learned.shape()[0], H = learned.shape()[1];
    Array<R> all({rows, N, H});
    for (Index i = 0; i < rows * N; ++i) std::copy_n(learned.data() + i / N * H, H, all.data() + i * H);
    return all;
}

// (rows, H): what all sequences together say of it, or zero.
template <class R>
Array<R> summed(const Array<R>& stacked, bool used) {
    const Index rows = stacked.shape()[0], N = stacked.shape()[1], H = stacked.shape()[2];
    Array<R> sum({rows, H});
    std::fill_n(sum.data(), rows * H, R(0));
    for (Index i = 0; used && i < rows * N; ++i)
        for (Index j = 0; j < H; ++j) sum.data()[i / N * H + j] += stacked.data()[i * H + j];
    return sum;
}

// Arrays (N, H) as one (rows, N, H).
template <class R>
Array<R> stack(const std::vector<Array<R>>& parts) {
    const Shape& part = parts[0].shape();
    const Shape shape{static_cast<Index>(parts.size()), part[0], part[1]};
    if (parts.size() == 1) return parts[0].reshaped(shape);
    Array<R> all(shape);
    for (std::size_t i = 0; i < parts.size(); ++i)
        std::copy_n(parts[i].data(), parts[i].elements(),
                    all.data() + static_cast<Index>(i) * parts[i].elements());
    return all;
}
// (T, N, H) twice as one (T, N, 2*H), and the way back.
template <class R>
Array<R> beside(const Array<R>& one, const Array<R>& other) {
    const Index T = one.shape()[0], N = one.shape()[1], H = one.shape()[2];
    Array<R> both({T, N, 2 * H});
    for (Index i = 0; i < T * N; ++i) {
        std::copy_n(one.data() + i * H, H, both.data() + 2 * i * H);
        std::copy_n(other.data() + i * H, H, both.data() + (2 * i + 1) * H);
    }
    return both;
}
template <class R>
std::array<Array<R>, 2> apart(const View<const R>& both) {
    if (!both) return {};
    const Index T = both.shape[0], N = both.shape[1], H = both.shape[2] / 2;
    std::array<Array<R>, 2> halves{Array<R>({T, N, H}), Array<R>({T, N, H})};
    for (Index i = 0; i < T * N; ++i)
        for (Index half : {0, 1})
            std::copy_n(both.data + (2 * i + half) * H, H,
                        halves[static_cast<std::size_t>(half)].data() + i * H);
    return halves;
}

// For the steps first..last-1: zero where the mask is false, elsewhere what it was, scaled.
template <class R>
void drop(const Array<bool>& mask, double dropout, const R* from, R* to, Index first, Index last) {
    const R scale = static_cast<R>(1 / (1 - dropout));
    const bool* const stays = mask.data();
    const Index step = mask.shape()[1] * mask.shape()[2];
    for (Index i = first * step; i < last * step; ++i) to[i] = stays[i] ? from[i] * scale : R(0);
}

// How many layers are one call: all of them where they run side by side, else one, and its room is made when
// its turn comes. A bidirectional layer needs all steps of the one below.
template <class R>
Index layers_at_once(const Recurrent<R>& layer, Index T, Index N, const Steps& steps) {
    if (layer.num_layers == 1 || layer.bidirectional || T == 0 || N == 0) return 1;
    const Index H = layer.hidden_size();
    std::vector<Dims> dims(static_cast<std::size_t>(layer.num_layers), {T, N, H, H});
    dims[0].D = layer.input_size();
    const auto& beside = detail::table<kernels::ForwardTable<R>>().beside[static_cast<int>(layer.cell)];
    return beside(dims.data(), static_cast<int>(layer.num_layers), steps.lengths.data,
                  static_cast<int>(get_num_threads()))
               ? layer.num_layers
               : 1;
}

// What runs: `count` layers from the one with this number on.
struct Part {
    Index first, count;
};

template <class R>
Weights<R> weights_of_row(const Recurrent<R>& layer, Index row) {
    return validate::weights_of<R>(layer.rows[static_cast<std::size_t>(row)]);
}

// Results, a row each, and what each layer gives the next one: its y, of which the mask left something.
template <class R>
struct Ran {
    std::vector<Forward<R>> rows;
    std::vector<Array<R>> given;
};

template <class R>
Ran<R> run_layers(const Recurrent<R>& layer, const Part& part, View<const R> x, const State<R>& initial,
                  const Steps& steps, const Masks& masks, bool keep) {
    Ran<R> ran;
    std::vector<Tape<R>> tapes;
    std::vector<Array<R>> y;
    tapes.reserve(static_cast<std::size_t>(part.count));
    for (Index k = part.first; k < part.first + part.count; ++k) {
        const Dims dims{x.shape[0], x.shape[1], x.shape[2], layer.hidden_size()};
        tapes.push_back(
            detail::new_tape(layer.cell, dims, x, weights_of_row(layer, k), entry(initial, k), steps, keep));
        y.push_back(detail::outputs(tapes.back()));
        const bool drops = k < static_cast<Index>(masks.size());
        ran.given.push_back(drops ? Array<R>(y.back().shape()) : y.back());
        x = ran.given.back();
    }
    const auto pass = [&](int call, Index from, Index to) {
        const auto i = static_cast<std::size_t>(call), k = static_cast<std::size_t>(part.first) + i;
        if (k < masks.size()) drop(masks[k], layer.dropout, y[i].data(), ran.given[i].data(), from, to);
    };
    detail::run_forward(tapes, keep, detail::Chain(pass));
    for (Tape<R>& tape : tapes) ran.rows.push_back(detail::forward_result(std::move(tape), keep));
    return ran;
}

template <class R>
Ran<R> run_both(const Recurrent<R>& layer, Index k, const View<const R>& x, const State<R>& initial,
                const Steps& steps, const Masks& masks, bool keep) {
    auto both =
        forward_both<R>(layer.cell, x, {weights_of_row(layer, 2 * k), weights_of_row(layer, 2 * k + 1)},
                        {entry(initial, 2 * k), entry(initial, 2 * k + 1)}, steps, keep);
    const Array<R> y = beside(both[0].y, both[1].y);
    if (const auto at = static_cast<std::size_t>(k); at < masks.size())
        drop(masks[at], layer.dropout, y.data(), y.data(), 0, x.shape[0]);
    Ran<R> ran;
    for (Forward<R>& one : both) ran.rows.push_back(std::move(one));
    ran.given.push_back(y);
    return ran;
}

template <class R>
LayerForward<R> run(const Recurrent<R>& layer, View<const R> x, State<R> initial, const Steps& steps,
                    Masks masks, bool keep) {
    LayerForward<R> out;
    LayerTape<R>& tape = out.tape;
    tape.h_given = initial.h.given;
    tape.c_given = initial.c.given;
    Array<R> learned_h, learned_c;
    const Index N = x.shape[1];
    if (!initial.h && layer.initial_h) initial.h = learned_h = repeated(layer.initial_h, N);
    if (!initial.c && layer.initial_c) initial.c = learned_c = repeated(layer.initial_c, N);

    std::vector<Array<R>> h, c;
    const Index at_once = layers_at_once(layer, x.shape[0], N, steps);
    for (Index k = 0; k < layer.num_layers; k += at_once) {
        Ran<R> ran = layer.bidirectional ? run_both(layer, k, x, initial, steps, masks, keep)
                                         : run_layers<R>(layer, {k, at_once}, x, initial, steps, masks, keep);
        x = out.y = ran.given.back();
        for (Forward<R>& result : ran.rows) {
            h.push_back(std::move(result.h));
            c.push_back(std::move(result.c));
            if (keep) tape.rows.push_back(std::move(result.tape));
        }
        if (keep) tape.inputs.insert(tape.inputs.end(), ran.given.begin(), ran.given.end());
    }
    if (keep) tape.inputs.pop_back();  // the last one is y
    out.state.h = stack(h);
    if (cell_has_c(layer.cell)) out.state.c = stack(c);
    tape.masks = std::move(masks);
    return out;
}

// What pays for packing the weights, which the loop does, is more rows than these. Where they are packed, the
// loop is the slower one with a single row only.
constexpr Index kFewSequences = 4;

template <class R>
LayerForward<R> single_step(const Recurrent<R>& layer, const View<const R>& x_t, const State<R>& initial) {
    const Index N = x_t.shape[0], H = layer.hidden_size(), states = N * H;
    const Shape stacked{layer.num_layers, N, H};
    const bool has_c = cell_has_c(layer.cell);
    const auto given = [&](const View<const R>& state, const Array<R>& learned) {
        if (state) return Array<R>();
        if (learned) return repeated(learned, N);
        Array<R> zero(stacked);
        std::fill_n(zero.data(), zero.elements(), R(0));
        return zero;
    };
    const Array<R> own_h = given(initial.h, layer.initial_h),
                   own_c = has_c ? given(initial.c, layer.initial_c) : Array<R>();
    const R *const h = own_h ? own_h.data() : initial.h.data, *const c =
                                                                  own_c ? own_c.data() : initial.c.data;

    LayerForward<R> out;
    out.state.h = Array<R>(stacked);
    if (has_c) out.state.c = Array<R>(stacked);
    const auto& table = detail::table<kernels::ForwardTable<R>>();
    const R* x = x_t.data;
    for (Index k = 0; N > 0 && k < layer.num_layers; ++k) {
        const auto& row = layer.rows[static_cast<std::size_t>(k)];
        R* const h_next = out.state.h.data() + k * states;
        table.step[static_cast<int>(layer.cell)](
            {layer.cell, N, row.weight_ih.shape()[1], H, x, row.weight_ih.data(), row.weight_hh.data(),
             row.bias_ih.data(), row.bias_hh.data(), h + k * states, has_c ? c + k * states : nullptr, h_next,
             has_c ? out.state.c.data() + k * states : nullptr});
        x = h_next;
    }
    // A copy: who changes y does not change the state.
    out.y = Array<R>({N, H});
    std::copy_n(out.state.h.data() + (layer.num_layers - 1) * states, states, out.y.data());
    return out;
}

// Backward of layers, the last one first: their gradients into `found`. Each one's dx, which is the dy of the
// one below, takes the place of its own dy in `between`; the first layer's dx is an array of its own. Returns
// the last of these.
template <class R>
Array<R> back_layers(const Recurrent<R>& layer, const Part& part, LayerTape<R>& tape, View<const R> dy,
                     const State<R>& dstate, Array<R>& between, std::vector<Gradients<R>>& found) {
    std::vector<detail::BackwardCall<R>> calls;
    const Index last = part.first + part.count - 1;
    for (Index k = last; k >= part.first; --k) {
        const auto at = static_cast<std::size_t>(k);
        found[at] = detail::new_gradients(tape.rows[at], entry(dstate, k), k > 0 ? between : Array<R>());
        if (k > 0) between = found[at].x;
        calls.push_back({&tape.rows[at], dy, &found[at]});
        dy = found[at].x;
    }
    const Index T = tape.rows[0].dims.T;
    const auto pass = [&](int call, Index from, Index to) {
        const Index below = last - call - 1;
        if (below < 0 || tape.masks.empty()) return;
        drop(tape.masks[static_cast<std::size_t>(below)], layer.dropout, between.data(), between.data(),
             T - to, T - from);
    };
    detail::run_backward(calls, detail::Chain(pass));
    for (Index k = last; k > part.first; --k) found[static_cast<std::size_t>(k)].x = Array<R>();
    return std::move(found[static_cast<std::size_t>(part.first)].x);
}

template <class R>
Array<R> back_both(const Recurrent<R>& layer, Index k, LayerTape<R>& tape, const View<const R>& dy,
                   const State<R>& dstate, bool retain, std::vector<Gradients<R>>& found) {
    const auto at = static_cast<std::size_t>(2 * k);
    const std::array<Array<R>, 2> halves = apart(dy);
    auto both = backward_both<R>({&tape.rows[at], &tape.rows[at + 1]}, {halves[0], halves[1]},
                                 {entry(dstate, 2 * k), entry(dstate, 2 * k + 1)}, retain);
    const Array<R> dx = std::move(both[0].x);
    for (Index i = 0; i < dx.elements(); ++i) dx.data()[i] += both[1].x.data()[i];
    both[1].x = Array<R>();
    for (std::size_t i = 0; i < 2; ++i) found[at + i] = std::move(both[i]);
    if (k > 0 && !tape.masks.empty())
        drop(tape.masks[static_cast<std::size_t>(k - 1)], layer.dropout, dx.data(), dx.data(), 0,
             dx.shape()[0]);
    return dx;
}

// A layer's parameters, each with its value of `row(i)`: its gradients, say.
template <class R, class RowOf>
NamedArrays<R> named(const Recurrent<R>& layer, RowOf row, const Array<R>& initial_h,
                     const Array<R>& initial_c) {
    NamedArrays<R> all;
    for (std::size_t i = 0; i < layer.rows.size(); ++i) {
        const auto directions = static_cast<std::size_t>(layer.directions());
        const std::string ending = "_l" + std::to_string(i / directions) + (i % directions ? "_reverse" : "");
        const auto& its = row(i);
        all.push_back({"weight_ih" + ending, its.weight_ih});
        all.push_back({"weight_hh" + ending, its.weight_hh});
        if (its.bias_ih) all.push_back({"bias_ih" + ending, its.bias_ih});
        if (its.bias_hh) all.push_back({"bias_hh" + ending, its.bias_hh});
    }
    if (initial_h) all.push_back({"initial_h", initial_h});
    if (initial_c) all.push_back({"initial_c", initial_c});
    return all;
}

}  // namespace

template <class R>
NamedArrays<R> parameters(const Recurrent<R>& layer) {
    return named<R>(
        layer, [&](std::size_t i) -> const auto& { return layer.rows[i]; }, layer.initial_h, layer.initial_c);
}

template <class R>
void prepare(Recurrent<R>& layer) {
    validate::layer(layer_caller(layer, ".prepare"), layer);
    for (auto& row : layer.rows)
        row.prepared = std::make_shared<const detail::Prepared<R>>(
            layer.cell,
            typename detail::Prepared<R>::Arrays{row.weight_ih, row.weight_hh, row.bias_ih, row.bias_hh});
}

template <class R>
Masks dropout_masks(const Recurrent<R>& layer, Index T, Index N, Random& random) {
    validate::layer(layer_caller(layer, ".dropout_masks"), layer);
    Masks masks;
    for (Index k = 1; k < layer.num_layers && layer.dropout > 0; ++k) {
        masks.emplace_back(Shape{T, N, layer.directions() * layer.hidden_size()});
        const Array<bool>& mask = masks.back();
        for (Index i = 0; i < mask.elements(); ++i)
            mask.data()[i] = std::ldexp(static_cast<double>(random() >> 11), -53) >= layer.dropout;
    }
    return masks;
}

template <class R>
LayerForward<R> forward(const Recurrent<R>& layer, In<R> x, const StateIn<R>& state, const Steps& steps,
                        Masks masks) {
    validate::forward<R>(layer_caller(layer, ".forward"), layer, x, state, steps, masks);
    return run<R>(layer, x, state, steps, std::move(masks), true);
}

template <class R>
LayerForward<R> predict(const Recurrent<R>& layer, In<R> x, const StateIn<R>& state, const Steps& steps) {
    validate::forward<R>(layer_caller(layer, ".predict"), layer, x, state, steps, {});
    return run<R>(layer, x, state, steps, {}, false);
}

template <class R>
LayerForward<R> step(const Recurrent<R>& layer, In<R> x_t, const StateIn<R>& state) {
    const Index N = validate::step<R>(layer_caller(layer, ".step"), layer, x_t, state);
    const Index few = layer.rows[0].prepared ? 1 : kFewSequences;
    if (N <= few) return single_step<R>(layer, x_t, state);
    LayerForward<R> out = run<R>(layer, {x_t.data, {1, N, layer.input_size()}}, state, {}, {}, false);
    out.y = out.y.reshaped({N, layer.hidden_size()});
    return out;
}

template <class R>
void check_backward(const Recurrent<R>& layer, const LayerTape<R>& tape, In<R> dy, const StateIn<R>& dstate) {
    validate::backward<R>(layer, tape, dy, dstate);
}

template <class R>
LayerGradients<R> backward(const Recurrent<R>& layer, LayerTape<R>& tape, In<R> dy, const StateIn<R>& dstate,
                           bool retain) {
    validate::backward<R>(layer, tape, dy, dstate);
    std::vector<Gradients<R>> found(layer.rows.size());
    const Tape<R>& lowest = tape.rows[0];
    const Index at_once = layers_at_once(layer, lowest.dims.T, lowest.dims.N, lowest.steps);
    Array<R> dx, between;
    for (Index k = layer.num_layers - at_once; k >= 0; k -= at_once) {
        const View<const R> above = dx ? View<const R>(dx) : View<const R>(dy);
        dx = layer.bidirectional ? back_both<R>(layer, k, tape, above, dstate, retain, found)
                                 : back_layers<R>(layer, {k, at_once}, tape, above, dstate, between, found);
        if (retain) continue;
        tape.rows.resize(static_cast<std::size_t>(k * layer.directions()));
        tape.inputs.resize(static_cast<std::size_t>(std::max<Index>(k - 1, 0)));
    }
    if (!retain) {
        tape.masks.clear();
        tape.consumed = true;
    }

    std::vector<Array<R>> h, c;
    for (Gradients<R>& gradients : found) {
        h.push_back(std::move(gradients.h));
        c.push_back(std::move(gradients.c));
    }
    LayerGradients<R> out;
    out.x = std::move(dx);
    out.state.h = stack(h);
    if (cell_has_c(layer.cell)) out.state.c = stack(c);
    const auto learned = [&](const Array<R>& parameter, const Array<R>& gradient, bool given) {
        return parameter ? summed(gradient, !given) : Array<R>();
    };
    out.parameters = named<R>(
        layer, [&](std::size_t i) -> const auto& { return found[i]; },
        learned(layer.initial_h, out.state.h, tape.h_given),
        learned(layer.initial_c, out.state.c, tape.c_given));
    return out;
}

#define BPTT_STACK(R)                                                                                        \
    template NamedArrays<R> parameters(const Recurrent<R>&);                                                 \
    template void prepare(Recurrent<R>&);                                                                    \
    template Masks dropout_masks(const Recurrent<R>&, Index, Index, Random&);                                \
    template LayerForward<R> forward(const Recurrent<R>&, In<R>, const StateIn<R>&, const Steps&, Masks);    \
    template LayerForward<R> predict(const Recurrent<R>&, In<R>, const StateIn<R>&, const Steps&);           \
    template LayerForward<R> step(const Recurrent<R>&, In<R>, const StateIn<R>&);                            \
    template LayerGradients<R> backward(const Recurrent<R>&, LayerTape<R>&, In<R>, const StateIn<R>&, bool); \
    template void check_backward(const Recurrent<R>&, const LayerTape<R>&, In<R>, const StateIn<R>&);
BPTT_STACK(float)
BPTT_STACK(double)

}  // namespace bptt
