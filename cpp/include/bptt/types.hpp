// The letters: what every other header is written in.
//
//   T time steps   N sequences   D input features   H hidden units   G gates (1 RNN, 4 LSTM, 3 GRU)
//
// Arrays are C-contiguous and time-major, of float or double. Weights have PyTorch's names, shapes
// and gate order: LSTM gates i, f, g, o; GRU gates r, z, n.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

// What leaves the shared library. Of a static one nothing leaves the program or plug-in that it is linked
// into.
#if defined(_WIN32) || defined(BPTT_STATIC)
#define BPTT_API
#else
#define BPTT_API __attribute__((visibility("default")))
#endif

namespace bptt {

using Index = std::ptrdiff_t;

// The sizes of an array, outermost first.
struct Shape {
    static constexpr int kMaxRank = 8;

    Index size[kMaxRank] = {};
    int rank = 0;

    Shape() = default;
    Shape(std::initializer_list<Index> sizes) {
        if (sizes.size() > kMaxRank) throw std::invalid_argument("Shape: more than 8 dimensions");
        for (Index s : sizes) size[rank++] = s;
    }

    Index operator[](int dimension) const { return size[dimension]; }
    Index elements() const {
        Index product = 1;
        for (int i = 0; i < rank; ++i) product *= size[i];
        return product;
    }
    bool operator==(const Shape& other) const {
        if (rank != other.rank) return false;
        for (int i = 0; i < rank; ++i)
            if (size[i] != other.size[i]) return false;
        return true;
    }
    bool operator!=(const Shape& other) const { return !(*this == other); }
};

// Somebody else's memory and its shape. A default View stands for "not given".
template <class R>
struct View {
    R* data = nullptr;
    Shape shape;
    bool given = false;

    View() = default;
    View(R* memory, const Shape& its_shape) : data(memory), shape(its_shape), given(true) {}
    template <class Q, class = std::enable_if_t<std::is_convertible_v<Q (*)[], R (*)[]>>>
    View(const View<Q>& other) : data(other.data), shape(other.shape), given(other.given) {}

    explicit operator bool() const { return given; }
    Index elements() const { return shape.elements(); }
};

// Memory that the library made, which goes back to a pool, or somebody else's, which `owner` keeps. Copies
// share it; it is let go when the last one is gone. A default Array stands for "there is none".
template <class R>
class Array {
public:
    Array() = default;
    // Elements are uninitialised. Throws std::bad_alloc, std::length_error when the size overflows.
    BPTT_API explicit Array(const Shape& shape);
    // Memory that is there already, as of a mapped file; it must live as long as `owner`, which is not null.
    Array(const View<R>& memory, std::shared_ptr<void> owner)
        : owner_(std::move(owner)), data_(memory.data), shape_(memory.shape) {}

    R* data() const { return data_; }
    const Shape& shape() const { return shape_; }
    Index elements() const { return shape_.elements(); }
    explicit operator bool() const { return owner_ != nullptr; }

    operator View<R>() const { return owner_ ? View<R>(data_, shape_) : View<R>(); }
    operator View<const R>() const { return owner_ ? View<const R>(data_, shape_) : View<const R>(); }

    // Entries first..last-1 of the outermost dimension, in the same memory.
    Array slice(Index first, Index last) const {
        Array part = *this;
        Index stride = 1;
        for (int i = 1; i < shape_.rank; ++i) stride *= shape_[i];
        part.data_ += first * stride;
        part.shape_.size[0] = last - first;
        return part;
    }
    // The same elements under another shape of as many elements.
    Array reshaped(const Shape& shape) const {
        if (shape.elements() != elements())
            throw std::invalid_argument("Array::reshaped: the number of elements differs");
        Array other = *this;
        other.shape_ = shape;
        return other;
    }

private:
    std::shared_ptr<void> owner_;
    R* data_ = nullptr;
    Shape shape_;
};

// The cells. `gru` resets after the recurrent product (PyTorch, cuDNN, Keras), `gru_reset_before`
// before it (Cho et al. 2014, ONNX's default).
enum class Cell { rnn_tanh, rnn_relu, rnn_identity, lstm, gru, gru_reset_before };

// "rnn_tanh", "lstm", ...; throws std::invalid_argument for a name that is none.
BPTT_API const char* cell_name(Cell cell);
BPTT_API Cell cell_from_name(const std::string& name);
BPTT_API Index cell_gates(Cell cell);
BPTT_API bool cell_has_c(Cell cell);

// What an activation makes of each number, or (softmax) of the numbers of each step. The ELU is that of alpha
// = 1 (Clevert et al. 2016).
enum class Nonlinearity { tanh, relu, sigmoid, elu, softmax };

// "tanh", ...; throws std::invalid_argument for a name that is none.
BPTT_API const char* nonlinearity_name(Nonlinearity nonlinearity);
BPTT_API Nonlinearity nonlinearity_from_name(const std::string& name);

struct Dims {
    Index T = 0, N = 0, D = 0, H = 0;
};

namespace detail {
template <class R>
struct Prepared;
}

template <class R>
struct Weights {
    View<const R> weight_ih;  // (G*H, D)
    View<const R> weight_hh;  // (G*H, H)
    View<const R> bias_ih;    // (G*H,), or not given
    View<const R> bias_hh;    // (G*H,), or not given; the two come together
    // What bptt::prepare made of them, of a layer that was prepared; else null.
    const detail::Prepared<R>* prepared = nullptr;
};

// A state, or the gradient with respect to one. What is not given is zero.
template <class R>
struct State {
    View<const R> h;  // (N, H)
    View<const R> c;  // (N, H), LSTM only
};

// Which steps count, and in which direction. All are optional.
struct Steps {
    View<const std::int64_t> lengths;  // (N,): sequence n ends after lengths[n] steps, 0 <= lengths[n] <= T
    View<const bool> reset;            // (T, N): where true, that sequence's state is zero before that step
    bool reverse = false;              // from each sequence's own end to step 0; reset[t], which parts step t
                                       // from step t-1, then makes the state zero before step t-1
};

// Of a sum over steps or elements: nothing more, or divided by the number of those that are valid, or by
// the number of sequences that have a valid one.
enum class Reduction { sum, mean, mean_sequences };

}  // namespace bptt
