"""Random stacks of recurrent layers in both directions, with what goes in and comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bptt
import reference
import reference_layers

Array = NDArray[Any]

# name: layer, what chooses the variant, the reference's cell
KINDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "RNN": (bptt.RNN, {}, "rnn_tanh"),
    "RNN relu": (bptt.RNN, {"nonlinearity": "relu"}, "rnn_relu"),
    "LSTM": (bptt.LSTM, {}, "lstm"),
    "GRU": (bptt.GRU, {}, "gru"),
    "GRU reset before": (bptt.GRU, {"reset_after": False}, "gru_reset_before"),
}


def arrays_of(state: Any) -> list[Array]:
    """A layer's state, or its gradient, as a list: h, or h and c."""
    return [] if state is None else list(state) if isinstance(state, tuple) else [state]


@dataclass
class Case:
    """A layer, what goes in, and the gradients that come from outside."""

    name: str
    layer: Any
    x: Array
    state: Any = None
    lengths: Array | None = None
    reset: Array | None = None
    dy: Array | None = None
    dstate: Any = None

    @property
    def inputs(self) -> tuple[Any, ...]:
        return self.x, self.state, self.lengths, self.reset

    def run(self, training: bool = False) -> tuple[Array, Any, Any, Any]:
        """y, final state, gradients and the dropout's masks."""
        y, state, tape = self.layer.forward(*self.inputs, training=training)
        masks = list(tape.kept.masks)
        return y, state, self.layer.backward(tape, self.dy, self.dstate), masks

    def expected(self, masks: list[Array]) -> tuple[Array, list[Array], Array, list[Array], Any]:
        """What the reference says, in double precision: y, final state, gradients of x, of the
        initial state, and of the parameters by their names."""
        layer, wide = self.layer, np.float64
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if layer.bias else 2]
        endings = [n.removeprefix(names[0]) for n in layer.parameters if n.startswith(names[0])]
        flat = [
            reference.Weights(*(layer.parameters[n + e].astype(wide) for n in names))
            for e in endings
        ]
        d = layer.directions
        stack = reference_layers.Stack(
            KINDS[self.name][2], [flat[i : i + d] for i in range(0, len(flat), d)]
        )

        def pair(state: Any) -> list[Array | None]:
            return ([a.astype(wide) for a in arrays_of(state)] + [None, None])[:2]

        scales = [m / (1 - layer.dropout) for m in masks] or None
        y, h, c, kept = stack.forward(
            self.x.astype(wide), *pair(self.state), self.lengths, self.reset, scales
        )
        dy = None if self.dy is None else self.dy.astype(wide)
        dx, dh, dc, found = stack.backward(kept, dy, *pair(self.dstate))
        parameters = {
            n + e: getattr(g, n) for e, g in zip(endings, found, strict=True) for n in names
        }
        return (
            y,
            [a for a in (h, c) if a is not None],
            dx,
            [a for a in (dh, dc) if a is not None],
            parameters,
        )


def draw(
    name: str,
    shape: tuple[int, int, int, int],
    seed: int,
    *,
    dtype: Any = np.float64,
    state: bool = True,
    lengths: bool = False,
    reset: bool = False,
    dy: bool = True,
    dstate: bool = True,
    **options: Any,
) -> Case:
    """A case of the shape (T, N, D, H); flags say what is given, options go to the layer."""
    T, N, D, H = shape
    kind, variant, _ = KINDS[name]
    rng = np.random.default_rng(seed)
    layer = kind(D, H, dtype=dtype, seed=seed, **variant, **options)
    rows = layer.num_layers * layer.directions

    def normal(given: bool, *shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype) if given else None

    def stacked(given: bool) -> Any:
        pair = normal(given, rows, N, H), normal(given, rows, N, H)
        return pair[0] if kind is not bptt.LSTM or not given else pair

    return Case(
        name,
        layer,
        normal(True, T, N, D),
        stacked(state),
        rng.integers(0, T, N, endpoint=True) if lengths else None,
        rng.random((T, N)) < 0.2 if reset else None,
        normal(dy, T, N, layer.directions * H),
        stacked(dstate),
    )
