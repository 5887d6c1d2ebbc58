#include "bptt/truncation.hpp"

#include <algorithm>
#include <utility>

#include "validate.hpp"

namespace bptt {
namespace {

// Entries first..last-1 of the outermost dimension.
template <class E>
View<E> steps_of(const View<E>& view, Index first, Index last) {
    if (!view) return view;
    View<E> part = view;
    const Index all = std::max<Index>(view.shape[0], 1);
    part.data += first * (view.elements() / all);
    part.shape.size[0] = last - first;
    return part;
}

// One after the other in time.
template <class R>
Array<R> joined(const std::vector<Array<R>>& parts) {
    if (parts.size() == 1) return parts[0];
    Shape shape = parts[0].shape();
    shape.size[0] = 0;
    for (const Array<R>& part : parts) shape.size[0] += part.shape()[0];
    Array<R> all(shape);
    R* to = all.data();
    for (const Array<R>& part : parts) to = std::copy_n(part.data(), part.elements(), to);
    return all;
}

}  // namespace

template <class R>
Windows<R>::Windows(const Model<R>& model, TruncatedBPTT schedule, const AnyIn<R>& x, ModelState<R> state,
                    Random* random)
    : model_(&model), schedule_(schedule), x_(x), state_(std::move(state)), random_(random) {
    const validate::Caller caller("Windows");
    if (schedule.k1 < 1) caller.fail("k1 is " + std::to_string(schedule.k1) + ", expected an integer >= 1");
    if (schedule.k2 < schedule.k1)
        caller.fail("k2 is " + std::to_string(schedule.k2) +
                    ", expected k2 >= k1 = " + std::to_string(schedule.k1));
    for (const NamedLayer<R>& layer : model.layers)
        if (const auto* its = std::get_if<Recurrent<R>>(&layer.layer); its != nullptr && its->bidirectional)
            caller.fail("layer " + layer.name + " is bidirectional, expected layers of one direction");
    const Shape& shape = x_.index ? x_.index.shape : x_.x.shape;
    if (shape.rank < 2) caller.fail("x has shape " + validate::text(shape) + ", expected (T, N, ...)");
    T_ = shape[0];
    for (Index end = schedule.k1; T_ > 0; end += schedule.k1) {
        end = std::min(end, T_);
        cuts_.push_back(end);
        if (end > schedule.k2) cuts_.push_back(end - schedule.k2);
        if (end == T_) break;
    }
    std::sort(cuts_.begin(), cuts_.end());
    cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());
}

// Runs on to `stop`, segment by segment. Returns the predictions.
template <class R>
Array<R> Windows<R>::run(Index stop) {
    std::vector<Array<R>> predictions;
    while (at_ < stop) {
        const Index end = *std::upper_bound(cuts_.begin(), cuts_.end(), at_);
        Input<R> x;
        x.x = steps_of(x_.x, at_, end);
        x.index = steps_of(x_.index, at_, end);
        ModelForward<R> found = forward(*model_, x, state_, {}, random_);
        state_ = std::move(found.state);
        kept_.push_back({at_, end, std::move(found.tape)});
        predictions.push_back(std::move(found.y));
        at_ = end;
    }
    return joined(predictions);
}

// The sum of the gradients over all segments, newest first. Losses are those from step `start` on; tapes from
// `reach` on stay usable.
template <class R>
NamedArrays<R> Windows<R>::back(const Array<R>& dprediction, Index start, Index reach) {
    NamedArrays<R> total;
    ModelState<R> dstate;
    for (auto segment = kept_.rbegin(); segment != kept_.rend(); ++segment) {
        View<const R> dy;
        if (segment->start >= start)
            dy = steps_of(View<const R>(dprediction), segment->start - start, segment->stop - start);
        ModelGradients<R> found = backward(*model_, segment->tape, dy, dstate, segment->start >= reach);
        dstate = std::move(found.state);
        if (total.empty()) {
            total = std::move(found.parameters);
            continue;
        }
        for (std::size_t i = 0; i < total.size(); ++i) {
            const Array<R>&sum = total[i].value, &part = found.parameters[i].value;
            for (Index j = 0; j < sum.elements(); ++j) sum.data()[j] += part.data()[j];
        }
    }
    return total;
}

template <class R>
std::optional<Update<R>> Windows<R>::next(const LossOf& loss) {
    if (at_ >= T_) return std::nullopt;
    Update<R> update;
    update.start = at_;
    update.stop = std::min(at_ + schedule_.k1, T_);
    const Array<R> prediction = run(update.stop);
    const Loss<R> its = loss(prediction, update.start, update.stop);
    const validate::Caller caller("Windows.next");
    caller.same_shape(View<const R>(its.gradient), "the loss's gradient", prediction.shape(), "prediction");
    update.loss = its.value;
    // Where the next window's way back ends: what is older, no window needs after this one.
    const Index reach = update.stop < T_ ? std::min(update.stop + schedule_.k1, T_) - schedule_.k2 : T_;
    update.gradients = back(its.gradient, update.start, reach);
    while (!kept_.empty() && kept_.front().start < reach) kept_.pop_front();
    update.state = state_;
    return update;
}

template class Windows<float>;
template class Windows<double>;

}  // namespace bptt
