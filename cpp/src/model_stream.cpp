#include "bptt/model_stream.hpp"

#include <algorithm>
#include <utility>

#include "dispatch.hpp"
#include "validate_models.hpp"

namespace bptt {
namespace {

// A layer (of a stack: one of them) that is ready to run. Its input is the stage's before it.
template <class R>
struct Stage {
    enum class Kind { embedding, linear, recurrent, activation };

    Kind kind = Kind::linear;
    Cell cell = Cell::lstm;
    Nonlinearity nonlinearity = Nonlinearity::tanh;
    Index in = 0, out = 0;
    Index y = 0, c = 0;        // where y (for recurrent layers h) and c stand among the plan's numbers
    void* prepared = nullptr;  // the kernel's own
    Array<R> rows;             // an embedding's weight

    Stage() = default;
    Stage(Stage&& other) noexcept
        : kind(other.kind),
          cell(other.cell),
          nonlinearity(other.nonlinearity),
          in(other.in),
          out(other.out),
          y(other.y),
          c(other.c),
          prepared(std::exchange(other.prepared, nullptr)),
          rows(std::move(other.rows)) {}
    ~Stage() {
        if (prepared == nullptr) return;
        if (kind == Kind::linear)
            detail::table<kernels::DenseTable<R>>().linear_delete(prepared);
        else
            detail::table<kernels::StreamTable<R>>().end[static_cast<int>(cell)](prepared);
    }
};

// Each layer's numbers begin at a line of their own.
constexpr Index kLineElements = 16;
Index lines(Index count) { return (count + kLineElements - 1) / kLineElements * kLineElements; }

}  // namespace

template <class R>
struct ModelStream<R>::Plan {
    const kernels::DenseTable<R>& dense = detail::table<kernels::DenseTable<R>>();
    const kernels::StreamTable<R>& recurrent = detail::table<kernels::StreamTable<R>>();
    std::vector<Stage<R>> stages;
    const kernels::ActivationTable<R>& activations = detail::table<kernels::ActivationTable<R>>();
    // The states of all layers, h and c; and behind them the y of linear layers and activations.
    Array<R> numbers, initial;
    Index state_size = 0;
    bool by_index = false;

    explicit Plan(const Model<R>& model) {
        const validate::Caller caller("ModelStream");
        width = validate::chain(caller, model).in;
        for (const NamedLayer<R>& each : model.layers)
            std::visit([&](const auto& layer) { add(caller, each.name, layer); }, each.layer);
        by_index = stages.front().kind == Stage<R>::Kind::embedding;
        place();
        numbers = Array<R>({std::max<Index>(size, 1)});
        std::fill_n(numbers.data(), numbers.elements(), R(0));
        initial = Array<R>({state_size});
        std::fill_n(initial.data(), state_size, R(0));
        auto stage = stages.begin();
        for (const NamedLayer<R>& each : model.layers) {
            const auto* const stack = std::get_if<Recurrent<R>>(&each.layer);
            for (Index row = 0; row < (stack == nullptr ? 1 : stack->num_layers); ++row, ++stage)
                if (stack != nullptr) begin_with(*stack, row, *stage);
        }
        std::copy_n(initial.data(), state_size, numbers.data());
    }

    const R* run(const R* x, std::size_t first) noexcept {
        for (std::size_t i = first; i < stages.size(); ++i) {
            const Stage<R>& stage = stages[i];
            R* const y = numbers.data() + stage.y;
            if (stage.kind == Stage<R>::Kind::linear)
                dense.linear_step(stage.prepared, x, y);
            else if (stage.kind == Stage<R>::Kind::activation)
                activations.step[static_cast<int>(stage.nonlinearity)](x, y, stage.out);
            else
                recurrent.step[static_cast<int>(stage.cell)](stage.prepared, x, y, numbers.data() + stage.c);
            x = y;
        }
        return x;
    }

private:
    Index size = 0;
    Index width = 0;  // of what the stages so far give

    void take(Stage<R> stage) {
        width = stage.out;
        stages.push_back(std::move(stage));
    }

    void add(const validate::Caller&, const std::string&, const Embedding<R>& layer) {
        Stage<R> stage;
        stage.kind = Stage<R>::Kind::embedding;
        stage.in = layer.weight.shape()[0];
        stage.out = layer.weight.shape()[1];
        stage.rows = Array<R>(layer.weight.shape());
        std::copy_n(layer.weight.data(), layer.weight.elements(), stage.rows.data());
        take(std::move(stage));
    }

    void add(const validate::Caller&, const std::string&, const Linear<R>& layer) {
        Stage<R> stage;
        stage.in = layer.weight.shape()[1];
        stage.out = layer.weight.shape()[0];
        kernels::LinearArgs<R> args{};
        args.D = stage.in;
        args.V = stage.out;
        args.weight = layer.weight.data();
        args.bias = layer.bias.data();
        stage.prepared = dense.linear_new(args);
        take(std::move(stage));
    }

    void add(const validate::Caller&, const std::string&, const Activation<R>& layer) {
        Stage<R> stage;
        stage.kind = Stage<R>::Kind::activation;
        stage.nonlinearity = layer.nonlinearity;
        stage.in = stage.out = width;
        take(std::move(stage));
    }

    void add(const validate::Caller& caller, const std::string& name, const Recurrent<R>& layer) {
        if (layer.bidirectional)
            caller.fail("layer \"" + name +
                        "\" is bidirectional, and its backward direction begins at the "
                        "end of the sequence, expected a layer of one direction");
        for (const auto& row : layer.rows) {
            Stage<R> stage;
            stage.kind = Stage<R>::Kind::recurrent;
            stage.cell = layer.cell;
            stage.in = row.weight_ih.shape()[1];
            stage.out = row.weight_hh.shape()[1];
            stage.prepared = recurrent.make[static_cast<int>(layer.cell)](
                {layer.cell, stage.in, stage.out, row.weight_ih.data(), row.weight_hh.data(),
                 row.bias_ih.data(), row.bias_hh.data()});
            take(std::move(stage));
        }
    }

    // States first, so that they are one piece.
    void place() {
        const auto place_of = [&](Index count) {
            size += lines(count);
            return size - lines(count);
        };
        for (Stage<R>& stage : stages)
            if (stage.kind == Stage<R>::Kind::recurrent) {
                stage.y = place_of(stage.out);
                if (cell_has_c(stage.cell)) stage.c = place_of(stage.out);
            }
        state_size = size;
        for (Stage<R>& stage : stages)
            if (stage.kind == Stage<R>::Kind::linear || stage.kind == Stage<R>::Kind::activation)
                stage.y = place_of(stage.out);
    }

    void begin_with(const Recurrent<R>& layer, Index row, const Stage<R>& stage) const {
        const Index H = stage.out;
        if (layer.initial_h) std::copy_n(layer.initial_h.data() + row * H, H, initial.data() + stage.y);
        if (layer.initial_c) std::copy_n(layer.initial_c.data() + row * H, H, initial.data() + stage.c);
    }
};

template <class R>
ModelStream<R>::ModelStream(const Model<R>& model) : plan_(std::make_unique<Plan>(model)) {}
template <class R>
ModelStream<R>::~ModelStream() = default;
template <class R>
ModelStream<R>::ModelStream(ModelStream&& other) noexcept = default;
template <class R>
ModelStream<R>& ModelStream<R>::operator=(ModelStream&& other) noexcept = default;

template <class R>
const R* ModelStream<R>::step(const R* x) noexcept {
    return plan_->by_index ? nullptr : plan_->run(x, 0);
}

template <class R>
const R* ModelStream<R>::step_index(std::int64_t index) noexcept {
    const Stage<R>& first = plan_->stages.front();
    if (!plan_->by_index || index < 0 || index >= first.in) return nullptr;
    return plan_->run(first.rows.data() + static_cast<Index>(index) * first.out, 1);
}

template <class R>
void ModelStream<R>::reset() noexcept {
    std::copy_n(plan_->initial.data(), plan_->state_size, plan_->numbers.data());
}

template <class R>
View<const R> ModelStream<R>::state() const noexcept {
    return {plan_->numbers.data(), Shape{plan_->state_size}};
}

template <class R>
void ModelStream<R>::set_state(View<const R> state) noexcept {
    std::copy_n(state.data, std::min(state.elements(), plan_->state_size), plan_->numbers.data());
}

template <class R>
Index ModelStream<R>::input_size() const noexcept {
    return plan_->by_index ? 0 : plan_->stages.front().in;
}

template <class R>
Index ModelStream<R>::output_size() const noexcept {
    return plan_->stages.back().out;
}

template <class R>
bool ModelStream<R>::same_sizes(const ModelStream& other) const noexcept {
    const auto same = [](const Stage<R>& a, const Stage<R>& b) {
        return a.kind == b.kind && a.cell == b.cell && a.nonlinearity == b.nonlinearity && a.in == b.in &&
               a.out == b.out;
    };
    return std::equal(plan_->stages.begin(), plan_->stages.end(), other.plan_->stages.begin(),
                      other.plan_->stages.end(), same);
}

template class ModelStream<float>;
template class ModelStream<double>;

}  // namespace bptt
