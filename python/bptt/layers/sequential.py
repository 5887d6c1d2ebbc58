"""A chain of layers that is a layer."""

from __future__ import annotations

from typing import Any

from bptt import _validate
from bptt.layers.base import Array, Layer, LayerGradients, LayerTape, State


class Sequential(Layer):
    """Layers one after the other: the y of one is the x of the next.

    Parameters are named as PyTorch's: "0.weight", "1.weight_ih_l0", "2.bias". The state is a tuple
    with one entry a layer, None for a layer without a state. `lengths` and `reset` go to every
    layer.

    Args:
        layers: at least one, each reading as many numbers a step as the one before it gives
            (`Layer.output_size`), no array of parameters twice among them: an optimizer would
            update it twice. What does not fit is a `ValueError`.
    """

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ValueError("Sequential: there are no layers, expected at least one")
        for i, layer in enumerate(layers):
            _validate.instance("Sequential", f"layers[{i}]", layer, Layer)
        self.layers = layers
        self.output_size(None)
        self._parameters = {
            f"{i}.{name}": array
            for i, layer in enumerate(layers)
            for name, array in layer.parameters.items()
        }
        names: dict[int, str] = {}
        for name, array in self._parameters.items():
            if id(array) in names:
                raise ValueError(
                    f"Sequential: {name} and {names[id(array)]} are one array, expected two"
                )
            names[id(array)] = name

    def _prepare(self) -> None:
        for layer in self.layers:
            layer._prepare()

    def __repr__(self) -> str:
        return f"Sequential({', '.join(map(repr, self.layers))})"

    def output_size(self, input_size: int | None) -> int | None:
        """The last layer's."""
        for i, layer in enumerate(self.layers):
            try:
                input_size = layer.output_size(input_size)
            except ValueError as error:
                raise ValueError(f"Sequential: layers[{i}]: {error}") from None
        return input_size

    @property
    def random_state(self) -> Any:
        """One entry a layer."""
        return [layer.random_state for layer in self.layers]

    @random_state.setter
    def random_state(self, state: Any) -> None:
        if not isinstance(state, (tuple, list)) or len(state) != len(self.layers):
            raise ValueError(
                f"Sequential: random_state is {state!r}, "
                f"expected one entry for each of {len(self.layers)} layers"
            )
        before = self.random_state
        try:
            for layer, its_state in zip(self.layers, state, strict=True):
                layer.random_state = its_state
        except ValueError:
            for layer, its_state in zip(self.layers, before, strict=True):
                layer.random_state = its_state
            raise

    def forward(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,
        reset: Array | None = None,
        training: bool = True,
    ) -> tuple[Array, State, LayerTape]:
        given = self._split("forward", "state", state)
        states, tapes = [], []
        before = self.random_state if training else None
        try:
            for layer, its_state in zip(self.layers, given, strict=True):
                x, new_state, tape = layer.forward(x, its_state, lengths, reset, training)
                states.append(new_state)
                tapes.append(tape)
        except BaseException:
            if before is not None:  # what was refused has drawn nothing, in no layer
                self.random_state = before
            raise
        return x, tuple(states), LayerTape(self, tapes)

    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: State = None, retain: bool = False
    ) -> LayerGradients:
        self.check_backward(tape, dstate)  # of all layers, before the last one consumes its tape
        tapes = self._open(tape)
        dstates = self._split("backward", "dstate", dstate)
        found: list[LayerGradients] = []
        for layer, its_tape, its_dstate in zip(
            reversed(self.layers), reversed(tapes), reversed(dstates), strict=True
        ):
            found.append(layer.backward(its_tape, dy, its_dstate, retain))
            dy = found[-1].x
        found.reverse()
        if not retain:
            self._close(tape)
        parameters = {
            f"{i}.{name}": array
            for i, gradients in enumerate(found)
            for name, array in gradients.parameters.items()
        }
        return LayerGradients(dy, tuple(g.state for g in found), parameters)

    def check_backward(self, tape: LayerTape, dstate: State = None) -> None:
        its = zip(self._open(tape), self._split("backward", "dstate", dstate), strict=True)
        for layer, (its_tape, its_dstate) in zip(self.layers, its, strict=True):
            layer.check_backward(its_tape, its_dstate)

    def predict(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,
        reset: Array | None = None,
    ) -> tuple[Array, State]:
        states = []
        for layer, its_state in zip(
            self.layers, self._split("predict", "state", state), strict=True
        ):
            x, new_state = layer.predict(x, its_state, lengths, reset)
            states.append(new_state)
        return x, tuple(states)

    def step(self, x_t: Array, state: State = None) -> tuple[Array, State]:
        states = []
        for layer, its_state in zip(self.layers, self._split("step", "state", state), strict=True):
            x_t, new_state = layer.step(x_t, its_state)
            states.append(new_state)
        return x_t, tuple(states)

    def _split(self, method: str, name: str, state: State) -> tuple[Any, ...]:
        """One state for each layer."""
        if state is None:
            return (None,) * len(self.layers)
        if not isinstance(state, (tuple, list)):
            raise TypeError(
                f"Sequential.{method}: {name} is a {type(state).__name__}, "
                "expected a tuple with one entry a layer"
            )
        if len(state) != len(self.layers):
            raise ValueError(
                f"Sequential.{method}: {name} has {len(state)} entries, "
                f"expected one for each of {len(self.layers)} layers"
            )
        return tuple(state)
