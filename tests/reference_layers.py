"""The reference of the whole recurrent layer: stacks and directions, from reference.py's one layer.

NumPy alone, and as plain: the backward direction is the same loop over sequences that were turned
round, each within its own length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reference

Array = NDArray[Any]


def turned(a: Array, lengths: Array) -> Array:
    """(T, N, ...): every sequence's valid steps in the opposite order, the rest where it was."""
    a = a.copy()
    for n, length in enumerate(lengths):
        a[:length, n] = a[:length, n][::-1].copy()
    return a


def turned_reset(reset: Array, lengths: Array) -> Array:
    """reset[t] parts step t from step t-1, also where they come in the opposite order."""
    out = np.zeros_like(reset)
    for n, length in enumerate(lengths):
        # Between t-1 and t is, counted from the end, between length-1-t and length-t.
        for t in range(1, length):
            out[length - t, n] = reset[t, n]
    return out


@dataclass
class Tape:
    tape: reference.Tape
    reverse: bool


def forward(
    cell: str,
    x: Array,
    weights: reference.Weights,
    h: Array | None,
    c: Array | None,
    lengths: Array | None,
    reset: Array | None,
    reverse: bool,
) -> tuple[Array, Array, Array | None, Tape]:
    """One layer in one direction, as reference.forward."""
    if reverse:
        lengths = np.full(x.shape[1], len(x)) if lengths is None else lengths
        x = turned(x, lengths)
        reset = None if reset is None else turned_reset(reset, lengths)
    y, h, c, tape = reference.forward(cell, x, weights, h, c, lengths, reset)
    return turned(y, lengths) if reverse else y, h, c, Tape(tape, reverse)


def backward(
    tape: Tape,
    dy: Array | None,
    dh: Array | None,
    dc: Array | None,
    reduction: str = "sum",
    handed: complex = 1.0,
) -> reference.Gradients:
    lengths = tape.tape.lengths
    if tape.reverse and dy is not None:
        dy = turned(dy, lengths)
    grads = reference.backward(tape.tape, dy, dh, dc, reduction, handed)
    if tape.reverse:
        grads.x = turned(grads.x, lengths)
    return grads


@dataclass
class Stack:
    """Layers one upon the other; weights[layer][direction]."""

    cell: str
    weights: list[list[reference.Weights]]

    def forward(
        self,
        x: Array,
        h: Array | None = None,
        c: Array | None = None,
        lengths: Array | None = None,
        reset: Array | None = None,
        scales: list[Array] | None = None,
    ) -> tuple[Array, Array, Array | None, Any]:
        """h, c: (layers * directions, N, H). scales: what dropout multiplies each layer's y with.

        Returns y (T, N, directions * H), the final h and c, and the tapes.
        """
        tapes, hs, cs = [], [], []
        for layer, directions in enumerate(self.weights):
            if layer > 0 and scales is not None:
                x = x * scales[layer - 1]
            ys = []
            for reverse, weights in enumerate(directions):
                i = len(tapes)
                y, h_end, c_end, tape = forward(
                    self.cell,
                    x,
                    weights,
                    None if h is None else h[i],
                    None if c is None else c[i],
                    lengths,
                    reset,
                    bool(reverse),
                )
                ys.append(y)
                hs.append(h_end)
                cs.append(c_end)
                tapes.append(tape)
            x = np.concatenate(ys, axis=2)
        return x, np.stack(hs), None if cs[0] is None else np.stack(cs), (tapes, scales)

    def backward(
        self,
        kept: Any,
        dy: Array | None = None,
        dh: Array | None = None,
        dc: Array | None = None,
        handed: complex = 1.0,
    ) -> tuple[Array, Array, Array | None, list[reference.Gradients]]:
        """dL/dx, dL/d(initial h and c), and the gradients of each layer and direction. handed: as
        `reference.backward`'s."""
        tapes, scales = kept
        D = len(self.weights[0])
        found: list[Any] = [None] * len(tapes)
        for layer in reversed(range(len(self.weights))):
            dx: Any = 0
            for direction in range(D):
                i = layer * D + direction
                H = tapes[i].tape.h.shape[2]
                found[i] = backward(
                    tapes[i],
                    None if dy is None else dy[..., direction * H : (direction + 1) * H],
                    None if dh is None else dh[i],
                    None if dc is None else dc[i],
                    handed=handed,
                )
                dx = dx + found[i].x
            dy = dx * scales[layer - 1] if layer > 0 and scales is not None else dx
        dcs = None if found[0].c is None else np.stack([f.c for f in found])
        assert dy is not None
        return dy, np.stack([f.h for f in found]), dcs, found
