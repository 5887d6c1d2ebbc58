// Truncated backpropagation through time.
//
//   bptt::Windows<float> windows(model, {64, 128}, x);
//   while (auto update = windows.next(loss))
//       bptt::sgd(parameters, bptt::const_views(update->gradients), {}, 0.1, 0, false, 0);
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "bptt/layers.hpp"
#include "bptt/losses.hpp"

namespace bptt {

// Every k1 steps, the losses of the latest k1 steps go back through the latest k2 >= k1 steps (Williams &
// Peng 1990; Sutskever 2013). The state is carried on and no loss is counted twice. k2 is not necessarily a
// multiple of k1, nor T: the last window has fewer losses. k1 = k2 = T is full BPTT.
struct TruncatedBPTT {
    Index k1 = 1, k2 = 1;
};

// What one window gives for one update of the parameters.
template <class R>
struct Update {
    Index start = 0, stop = 0;  // of the steps whose losses it has
    double loss = 0;
    NamedArrays<R> gradients;  // through the latest k2 steps, in the order of parameters(model)
    ModelState<R> state;       // after step stop-1
};

// The windows of one stream, one after the other: what Python's TruncatedBPTT.run yields, to the bit. The
// parameters may be changed in place between two of them. Where k2 > k1, older steps then keep the
// activations that older parameters made, and the way back through them uses the parameters as they are now.
template <class R>
class BPTT_API Windows {
public:
    // The loss of steps start..stop-1 from their prediction (stop-start, N, ...).
    using LossOf = std::function<Loss<R>(View<const R> prediction, Index start, Index stop)>;

    // x (T, N, ...) and the model must outlive this. With a generator, which must too, the model is in
    // training and draws its dropout. Throws std::invalid_argument, also for a model with a bidirectional
    // layer: its other direction begins at the stream's end.
    Windows(const Model<R>& model, TruncatedBPTT schedule, const AnyIn<R>& x, ModelState<R> state = {},
            Random* random = nullptr);

    // Nothing where the stream is at its end. After an exception no further window is to be asked for.
    std::optional<Update<R>> next(const LossOf& loss);

private:
    // The stretch of steps that one tape spans: windows begin and end between two of them.
    struct Segment {
        Index start, stop;
        ModelTape<R> tape;
    };

    Array<R> run(Index stop);
    NamedArrays<R> back(const Array<R>& dprediction, Index start, Index reach);

    const Model<R>* model_;
    TruncatedBPTT schedule_;
    Input<R> x_;
    ModelState<R> state_;
    Random* random_;
    Index T_;
    Index at_ = 0;              // the steps that ran
    std::vector<Index> cuts_;   // the ends of all segments, in order
    std::deque<Segment> kept_;  // oldest first
};

}  // namespace bptt
