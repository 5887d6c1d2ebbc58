"""States as trees: what works for the state of any layer, stack or chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bptt.layers import Layer, Sequential
from bptt.layers.base import Array, State, Stateless

__all__ = ["bidirectional", "leaves", "mapped", "refuse_bidirectional", "run", "trunk"]


def leaves(state: State) -> Iterator[Array]:
    """The arrays of a state, (layers, N, H) each, in order."""
    if isinstance(state, tuple):
        for part in state:
            yield from leaves(part)
    elif state is not None:
        yield state


def mapped(function: Callable[[Array], Array], state: State) -> State:
    """A state of the same structure with `function` of every array."""
    if isinstance(state, tuple):
        return tuple(mapped(function, part) for part in state)
    return None if state is None else function(state)


def trunk(model: Layer) -> list[Layer]:
    """The layers of a model up to the last one with a state: what a state depends on."""
    layers = list(model.layers) if isinstance(model, Sequential) else [model]
    while layers and isinstance(layers[-1], Stateless):
        layers.pop()
    return layers


def run(model: Layer, x: Array, state: State = None) -> State:
    """The model's state after all steps of x, without tapes and not in training. Layers after the
    last one with a state are not run."""
    if not isinstance(model, Sequential):
        return model.predict(x, state)[1]
    layers = trunk(model)
    given: Any = (None,) * len(model.layers) if state is None else state
    states: list[State] = [None] * len(model.layers)
    y = x
    for i, layer in enumerate(layers):
        y, states[i] = layer.predict(y, given[i])
    return tuple(states)


def bidirectional(model: Layer) -> Layer | None:
    """The first layer of a model that runs in both directions, None where all run forward."""
    if isinstance(model, Sequential):
        return next(filter(None, map(bidirectional, model.layers)), None)
    return model if getattr(model, "bidirectional", False) else None


def refuse_bidirectional(where: str, model: Layer) -> None:
    """Raises `ValueError` for a model that cannot go forward from a state alone."""
    if (layer := bidirectional(model)) is not None:
        raise ValueError(
            f"{where}: {layer!r} is bidirectional, expected layers of one direction: "
            "the other one begins at the sequence's end"
        )
