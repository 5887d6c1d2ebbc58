"""The recurrent layers: RNN, LSTM and GRU, in stacks and in both directions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from bptt import _core, _validate
from bptt.functions import NONLINEARITIES, gru_cell
from bptt.layers.base import Array, Layer, LayerGradients, LayerTape, State


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
    _cell: str  # the core's name of it

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
        self._parameters = {}
        for i in range(self._rows):
            D = self.input_size if i < self.directions else self.directions * H
            for name, shape in zip(self._names(i), ((GH, D), (GH, H), (GH,), (GH,)), strict=False):
                drawn = self._random.uniform(-bound, bound, shape)
                self._parameters[name] = drawn.astype(self.dtype)
        if self.learn_initial_state:
            for name in ("initial_h", "initial_c")[: 1 + self._has_c]:
                self._parameters[name] = np.zeros((self._rows, H), self.dtype)
        self._stack = self._new_stack()

    def _names(self, row: int) -> list[str]:
        """What the parameters of one layer in one direction are called."""
        layer, reverse = divmod(row, self.directions)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
        return [f"{name}_l{layer}" + "_reverse" * reverse for name in names]

    def _new_stack(self) -> _core.Recurrent:
        """The core's layer, over the parameters' memory."""
        found = self._parameters
        names = [(*self._names(i), "", "")[:4] for i in range(self._rows)]
        return _core.Recurrent(
            type(self).__name__,
            self._cell,
            self.num_layers,
            self.bidirectional,
            self.dropout,
            [tuple(map(found.get, its)) for its in names],
            found.get("initial_h"),
            found.get("initial_c"),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_stack"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._stack = self._new_stack()

    @property
    def directions(self) -> int:
        """2 in a bidirectional layer, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def random_state(self) -> Any:
        return self._random.bit_generator.state

    @random_state.setter
    def random_state(self, state: Any) -> None:
        _validate.load_random_state(type(self).__name__, "random_state", self._random, state)

    @property
    def _rows(self) -> int:
        """How many states are stacked."""
        return self.num_layers * self.directions

    def output_size(self, input_size: int | None) -> int | None:
        """directions * hidden_size."""
        _validate.reads(self, self.input_size, input_size)
        return self.directions * self.hidden_size

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
        if not isinstance(training, bool):
            training = _validate.flag(f"{type(self).__name__}.forward", "training", training)
        masks, before = [], None
        if training and self.dropout > 0 and isinstance(x, np.ndarray) and x.ndim == 3:
            before = self.random_state
            masks = self._masks(*x.shape[:2])
        try:
            y, state, kept = self._stack.forward(x, state, lengths, reset, masks)
        except BaseException:
            if before is not None:  # what was refused has drawn nothing
                self.random_state = before
            raise
        return y, state, LayerTape(self, kept)

    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: State = None, retain: bool = False
    ) -> LayerGradients:
        """As `Layer.backward`: dy (T, N, directions * H), dstate stacked as the state."""
        found = self._stack.backward(self._open(tape), dy, dstate, retain)
        if not retain:
            self._close(tape)
        return LayerGradients._make(found)

    def check_backward(self, tape: LayerTape, dstate: State = None) -> None:
        self._stack.check_backward(self._open(tape), dstate)

    def predict(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,
        reset: Array | None = None,
    ) -> tuple[Array, State]:
        return self._stack.predict(x, state, lengths, reset)

    def _prepare(self) -> None:
        self._stack.prepare()

    def step(self, x_t: Array, state: State = None) -> tuple[Array, State]:
        """As `Layer.step`. A bidirectional layer has no step: it is a `ValueError`."""
        return self._stack.step(x_t, state)

    def _masks(self, T: int, N: int) -> list[Array]:
        """What stays of each layer's y for the next one. What stays is scaled by the core (inverted
        dropout, Srivastava et al. 2014), so that nothing is to be done where there is none."""
        shape = (T, N, self.directions * self.hidden_size)
        above = range(1, self.num_layers)
        return [self._random.random(shape, np.float32) >= self.dropout for _ in above]


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
        shape = (input_size, hidden_size, num_layers, bidirectional)
        super().__init__(*shape, dropout, bias, dtype, seed, learn_initial_state)


class LSTM(Recurrent):
    """The LSTM (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000), gates i, f, g, o.

    Its state is the pair (h, c). Arguments as `RNN`'s.
    """

    _gates = 4
    _has_c = True
    _cell = "lstm"


class GRU(Recurrent):
    """The GRU (Cho et al. 2014), gates r, z, n.

    Arguments as `RNN`'s; `reset_after` says whether r acts after the recurrent product (PyTorch,
    cuDNN, Keras) or before it (Cho et al., ONNX by default).
    """

    _gates = 3

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
        shape = (input_size, hidden_size, num_layers, bidirectional)
        super().__init__(*shape, dropout, bias, dtype, seed, learn_initial_state)
