// One sequence, one step at a time, in real time.
#pragma once

#include "bptt/types.hpp"

namespace bptt {

// A recurrent layer of one direction with its weights packed and its state inside. The weights are
// copied: later changes to them do not reach the stream. One thread uses a stream at a time.
template <class R>
class BPTT_API Stream {
public:
    // initial (1, H) where given, else zero. Throws std::invalid_argument as forward() does.
    Stream(Cell cell, const Weights<R>& weights, const State<R>& initial = {});
    ~Stream();
    Stream(Stream&& other) noexcept;
    Stream& operator=(Stream&& other) noexcept;

    // x: D numbers. Returns the H numbers of the new hidden state, which stay until the next step.
    // Allocates nothing, takes no lock, starts no thread, makes no system call.
    const R* step(const R* x) noexcept {
        step_(prepared_, x, h_.data(), c_.data());
        return h_.data();
    }
    // Sets the state, to zero where none is given. Throws std::invalid_argument.
    void reset(const State<R>& state = {});

    Index D() const noexcept { return D_; }
    Index H() const noexcept { return H_; }
    Cell cell() const noexcept { return cell_; }
    View<const R> h() const { return h_; }  // (1, H)
    View<const R> c() const { return c_; }  // (1, H), LSTM only

private:
    Cell cell_ = Cell::lstm;
    Index D_ = 0, H_ = 0;
    Array<R> h_, c_;
    void* prepared_ = nullptr;
    void (*step_)(const void*, const R*, R*, R*) noexcept = nullptr;
};

}  // namespace bptt
