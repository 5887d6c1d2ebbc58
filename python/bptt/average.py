"""An exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate
from bptt.layers import Layer

__all__ = ["WeightAverage"]

Array: TypeAlias = NDArray[Any]


class WeightAverage:
    """The mean of a model's weights over its updates, the latest counting most: those of k updates
    ago count decay^k (Polyak & Juditsky 1992 for the idea; without the bias towards the start, as
    Adam's moments).

    Args:
        decay: in [0, 1): 0 is the latest weights, 0.999 about the latest thousand updates.

    Attributes:
        parameters: the average by the parameters' names, empty before the first update.
        updates: how many it is the average of.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = _validate.number("WeightAverage", "decay", decay, 0.0, 1.0)
        self.updates = 0
        self.parameters: dict[str, Array] = {}

    def update(self, parameters: Mapping[str, Array]) -> None:
        """Takes the weights after one more update into the average."""
        if self.parameters:
            _validate.same_names("WeightAverage.update", "parameters", parameters, self.parameters)
        self.updates += 1
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        for name, value in parameters.items():
            if name not in self.parameters:
                self.parameters[name] = value.copy()
            else:
                average = self.parameters[name]
                average += value.dtype.type(share) * (value - average)

    @contextmanager
    def applied(self, model: Layer) -> Iterator[None]:
        """Within `with`, the model's weights are the average; then its own again."""
        if not self.parameters:
            raise ValueError("WeightAverage.applied: there is no average before the first update")
        own = {name: value.copy() for name, value in model.parameters.items()}
        model.load_parameters(self.parameters)
        try:
            yield
        finally:
            model.load_parameters(own)

    def state_dict(self) -> dict[str, Any]:
        """A copy of the average and what its next update depends on."""
        parameters = {name: value.copy() for name, value in self.parameters.items()}
        return {"decay": self.decay, "updates": self.updates, "parameters": parameters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes a copy of what `state_dict` returned."""
        where = "WeightAverage.load_state_dict"
        _validate.same_names(where, "state", state, ("decay", "updates", "parameters"))
        decay = _validate.number(where, "state['decay']", state["decay"], 0.0, 1.0)
        updates = _validate.size(where, "state['updates']", state["updates"], minimum=0)
        for name, value in state["parameters"].items():
            _validate.instance(where, f"state['parameters'][{name!r}]", value, np.ndarray)
        self.decay, self.updates = decay, updates
        self.parameters = {name: value.copy() for name, value in state["parameters"].items()}
