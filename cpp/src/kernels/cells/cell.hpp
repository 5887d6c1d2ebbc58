// What a cell is to the loop: a policy of compile-time constants and pointwise mathematics.
//
// Cells that differ in the mathematics alone are one to the loops, which are compiled once for all of them:
//
//   choose(which, body)  calls body(cell) with the one that is meant, whose mathematics it is
//
//   gates            G
//   columns          the working row of a step is columns*H wide, one column of H numbers for each of
//                    what the cell computes there; before `forward` they hold pre-activations
//   kept             columns that the tape keeps: all of them or 0 (where h says everything)
//   ih_column[g]     in which column gate g's W_ih x + b stands; the columns are neighbours
//   hh_column[g]     in which column its W_hh h is added. Where the two differ, W_hh h + b_hh stands alone
//   phases           how many products with W_hh a step needs, one after another
//   phase_of[g]      in which of them gate g's is; a phase's columns are neighbours
//   source_column[p] what phase p multiplies with W_hh: the column that an earlier phase wrote, -1 for h
//   writes[p]        which columns `forward` of phase p writes, a bit each; none: it has nothing to do
//   output_writes    those that `output` writes
//   read_again       those of writes[] that the rest of the step reads. Without a tape no others are stored
//   has_c            whether there is a second state
//   passes_h         whether dh reaches h_prev also beside the product
//
//   forward<p>(a, h_prev, c_prev, c)              after the product of phase p: pre-activations to gates; the
//                                                 last phase makes c where there is one
//   output(a, h_prev, c)                          after that: h, and what `forward` left to be done
//   backward<p>(a, states, dh, dc, delta, pass)   for p = phases-1 .. 0, each followed by its product
//   handed_back(a, dc)                            where has_c: what of dL/dc_t reaches c_prev
//
// In `backward`, dh is the whole dL/dh; dc is what c_{t+1} handed back and becomes dL/dc_t; delta[column] is
// dL/da; pass is what of dh goes straight to h_prev. For p < phases-1 delta and pass hold what the phases
// before have written, and delta[source_column[p+1]] the gradient of phase p+1's source.
//
// Layer normalisation, projection, peepholes and recurrent dropout would be further constants here.
#pragma once

#include "kernels/elementary.hpp"

namespace bptt::BPTT_SET {

// A cell that has its loops for itself.
template <class Cell>
struct OneCell {
    template <class Body>
    BPTT_INLINE static void choose(bptt::Cell, Body&& body) {
        body(Cell{});
    }
};

// The states around a step.
template <class R>
struct States {
    Lanes<R> h_prev, h, c_prev, c;
};

}  // namespace bptt::BPTT_SET
