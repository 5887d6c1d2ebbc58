"""A model as the gradient sees it: recurrent layers, and the maps between them."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _core
from bptt._core import Tape
from bptt.layers import Activation, Embedding, Layer, LayerTape, Linear, Sequential
from bptt.layers.recurrent import Recurrent

Array: TypeAlias = NDArray[Any]


class Direction(NamedTuple):
    """One direction of a recurrent layer: y's units [first, first + H)."""

    name: str
    tape: Tape
    reverse: bool
    first: int


class Recurrence(NamedTuple):
    """One recurrent layer."""

    name: str
    directions: list[Direction]


class Map(NamedTuple):
    """dx = dy @ weight, at every step alike."""

    name: str
    weight: Array

    def back(self, dy: Array, first: int, last: int) -> Array:  # noqa: ARG002
        """Of the steps first..last-1; dy (last-first, ..., V)."""
        # By the core: a second pool of threads, that of NumPy's BLAS, would stand in its way.
        rows = np.ascontiguousarray(dy.reshape(1, -1, dy.shape[-1]))
        dx = _core.linear_forward(rows, np.ascontiguousarray(self.weight.T), None)
        return dx.reshape(*dy.shape[:-1], -1)


class Mask(NamedTuple):
    """dx = dy * mask: a dropout whose mask (T, N, H) is held."""

    name: str
    mask: Array

    def back(self, dy: Array, first: int, last: int) -> Array:
        mask = self.mask[first:last]
        return dy * (mask if dy.ndim == mask.ndim else mask[:, None])


class Curve(NamedTuple):
    """An activation, whose slope is that of where it was: y (T, N, V)."""

    name: str
    nonlinearity: str
    y: Array

    def back(self, dy: Array, first: int, last: int) -> Array:
        y = self.y[first:last]
        if y.ndim < dy.ndim:  # dy has slots
            y = np.broadcast_to(y[:, None], dy.shape)
        return _core.activation_backward(self.nonlinearity, y, dy)


class Other(NamedTuple):
    """A layer whose backward is its own affair."""

    name: str
    layer: Layer
    tape: LayerTape


Stage: TypeAlias = Recurrence | Map | Curve | Mask | Other


def stages(layer: Layer, tape: LayerTape, name: str = "") -> list[Stage]:
    """The stages of a layer that ran forward, first to last. `name` as the parameters' prefix."""
    if isinstance(layer, Sequential):
        found: list[Stage] = []
        for i, (part, its_tape) in enumerate(zip(layer.layers, tape.kept, strict=True)):
            found += stages(part, its_tape, f"{name}.{i}" if name else str(i))
        return found
    if isinstance(layer, Linear):
        return [Map(name, layer.parameters["weight"])]
    if isinstance(layer, Activation):
        return [Curve(name, layer.nonlinearity, tape.kept)]
    if isinstance(layer, Recurrent):
        return _layers(layer, tape, name)
    return [Other(name, layer, tape)]


def _layers(layer: Recurrent, tape: LayerTape, name: str) -> list[Stage]:
    """A recurrent layer's own stack, with the dropout between its layers."""
    found: list[Stage] = []
    for k in range(layer.num_layers):
        if k > 0 and tape.kept.masks:
            scale = layer.dtype.type(1 / (1 - layer.dropout))
            found.append(Mask(name, tape.kept.masks[k - 1] * scale))
        one_of_many = layer.num_layers > 1 or layer.bidirectional
        own = f"{name}.l{k}".lstrip(".") if one_of_many else name
        tapes = tape.kept.tapes[k * layer.directions : (k + 1) * layer.directions]
        found.append(
            Recurrence(
                own,
                [
                    Direction(own + "_reverse" * d, its_tape, d == 1, d * layer.hidden_size)
                    for d, its_tape in enumerate(tapes)
                ],
            )
        )
    return found


def name_of(stage: Stage) -> str:
    """What a sentence calls it."""
    kind = type(stage.layer if isinstance(stage, Other) else stage).__name__
    return f"layer {stage.name} ({kind})" if stage.name else kind


def last_needed(found: list[Stage]) -> int:
    """The lowest recurrence: what is below it concerns no recurrent weight.

    Raises `ValueError` where there is none, or where the gradient's way from the uppermost to the
    lowest leads through a layer that can't be followed.
    """
    places = [i for i, stage in enumerate(found) if isinstance(stage, Recurrence)]
    if not places:
        raise ValueError(
            "gradient_flow: model has no recurrent layer (RNN, LSTM, GRU), expected at least one"
        )
    for stage in found[places[0] : places[-1]]:
        if isinstance(stage, Other):
            raise ValueError(
                f"gradient_flow: {name_of(stage)} stands between recurrent layers and can't be "
                f"followed lag by lag, expected Linear, Activation or recurrent layers there"
            )
    if any(isinstance(s, Other) and isinstance(s.layer, Embedding) for s in found[places[0] :]):
        raise ValueError("gradient_flow: model has an Embedding above a recurrent layer")
    return places[0]
