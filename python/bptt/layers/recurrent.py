"""The recurrent layers: RNN, LSTM and GRU."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from bptt import _core, _validate
from bptt.functions import NONLINEARITIES, Weights, gru_cell
from bptt.layers.base import Array, Layer, LayerGradients, LayerTape, State


class Recurrent(Layer):
    """What the three recurrent layers have in common.

    A layer's state is stacked as PyTorch's, (num_layers * directions, N, H): h, or for the LSTM the
    pair (h, c). x is (T, N, input_size), y (T, N, hidden_size).

    Parameters: weight_ih_l0 (G*H, D), weight_hh_l0 (G*H, H) and, with `bias`, bias_ih_l0 (G*H,) and
    bias_hh_l0 (G*H,), all drawn from U(-1/sqrt(H), 1/sqrt(H)) as PyTorch does.
    """

    _gates: ClassVar[int]
    _has_c: ClassVar[bool] = False
    _family: ClassVar[str]  # whose backward it is
    _cell: str  # whose forward it is

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
        bias: bool,
        dtype: DTypeLike,
        seed: int | None,
    ) -> None:
        where = type(self).__name__
        self.input_size = _validate.size(where, "input_size", input_size)
        self.hidden_size = _validate.size(where, "hidden_size", hidden_size)
        self.num_layers = _validate.size(where, "num_layers", num_layers)
        self.bidirectional = _validate.flag(where, "bidirectional", bidirectional)
        self.dropout = _validate.number(where, "dropout", dropout, 0.0, 1.0)
        self.bias = _validate.flag(where, "bias", bias)
        self.dtype = _validate.float_dtype(where, dtype)
        random = _validate.random_generator(where, seed)
        if self.num_layers > 1:
            raise NotImplementedError(f"{where}: num_layers > 1 is not there yet; use Sequential")
        if self.bidirectional:
            raise NotImplementedError(f"{where}: bidirectional=True is not there yet")
        if self.dropout > 0:
            raise NotImplementedError(f"{where}: dropout > 0 is not there yet")

        H, D, GH = self.hidden_size, self.input_size, self._gates * self.hidden_size
        bound = 1.0 / math.sqrt(H)
        shapes: list[tuple[int, ...]] = [(GH, D), (GH, H)] + [(GH,), (GH,)] * self.bias
        self._weights = Weights(
            *(random.uniform(-bound, bound, shape).astype(self.dtype) for shape in shapes)
        )
        self._parameters = self._named(self._weights)

    @staticmethod
    def _named(weights: Any) -> dict[str, Array]:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        return {n: w for n, w in zip(names, weights, strict=True) if w is not None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}, bias={self.bias})"

    def forward(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,
        reset: Array | None = None,
        training: bool = True,  # noqa: ARG002 (without dropout, training changes nothing)
    ) -> tuple[Array, State, LayerTape]:
        h, c = self._unstack("forward", "state", state)
        y, h, c, tape = self._run(x, h, c, lengths, reset, True)
        return y, self._stack(h, c), LayerTape(self, tape)

    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: State = None, retain: bool = False
    ) -> LayerGradients:
        kept = self._open(tape)
        dh, dc = self._unstack("backward", "dstate", dstate)
        dx, dh, dc, *dweights = _core.backward(kept, self._family, dy, dh, dc, False, retain)
        if not retain:
            self._close(tape)
        return LayerGradients(dx, self._stack(dh, dc), self._named(dweights))

    def predict(self, x: Array, state: State = None) -> tuple[Array, State]:
        h, c = self._unstack("predict", "state", state)
        y, h, c, _ = self._run(x, h, c, None, None, False)
        return y, self._stack(h, c)

    def step(self, x_t: Array, state: State = None) -> tuple[Array, State]:
        if not isinstance(x_t, np.ndarray) or x_t.ndim != 2:
            raise _not_this(type(self).__name__ + ".step", "x_t", x_t, f"(N, {self.input_size})")
        h, c = self._unstack("step", "state", state)
        y, h, c, _ = self._run(x_t[None], h, c, None, None, False)
        return y[0], self._stack(h, c)

    def _run(self, x: Array, *rest: Any) -> Any:
        try:
            return _core.forward(self._cell, x, *self._weights, *rest)
        except (TypeError, ValueError):
            # The core would name the weights where they do not fit x; here it is x that does not.
            _validate.layer_input(type(self).__name__, x, self.dtype, self.input_size)
            raise

    def _stack(self, h: Array, c: Array | None) -> State:
        return h[None] if c is None else (h[None], c[None])

    def _unstack(self, method: str, name: str, state: State) -> tuple[Any, Any]:
        """h and c, each (N, H), of a stacked state; what is None stays None."""
        if state is None:
            return None, None
        if not self._has_c:
            return self._row(method, name, state), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            where = f"{type(self).__name__}.{method}"
            raise _not_this(where, name, state, "a pair (h, c)")
        h, c = state
        return self._row(method, f"{name}[0]", h), self._row(method, f"{name}[1]", c)

    def _row(self, method: str, name: str, stacked: Any) -> Array | None:
        if stacked is None:
            return None
        if isinstance(stacked, np.ndarray) and stacked.ndim == 3 and len(stacked) == 1:
            return stacked[0]  # type: ignore[no-any-return]
        where = f"{type(self).__name__}.{method}"
        raise _not_this(where, name, stacked, f"(num_layers, N, H) = (1, N, {self.hidden_size})")


def _not_this(where: str, name: str, given: object, wanted: str) -> Exception:
    if isinstance(given, np.ndarray):
        return ValueError(f"{where}: {name} has shape {given.shape}, expected {wanted}")
    return TypeError(f"{where}: {name} is a {type(given).__name__}, expected {wanted}")


class RNN(Recurrent):
    """`h_t = phi(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)` (Elman 1990).

    Args:
        input_size: D >= 1.
        hidden_size: H >= 1.
        num_layers, bidirectional, dropout: more than one layer, both directions and dropout raise
            `NotImplementedError` for now.
        bias: whether there are the two biases.
        dtype: float32 or float64.
        seed: an integer >= 0 for the same parameters every time, or None.
        nonlinearity: phi: "tanh", "relu" or "identity".
    """

    _gates = 1
    _family = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
        nonlinearity: str = "tanh",
    ) -> None:
        self._cell = _validate.choice("RNN", "nonlinearity", nonlinearity, NONLINEARITIES)
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size, hidden_size, num_layers, bidirectional, dropout, bias, dtype, seed
        )


class LSTM(Recurrent):
    """The LSTM (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000), gates i, f, g, o.

    Its state is the pair (h, c). Arguments as `RNN`'s.
    """

    _gates = 4
    _has_c = True
    _family = _cell = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bidirectional, dropout, bias, dtype, seed
        )


class GRU(Recurrent):
    """The GRU (Cho et al. 2014), gates r, z, n.

    Arguments as `RNN`'s; `reset_after` says whether r acts after the recurrent product (PyTorch,
    cuDNN, Keras) or before it (Cho et al., ONNX by default).
    """

    _gates = 3
    _family = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
        reset_after: bool = True,
    ) -> None:
        self._cell = gru_cell("GRU", reset_after)
        self.reset_after = bool(reset_after)
        super().__init__(
            input_size, hidden_size, num_layers, bidirectional, dropout, bias, dtype, seed
        )
