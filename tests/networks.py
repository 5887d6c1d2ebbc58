"""Random networks of every cell, and bptt's public functions under one signature."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bptt
import reference
import reference_layers

Array = NDArray[Any]

CELLS = tuple(reference.CELLS)

# name: forward, backward, and what chooses the variant.
PUBLIC: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "rnn_tanh": (bptt.rnn_forward, bptt.rnn_backward, {}),
    "rnn_relu": (bptt.rnn_forward, bptt.rnn_backward, {"nonlinearity": "relu"}),
    "rnn_identity": (bptt.rnn_forward, bptt.rnn_backward, {"nonlinearity": "identity"}),
    "lstm": (bptt.lstm_forward, bptt.lstm_backward, {}),
    "gru": (bptt.gru_forward, bptt.gru_backward, {}),
    "gru_reset_before": (bptt.gru_forward, bptt.gru_backward, {"reset_after": False}),
}


@dataclass
class Network:
    """A cell, its weights, what goes in, and the gradients that come from outside."""

    cell: str
    x: Array
    weights: reference.Weights
    h: Array | None = None
    c: Array | None = None
    lengths: Array | None = None
    reset: Array | None = None
    reverse: bool = False
    dy: Array | None = None
    dh: Array | None = None
    dc: Array | None = None

    def but(self, **changes: Any) -> Network:
        return replace(self, **changes)

    def astype(self, dtype: Any) -> Network:
        """The same numbers in another precision."""

        def cast(a: Array | None) -> Array | None:
            return None if a is None else a.astype(dtype)

        weights = reference.Weights(*map(cast, vars(self.weights).values()))
        names = ("x", "h", "c", "dy", "dh", "dc")
        return self.but(weights=weights, **{name: cast(getattr(self, name)) for name in names})

    def sequence(self, n: int) -> Network:
        """Its n-th sequence alone."""

        def at(a: Array | None, axis: int) -> Array | None:
            return None if a is None else np.ascontiguousarray(np.take(a, [n], axis=axis))

        time_major = {name: at(getattr(self, name), 1) for name in ("x", "reset", "dy")}
        others = {name: at(getattr(self, name), 0) for name in ("h", "c", "lengths", "dh", "dc")}
        return self.but(**time_major, **others)


def draw(
    cell: str,
    shape: tuple[int, int, int, int],
    rng: np.random.Generator,
    *,
    dtype: Any = np.float64,
    biases: bool = True,
    state: bool = True,
    lengths: bool = False,
    reset: bool = False,
    reverse: bool = False,
    dy: bool = True,
    dstate: bool = True,
) -> Network:
    """A network of the shape (T, N, D, H); flags say what is given. Results are of order one."""
    T, N, D, H = shape
    G, has_c = reference.CELLS[cell].gates, reference.CELLS[cell].has_c

    def uniform(fan_in: int, *shape: int) -> Array:
        return rng.uniform(-1, 1, shape).astype(dtype) / dtype(np.sqrt(fan_in))

    def normal(given: bool, *shape: int) -> Array | None:
        return rng.standard_normal(shape).astype(dtype) if given else None

    return Network(
        cell,
        rng.standard_normal((T, N, D)).astype(dtype),
        reference.Weights(
            uniform(D, G * H, D),
            uniform(H, G * H, H),
            uniform(H, G * H) if biases else None,
            uniform(H, G * H) if biases else None,
        ),
        h=normal(state, N, H),
        c=normal(state and has_c, N, H),
        lengths=rng.integers(0, T, N, endpoint=True) if lengths else None,
        reset=rng.random((T, N)) < 0.2 if reset else None,
        reverse=reverse,
        dy=normal(dy, T, N, H),
        dh=normal(dstate, N, H),
        dc=normal(dstate and has_c, N, H),
    )


@dataclass
class Run:
    y: Array
    h: Array
    c: Array | None
    tape: Any


def forward(network: Network) -> Run:
    """bptt's forward call."""
    run, _, variant = PUBLIC[network.cell]
    weights = bptt.Weights(*vars(network.weights).values())
    pair = network.cell == "lstm"
    state: Any = (network.h, network.c) if pair else network.h
    y, final, tape = run(
        network.x,
        weights,
        state,
        network.lengths,
        network.reset,
        reverse=network.reverse,
        **variant,
    )
    return Run(y, *(final if pair else (final, None)), tape)


def backward(
    network: Network, tape: Any, reduction: str = "sum", retain: bool = False
) -> reference.Gradients:
    """bptt's backward call, its gradients under the reference's names."""
    _, run, _ = PUBLIC[network.cell]
    pair = network.cell == "lstm"
    dstate: Any = (network.dh, network.dc) if pair else network.dh
    grads = run(tape, network.dy, dstate, reduction, retain)
    h, c = grads.state if pair else (grads.state, None)
    return reference.Gradients(
        grads.x, h, c, grads.weight_ih, grads.weight_hh, grads.bias_ih, grads.bias_hh
    )


def expected(network: Network, reduction: str = "sum") -> tuple[Run, reference.Gradients]:
    """What the reference says."""
    n = network
    y, h, c, tape = reference_layers.forward(
        n.cell, n.x, n.weights, n.h, n.c, n.lengths, n.reset, n.reverse
    )
    return Run(y, h, c, tape), reference_layers.backward(tape, n.dy, n.dh, n.dc, reduction)


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    """Arrays, or every array of two runs or two gradients: shapes equal, and no difference larger
    than `tolerance` times the largest number, or times one: where all numbers are small, sums of
    numbers of order one have cancelled."""
    if not isinstance(expected, np.ndarray):
        for name in vars(expected):
            if name == "tape":
                continue
            a, e = getattr(actual, name), getattr(expected, name)
            assert (a is None) == (e is None), name
            if e is not None:
                try:
                    assert_close(a, e, tolerance)
                except AssertionError as error:
                    raise AssertionError(f"{name}: {error}") from None
        return
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    if expected.size:
        difference = float(np.abs(actual.astype(np.float64) - expected).max())
        scale = max(1.0, float(np.abs(expected).max()))
        assert difference <= tolerance * scale, f"{difference:.3g} at the scale {scale:.3g}"


def assert_same_bits(actual: Any, expected: Any) -> None:
    """As assert_close, but not a bit differs."""
    if not isinstance(expected, np.ndarray):
        for name in vars(expected):
            a, e = getattr(actual, name), getattr(expected, name)
            if name != "tape" and e is not None:
                assert (a.dtype, a.shape) == (e.dtype, e.shape), name
                assert a.tobytes() == e.tobytes(), name
        return
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == expected.tobytes()
