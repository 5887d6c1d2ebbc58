// Memory that will be read soon is asked for while something else is computed.
//
// By itself a processor fetches ahead what it sees coming, a few lines. What comes from beyond L2 arrives so
// slowly that it has to be asked for during the whole of what is computed meanwhile.
#pragma once

#include "kernels/vector.hpp"

namespace bptt::BPTT_SET {

// Pieces of memory, asked for in their order, in equal shares.
class Coming {
public:
    static constexpr int kMost = 6;

    // At most kMost pieces, before the first share is taken.
    BPTT_SHARED void add(const void* first, Index bytes) {
        if (bytes <= 0) return;
        const Index lines = ceil_div(bytes, kLine);
        piece_[pieces_++] = {static_cast<const char*>(first), lines};
        lines_ += lines;
    }
    BPTT_INLINE bool any() const { return at_ < pieces_; }
    BPTT_INLINE void share_out(Index shares) { share_ = ceil_div(lines_, larger<Index>(1, shares)); }

    // So many shares, all at once.
    BPTT_SHARED void ask(Index shares = 1) {
        for (Index left = shares * share_; left > 0 && any();) left -= ask_in_piece(left);
    }
    // One share, of which the caller asks for line + i*step, i = 0..times-1: line by line or more slowly.
    // What that is too slow for is asked for at once.
    BPTT_SHARED void take(Index times, const char*& line, Index& step) {
        if (times <= 0 || !any()) return;
        const Piece its = piece_[at_];
        const Index lines = smaller(smaller(share_, its.lines), times);
        line = its.line;
        step = ceil_div(lines * kLine, times);
        leave(lines);
        for (Index left = share_ - lines; left > 0 && any();) left -= ask_in_piece(left);
    }

private:
    struct Piece {
        const char* line;
        Index lines;
    };

    // Asks for so many lines, as far as there are any in the piece.
    BPTT_INLINE Index ask_in_piece(Index most) {
        const Piece its = piece_[at_];
        const Index lines = smaller(most, its.lines);
        for (Index i = 0; i < lines; ++i) ahead_to_l2(its.line + i * kLine);
        leave(lines);
        return lines;
    }
    // Leaves behind so many lines of the piece.
    BPTT_INLINE void leave(Index lines) {
        piece_[at_].line += lines * kLine;
        piece_[at_].lines -= lines;
        if (piece_[at_].lines == 0) ++at_;
    }

    Piece piece_[kMost];
    int at_ = 0, pieces_ = 0;
    Index lines_ = 0, share_ = 0;
};

}  // namespace bptt::BPTT_SET
