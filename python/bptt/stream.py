"""One sequence in real time: a recurrent layer that is fed one step after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bptt import _core, _validate
from bptt.layers import GRU, LSTM, RNN
from bptt.layers.base import Array, State


class Stream:
    """A recurrent layer that runs one sequence, one step at a time, with its state inside.

    The weights are copied, packed for the processor, when the stream is made: later changes of the
    layer's parameters do not reach it. A step gives the bits that `layer.predict` gives, starts no
    thread, and costs a fraction of `layer.step`. One thread of Python uses a stream at a time.

    Args:
        layer: an `RNN`, `LSTM` or `GRU` of one layer and one direction.
        state: the state to start from, stacked as the layer's: h (1, 1, H), for the LSTM the pair
            (h, c) of them; None, whole or within, is what the layer starts from: zero, or its
            learned initial state.

    `step(x_t)` takes x_t (D,) in the layer's dtype, returns the new hidden state y_t (H,) and keeps
    it as the state.

    Errors: `TypeError` for another kind of layer, of argument or of dtype; `ValueError` for shapes.
    """

    __slots__ = ("_hidden_size", "_initial", "_is_pair", "_stream", "step")

    step: Callable[[Array], Array]

    def __init__(self, layer: RNN | LSTM | GRU, state: State = None) -> None:
        if not isinstance(layer, (RNN, LSTM, GRU)):
            raise TypeError(
                f"Stream: layer is a {type(layer).__name__}, expected an RNN, LSTM or GRU"
            )
        if layer.num_layers > 1 or layer.bidirectional:
            raise ValueError(
                f"Stream: layer has num_layers={layer.num_layers}, "
                f"bidirectional={layer.bidirectional}, expected one layer and one direction"
            )
        self._hidden_size = layer.hidden_size
        self._is_pair = isinstance(layer, LSTM)
        learned = (layer.parameters.get(name) for name in ("initial_h", "initial_c"))
        self._initial = [None if state is None else state.copy() for state in learned]
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        w_ih, w_hh, b_ih, b_hh = (layer.parameters.get(name) for name in names)
        assert w_ih is not None
        assert w_hh is not None
        h, c = self._unstack("Stream", state)
        self._stream = _core.Stream(layer._cell, w_ih, w_hh, b_ih, b_hh, h, c)
        self.step = self._stream.step  # the core's own method: nothing of Python in between

    @property
    def state(self) -> State:
        """A copy of the state, stacked as the layer's: h (1, 1, H) or the pair (h, c)."""
        h, c = self._stream.state()
        return h[None] if c is None else (h[None], c[None])

    def reset(self, state: State = None) -> None:
        """Sets the state; None, whole or within, is what the stream's layer started from when the
        stream was made."""
        self._stream.reset(*self._unstack("Stream.reset", state))

    def _unstack(self, where: str, state: Any) -> tuple[Array | None, Array | None]:
        """h and c, each (1, H)."""
        if state is None:
            state = (None, None)
        elif not self._is_pair:
            return self._row(where, "state", state), None
        elif not isinstance(state, (tuple, list)):
            raise TypeError(_validate.expected(where, "state", "a pair (h, c)", state))
        elif len(state) != 2:
            raise ValueError(f"{where}: state has {len(state)} entries, expected a pair (h, c)")
        h, c = (
            initial if given is None else self._row(where, f"state[{i}]", given)
            for i, (given, initial) in enumerate(zip(state, self._initial, strict=True))
        )
        return h, c

    def _row(self, where: str, name: str, stacked: Any) -> Array:
        _validate.instance(where, name, stacked, np.ndarray)
        wanted = (1, 1, self._hidden_size)
        if stacked.shape != wanted:
            raise ValueError(f"{where}: {name} has shape {stacked.shape}, expected {wanted}")
        return stacked[0]  # type: ignore[no-any-return]
