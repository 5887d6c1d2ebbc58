"""The recurrent layers: RNN, LSTM and GRU, in stacks and in both directions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from bptt import _core, _validate
from bptt.functions import NONLINEARITIES, Weights, gru_cell
from bptt.layers.base import Array, Layer, LayerGradients, LayerTape, State

_Row = tuple[Any, Any]  # h and c of one layer in one direction, each (N, H) or None


class _Kept(NamedTuple):
    """What a tape keeps."""

    tapes: list[_core.Tape]  #: layer by layer, forward direction first
    masks: list[Array]  #: of the dropout before each layer but the first, where there was one
    given: _Row  #: whether h and c were, or the learned initial state stood for them


class Recurrent(Layer):
    """What the three recurrent layers have in common.

    x is (T, N, input_size), y (T, N, directions * hidden_size): the last layer's hidden states, the
    forward direction's first. A layer's state is stacked as PyTorch's, (num_layers * directions, N,
    H) in the order layer 0 forward, layer 0 backward, layer 1 forward, ...: h, or for the LSTM the
    pair (h, c). The backward direction of a layer begins at each sequence's own end, lengths[n] -
    1, and ends at step 0, whose state is its final one. reset[t] parts step t from step t-1 in both
    directions: sequences that stand end to end in one stream are as good as alone.

    Parameters: for each layer k weight_ih_l{k} (G*H, D), weight_hh_l{k} (G*H, H) and, with `bias`,
    bias_ih_l{k} (G*H,) and bias_hh_l{k} (G*H,), and with `bidirectional` the same with the ending
    _reverse; D of the layers above the first is directions * H. All are drawn from
    U(-1/sqrt(H), 1/sqrt(H)) as PyTorch does; `bptt.init` has other ways. With `learn_initial_state`
    there are initial_h and, in the LSTM, initial_c, (num_layers * directions, H), which begin at
    zero.
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
        learn_initial_state: bool,
    ) -> None:
        where = type(self).__name__
        self.input_size = _validate.size(where, "input_size", input_size)
        self.hidden_size = _validate.size(where, "hidden_size", hidden_size)
        self.num_layers = _validate.size(where, "num_layers", num_layers)
        self.bidirectional = _validate.flag(where, "bidirectional", bidirectional)
        self.dropout = _validate.number(where, "dropout", dropout, 0.0, 1.0)
        self.bias = _validate.flag(where, "bias", bias)
        self.dtype = _validate.float_dtype(where, dtype)
        self.learn_initial_state = _validate.flag(where, "learn_initial_state", learn_initial_state)
        if self.dropout > 0 and self.num_layers == 1:
            raise ValueError(
                f"{where}: dropout is {self.dropout}, expected 0 with num_layers = 1: "
                "it acts between layers"
            )
        self._random = _validate.random_generator(where, seed)

        H, GH = self.hidden_size, self._gates * self.hidden_size
        bound = 1.0 / math.sqrt(H)
        self._weights = []
        for layer in range(self.num_layers):
            D = self.input_size if layer == 0 else self.directions * H
            shapes: list[tuple[int, ...]] = [(GH, D), (GH, H)] + [(GH,), (GH,)] * self.bias
            for _ in range(self.directions):
                drawn = (self._random.uniform(-bound, bound, shape) for shape in shapes)
                self._weights.append(Weights(*(array.astype(self.dtype) for array in drawn)))
        self._parameters = self._named(self._weights)
        if self.learn_initial_state:
            for name in ("initial_h", "initial_c")[: 1 + self._has_c]:
                self._parameters[name] = np.zeros((self._rows, H), self.dtype)

    @property
    def directions(self) -> int:
        """2 in a bidirectional layer, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def random_state(self) -> Any:
        return self._random.bit_generator.state

    @random_state.setter
    def random_state(self, state: Any) -> None:
        try:
            self._random.bit_generator.state = state
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"{type(self).__name__}: random_state is {state!r}, "
                f"expected what random_state was ({error})"
            ) from None

    @property
    def _rows(self) -> int:
        """How many states are stacked."""
        return self.num_layers * self.directions

    def _of_layer(self, layer: int) -> slice:
        """Which of the weights, stacked states and tapes are a layer's."""
        return slice(layer * self.directions, (layer + 1) * self.directions)

    def _named(self, weights: Iterable[Iterable[Any]]) -> dict[str, Array]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        found = {}
        for i, arrays in enumerate(weights):
            layer, reverse = divmod(i, self.directions)
            ending = f"_l{layer}" + "_reverse" * reverse
            for name, array in zip(names, arrays, strict=True):
                if array is not None:
                    found[name + ending] = array
        return found

    def __repr__(self) -> str:
        options = {"num_layers": 1, "bidirectional": False, "dropout": 0.0}
        options["learn_initial_state"] = False
        given = [f", {n}={getattr(self, n)}" for n, v in options.items() if getattr(self, n) != v]
        sizes = f"{self.input_size}, {self.hidden_size}"
        return f"{type(self).__name__}({sizes}{''.join(given)}, bias={self.bias})"

    def forward(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,
        reset: Array | None = None,
        training: bool = True,
    ) -> tuple[Array, State, LayerTape]:
        """As `Layer.forward`. With `training`, dropout draws a new mask between each two layers.

        A state that is None, whole or within the LSTM's pair, is zero, or the learned one.
        """
        training = _validate.flag(f"{type(self).__name__}.forward", "training", training)
        y, state, kept = self._run("forward", x, state, lengths, reset, True, training)
        return y, state, LayerTape(self, kept)

    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: State = None, retain: bool = False
    ) -> LayerGradients:
        """As `Layer.backward`: dy (T, N, directions * H), dstate stacked as the state."""
        kept: _Kept = self._open(tape)
        rows = self._unstack("backward", "dstate", dstate)
        H = self.hidden_size
        if self.bidirectional and dy is not None:
            T, N = kept.tapes[-1].shape[:2]
            if not isinstance(dy, np.ndarray) or dy.shape != (T, N, 2 * H):
                where = f"{type(self).__name__}.backward"
                raise _not_this(where, "dy", dy, f"(T, N, 2*H) = {(T, N, 2 * H)}")
        found: list[Any] = [None] * self._rows
        for layer in reversed(range(self.num_layers)):
            its = self._of_layer(layer)
            dx: Any
            if self.bidirectional:
                halves = (None, None) if dy is None else (dy[..., :H], dy[..., H:])
                dh, dc = zip(*rows[its], strict=True)
                (dx, *found[its.start]), (dx_reverse, *found[its.start + 1]) = _core.backward_both(
                    kept.tapes[its], self._family, halves, dh, dc, retain
                )
                dx += dx_reverse
            else:
                dx, *found[layer] = _core.backward(
                    kept.tapes[layer], self._family, dy, *rows[layer], "sum", retain
                )
            if not retain:
                del kept.tapes[its]
            dy = dx
            if layer > 0 and kept.masks:
                dy *= kept.masks[layer - 1]
                dy *= self.dtype.type(1 / (1 - self.dropout))
        if not retain:
            self._close(tape)
        dh, dc = self._stack([f[0] for f in found]), self._stack([f[1] for f in found])
        parameters = self._named(f[2:] for f in found)
        if self.learn_initial_state:
            for name, d, given in zip(
                ("initial_h", "initial_c"), (dh, dc), kept.given, strict=True
            ):
                if name in self._parameters:
                    zero = np.zeros_like(self._parameters[name])
                    parameters[name] = zero if given else d.sum(axis=1)
        return LayerGradients(dy, (dh, dc) if self._has_c else dh, parameters)

    def predict(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,
        reset: Array | None = None,
    ) -> tuple[Array, State]:
        y, state, _ = self._run("predict", x, state, lengths, reset, False, False)
        return y, state

    def step(self, x_t: Array, state: State = None) -> tuple[Array, State]:
        """As `Layer.step`. A bidirectional layer has no step: it is a `ValueError`."""
        where = f"{type(self).__name__}.step"
        if self.bidirectional:
            raise ValueError(
                f"{where}: the layer is bidirectional, and its backward direction begins at the "
                "end of the sequence, expected a layer of one direction"
            )
        if not isinstance(x_t, np.ndarray) or x_t.ndim != 2:
            raise _not_this(where, "x_t", x_t, f"(N, {self.input_size})")
        y, state, _ = self._run("step", x_t[None], state, None, None, False, False)
        return y[0], state

    def _run(
        self,
        method: str,
        x: Array,
        state: State,
        lengths: Array | None,
        reset: Array | None,
        keep: bool,
        training: bool,
    ) -> tuple[Array, State, _Kept]:
        """All layers, one after the other."""
        rows = self._unstack(method, "state", state)
        given = (rows[0][0] is not None, rows[0][1] is not None)
        if self.learn_initial_state:
            rows = self._learned(x, rows)
        kept = _Kept([], [], given)
        finals = []
        for layer in range(self.num_layers):
            if layer > 0 and training and self.dropout > 0:
                x, mask = self._drop(x)
                kept.masks.append(mask)
            ys = []
            for y, h, c, tape in self._layer(x, layer, rows, lengths, reset, keep):
                ys.append(y)
                finals.append((h, c))
                kept.tapes.append(tape)
            x = ys[0] if len(ys) == 1 else np.concatenate(ys, axis=2)
        h, c = (self._stack(list(arrays)) for arrays in zip(*finals, strict=True))
        return x, (h, c) if self._has_c else h, kept

    def _layer(
        self,
        x: Array,
        layer: int,
        rows: list[_Row],
        lengths: Array | None,
        reset: Array | None,
        keep: bool,
    ) -> Any:
        """One layer: for each direction y, h, c and the tape."""
        try:
            if not self.bidirectional:
                weights, row = self._weights[layer], rows[layer]
                return [_core.forward(self._cell, x, *weights, *row, lengths, reset, keep)]
            its = self._of_layer(layer)
            h, c = zip(*rows[its], strict=True)
            return _core.forward_both(self._cell, x, self._weights[its], h, c, lengths, reset, keep)
        except (TypeError, ValueError):
            # The core would name the weights where they do not fit x; here it is x that does not.
            if layer == 0:
                _validate.layer_input(type(self).__name__, x, self.dtype, self.input_size)
            raise

    def _drop(self, y: Array) -> tuple[Array, Array]:
        """Inverted dropout (Srivastava et al. 2014): what stays is scaled, so nothing is to be done
        where there is none. Returns the mask of what stays."""
        mask = self._random.random(y.shape, np.float32) >= self.dropout
        y = y * mask
        y *= self.dtype.type(1 / (1 - self.dropout))
        return y, mask

    def _learned(self, x: Array, rows: list[_Row]) -> list[_Row]:
        """The rows, with the learned initial state for what is None."""
        N = x.shape[1] if isinstance(x, np.ndarray) and x.ndim == 3 else 0

        def row(name: str, i: int, given: Any) -> Any:
            if given is not None or name not in self._parameters:
                return given
            return np.repeat(self._parameters[name][i : i + 1], N, axis=0)

        return [(row("initial_h", i, h), row("initial_c", i, c)) for i, (h, c) in enumerate(rows)]

    @staticmethod
    def _stack(arrays: list[Any]) -> Any:
        """(rows, N, H), or None where there is nothing."""
        if arrays[0] is None:
            return None
        return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)

    def _unstack(self, method: str, name: str, state: State) -> list[_Row]:
        """h and c of each layer and direction; what is None stays None."""
        if state is None:
            return [(None, None)] * self._rows
        if not self._has_c:
            return [(h, None) for h in self._split(method, name, state)]
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            where = f"{type(self).__name__}.{method}"
            raise _not_this(where, name, state, "a pair (h, c)")
        h, c = (self._split(method, f"{name}[{i}]", part) for i, part in enumerate(state))
        return list(zip(h, c, strict=True))

    def _split(self, method: str, name: str, stacked: Any) -> list[Any]:
        if stacked is None:
            return [None] * self._rows
        if isinstance(stacked, np.ndarray) and stacked.ndim == 3 and len(stacked) == self._rows:
            return list(stacked)
        where = f"{type(self).__name__}.{method}"
        letters = "num_layers, N, H" if self.directions == 1 else "num_layers*directions, N, H"
        raise _not_this(
            where, name, stacked, f"({letters}) = ({self._rows}, N, {self.hidden_size})"
        )


def _not_this(where: str, name: str, given: object, wanted: str) -> Exception:
    if isinstance(given, np.ndarray):
        return ValueError(f"{where}: {name} has shape {given.shape}, expected {wanted}")
    return TypeError(f"{where}: {name} is a {type(given).__name__}, expected {wanted}")


class RNN(Recurrent):
    """`h_t = phi(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)` (Elman 1990).

    Args:
        input_size: D >= 1.
        hidden_size: H >= 1.
        num_layers: >= 1, one upon the other: the y of one is the x of the next.
        bidirectional: whether each layer also runs from the end to the beginning.
        dropout: in [0, 1): the share of each layer's y that is zero for the next layer, in
            training; 0 with one layer, for it acts between layers.
        bias: whether there are the two biases.
        dtype: float32 or float64.
        seed: an integer >= 0 for the same parameters and dropout every time, or None.
        learn_initial_state: whether the initial state is a parameter, used where none is given.
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
        learn_initial_state: bool = False,
    ) -> None:
        self._cell = _validate.choice("RNN", "nonlinearity", nonlinearity, NONLINEARITIES)
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bidirectional,
            dropout,
            bias,
            dtype,
            seed,
            learn_initial_state,
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
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bidirectional,
            dropout,
            bias,
            dtype,
            seed,
            learn_initial_state,
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
        learn_initial_state: bool = False,
    ) -> None:
        self._cell = gru_cell("GRU", reset_after)
        self.reset_after = bool(reset_after)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bidirectional,
            dropout,
            bias,
            dtype,
            seed,
            learn_initial_state,
        )
