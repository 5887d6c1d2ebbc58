"""The gradient's way through time, by brute force, and the same gradient without going back at all.

It stands on the reference (never on bptt). `windows` truncates one loss at a time, `lags`
counts how often a gradient was handed on; `rtrl` (real-time recurrent learning, Williams & Zipser
1989) carries d(state)/d(W_hh) forward instead: its one-step derivatives are complex steps (Squire &
Trapp 1998) through formulas of its own, so that it shares nothing with a backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import reference
import reference_layers

Array = NDArray[Any]


@dataclass
class Layer:
    """One recurrent layer of a stack."""

    cell: str
    weights: reference.Weights
    h: Array | None = None
    c: Array | None = None


def windows(
    layers: list[Layer],
    x: Array,
    dy: Array,
    w: int,
    lengths: Array | None = None,
    reset: Array | None = None,
    losses: range | None = None,
) -> list[Array]:
    """Each layer's dW_hh where the loss at every step goes back through the latest w steps.

    For each loss at s the stack runs anew over steps s-w+1..s, from the states that it had before,
    which are constants. dy is dL/dy of the top layer.
    """
    T, N = x.shape[:2]
    lengths = np.full(N, T) if lengths is None else lengths
    total = [np.zeros_like(layer.weights.weight_hh) for layer in layers]
    for s in losses or range(T):
        start = max(0, s - w + 1)
        tapes = _run(layers, x[: s + 1], start, lengths, reset)
        back = np.zeros_like(dy[start : s + 1])
        back[-1] = dy[s]
        for i in reversed(range(len(layers))):
            grads = reference.backward(tapes[i], back)
            total[i] += grads.weight_hh
            back = grads.x
    return total


def _run(
    layers: list[Layer], x: Array, start: int, lengths: Array, reset: Array | None
) -> list[reference.Tape]:
    """The tapes of steps start..end, from the states that the steps before led to."""
    tapes = []
    for layer in layers:
        before = np.minimum(lengths, start)
        after = np.clip(lengths - start, 0, len(x) - start)
        marks = (None, None) if reset is None else (reset[:start], reset[start : len(x)])
        y0, h, c, _ = reference.forward(
            layer.cell, x[:start], layer.weights, layer.h, layer.c, before, marks[0]
        )
        y1, *_, tape = reference.forward(
            layer.cell, x[start:], layer.weights, h, c, after, marks[1]
        )
        tapes.append(tape)
        x = np.concatenate([y0, y1])
    return tapes


def lags(
    stack: reference_layers.Stack,
    x: Array,
    dy: Array,
    lengths: Array | None = None,
    reset: Array | None = None,
) -> list[Array]:
    """Of each layer and direction all parts (k, G*H, H) of dW_hh that were handed on k times.

    The gradient is a polynomial of what each handing-on is multiplied with. Its values at the roots
    of unity are the discrete Fourier transform of its coefficients. dy is dL/dy of the top layer.
    """
    *_, kept = stack.forward(x, None, None, lengths, reset)
    count = len(stack.weights) * (len(x) - 1) + 1  # each layer may turn and go through all steps
    values = [
        [grads.weight_hh for grads in stack.backward(kept, dy, handed=root)[3]]
        for root in np.exp(-2j * np.pi * np.arange(count) / count)
    ]
    return [np.fft.ifft(np.array(its), axis=0).real for its in zip(*values, strict=True)]


# ---- real-time recurrent learning ----------------------------------------------------------------


def _sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


def step(cell: str, x: Array, state: Array, W_hh: Array, weights: reference.Weights) -> Array:
    """One step of one sequence: the next state, h (then c) in one vector; also of complex ones."""
    H = W_hh.shape[1]
    h, c = state[:H], state[H:]
    zeros = np.zeros(len(W_hh))
    a_ih = weights.weight_ih @ x + (zeros if weights.bias_ih is None else weights.bias_ih)
    b_hh = zeros if weights.bias_hh is None else weights.bias_hh
    a_hh = W_hh @ h + b_hh
    if cell == "rnn_tanh":
        return np.tanh(a_ih + a_hh)
    if cell == "rnn_relu":
        a = a_ih + a_hh
        return np.where(a.real > 0, a, 0)
    if cell == "rnn_identity":
        return a_ih + a_hh
    if cell == "lstm":
        i, f, g, o = (a_ih + a_hh).reshape(4, H)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        return np.concatenate([_sigmoid(o) * np.tanh(c), c])
    r, z = _sigmoid((a_ih + a_hh)[: 2 * H]).reshape(2, H)
    if cell == "gru":
        n = np.tanh(a_ih[2 * H :] + r * a_hh[2 * H :])
    else:
        n = np.tanh(a_ih[2 * H :] + W_hh[2 * H :] @ (r * h) + b_hh[2 * H :])
    return (1 - z) * n + z * h


def rtrl(cell: str, x: Array, weights: reference.Weights, dy: Array, h: Array, c: Any) -> Array:
    """dW_hh of one sequence, x (T, D) and dy (T, H), by carrying d(state)/dW_hh forward."""
    W_hh = weights.weight_hh
    H, size, tiny = W_hh.shape[1], W_hh.size, 1e-30
    state = h if c is None else np.concatenate([h, c])
    influence = np.zeros((len(state), size))
    gradient = np.zeros(size)
    for t in range(len(x)):
        of_state = np.empty((len(state), len(state)))
        for j in range(len(state)):
            bumped = state.astype(complex)
            bumped[j] += tiny * 1j
            of_state[:, j] = step(cell, x[t], bumped, W_hh, weights).imag / tiny
        of_weight = np.empty((len(state), size))
        for j in range(size):
            bumped = W_hh.astype(complex)
            bumped.flat[j] += tiny * 1j
            of_weight[:, j] = step(cell, x[t], state.astype(complex), bumped, weights).imag / tiny
        influence = of_state @ influence + of_weight
        state = step(cell, x[t], state, W_hh, weights).real
        gradient += dy[t] @ influence[:H]
    return gradient.reshape(W_hh.shape)
