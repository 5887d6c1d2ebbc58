// A whole model in real time: one sequence, one step at a time, and weights that another thread replaces.
#pragma once

#include <memory>
#include <vector>

#include "bptt/handover.hpp"
#include "bptt/layers.hpp"

namespace bptt {

// A model of recurrent layers of one direction, linear layers, activations and maybe an embedding before
// them, with its weights packed and its state inside; sizes are those of the run. The weights are copied:
// later changes to them do not reach the stream. One thread uses a stream at a time. What `step` gives has
// the bits of predict(model, x).
template <class R>
class ModelStream {
public:
    // The state is the learned initial one, or zero. Throws std::invalid_argument naming the layer.
    BPTT_API explicit ModelStream(const Model<R>& model);
    BPTT_API ~ModelStream();
    BPTT_API ModelStream(ModelStream&& other) noexcept;
    BPTT_API ModelStream& operator=(ModelStream&& other) noexcept;

    // x: input_size() numbers, or an embedding's index. Returns the output_size() numbers of the last layer,
    // which stay until the next step; nullptr, and nothing has happened, for the input of the other kind
    // and for an index outside 0..num_embeddings-1. Allocates nothing, takes no lock, starts no thread, makes
    // no system call.
    BPTT_API const R* step(const R* x) noexcept;
    BPTT_API const R* step_index(std::int64_t index) noexcept;

    // Back to the state that the stream began with.
    BPTT_API void reset() noexcept;
    // All layers' states, one after the other; to be handed to a stream of as many.
    BPTT_API View<const R> state() const noexcept;
    BPTT_API void set_state(View<const R> state) noexcept;

    BPTT_API Index input_size() const noexcept;  // 0 where an embedding reads indices
    BPTT_API Index output_size() const noexcept;
    // Whether the other stream's layers are of the same kinds and sizes.
    BPTT_API bool same_sizes(const ModelStream& other) const noexcept;

private:
    struct Plan;
    std::unique_ptr<Plan> plan_;
};

// A stream for a real-time thread, whose weights a worker thread replaces while it runs: online training. The
// state goes on from step to step whatever happens to the weights.
template <class R>
class LiveStream {
public:
    // Throws std::invalid_argument as ModelStream does.
    explicit LiveStream(const Model<R>& model)
        : slots_(maker(model)), state_(static_cast<std::size_t>(slots_.front().state().elements())) {}

    // The worker's: packs the weights and hands them over. The next step that begins has them. Throws
    // std::invalid_argument for a model of other layers or sizes.
    void publish(const Model<R>& model) {
        ModelStream<R> next(model);
        if (!next.same_sizes(slots_.back()))
            throw std::invalid_argument(
                "LiveStream.publish: the model's layers differ from those that the stream was made of, "
                "expected the same kinds and sizes");
        slots_.back() = std::move(next);
        slots_.publish();
    }

    // The real-time thread's, as ModelStream's.
    const R* step(const R* x) noexcept {
        update();
        return slots_.front().step(x);
    }
    const R* step_index(std::int64_t index) noexcept {
        update();
        return slots_.front().step_index(index);
    }
    void reset() noexcept { slots_.front().reset(); }
    // Takes newer weights where there are any; each step begins with it. Says whether there were.
    bool update() noexcept {
        if (!slots_.fresh()) return false;
        // From the moment of the exchange the old slot is the worker's.
        const View<const R> old = slots_.front().state();
        for (std::size_t i = 0; i < state_.size(); ++i) state_[i] = old.data[i];
        slots_.update();
        slots_.front().set_state({state_.data(), old.shape});
        return true;
    }

    Index input_size() const noexcept { return slots_.front().input_size(); }
    Index output_size() const noexcept { return slots_.front().output_size(); }

private:
    static auto maker(const Model<R>& model) {
        return [&model] { return ModelStream<R>(model); };
    }

    TripleBuffer<ModelStream<R>> slots_;
    std::vector<R> state_;
};

}  // namespace bptt
