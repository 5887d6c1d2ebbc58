"""The two kinds of data that a `Trainer` runs over: long streams, and separate sequences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate, states
from bptt.layers import Layer
from bptt.layers.base import State
from bptt.losses import Loss, length_mask
from bptt.schedule import Schedule, TruncatedBPTT, Update

__all__ = ["Data", "Sequences", "Streams"]

Array: TypeAlias = NDArray[Any]

_STEPS_AT_ONCE = 256  # of a stream that is evaluated


class Step(NamedTuple):
    """An update's gradients, and where in its epoch the data go on after it."""

    update: Update
    position: int | None  #: None: nowhere but at the next epoch's beginning
    state: State  #: the model's there


class Data(ABC):
    """Inputs and targets, and how a model is run over them."""

    @property
    @abstractmethod
    def steps(self) -> int | None:
        """Time steps of an epoch, where they are always as many."""

    @abstractmethod
    def windows(self, schedule: Schedule | None) -> int | None:
        """Windows or mini-batches of an epoch, where that is known."""

    @abstractmethod
    def run(
        self,
        model: Layer,
        loss: Loss,
        schedule: Schedule | None,
        epoch: int,
        position: int = 0,
        state: State = None,
    ) -> Iterator[Step]:
        """Epoch 1, 2, ... from where an earlier run's `Step` says that it goes on."""

    @abstractmethod
    def evaluate(self, model: Layer, function: Callable[..., Any]) -> float:
        """The mean of a loss or a metric over all data, without tapes, not in training.

        The function is called as in training, its value taken to be a mean, and the means of parts
        are weighed by their valid targets.
        """

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What a resumed run must find again, as JSON can hold it."""


class Streams(Data):
    """N streams of T steps side by side. The state is carried from window to window; each epoch
    starts at their beginning from a zero state.

    Args:
        x, target: (T, N, ...), T >= 1.
    """

    def __init__(self, x: Array, target: Array, *, where: str = "Streams") -> None:
        if _validate.stream(where, x, target) == 0:
            raise ValueError(f"{where}: x has shape {x.shape}, expected T >= 1 steps")
        self.x = x
        self.target = target

    @property
    def steps(self) -> int:
        return len(self.x)

    def windows(self, schedule: Schedule | None) -> int | None:
        return 1 if schedule is None else schedule.windows(self.steps)

    def run(
        self,
        model: Layer,
        loss: Loss,
        schedule: Schedule | None,
        epoch: int,  # noqa: ARG002 (every epoch is the same)
        position: int = 0,
        state: State = None,
    ) -> Iterator[Step]:
        if schedule is None:
            schedule = TruncatedBPTT(self.steps, self.steps)
        x, target = self.x[position:], self.target[position:]
        for update in schedule.run(model, loss, x, target, state):
            stop = position + update.stop
            there = stop if (schedule.separable and update.apart) or stop == self.steps else None
            yield Step(
                update._replace(start=position + update.start, stop=stop), there, update.state
            )

    def evaluate(self, model: Layer, function: Callable[..., Any]) -> float:
        state, total, T = None, 0.0, self.steps
        # One that also runs from the end must have it all at once.
        at_once = _STEPS_AT_ONCE if states.bidirectional(model) is None else T
        for start in range(0, T, at_once):
            stop = min(start + at_once, T)
            prediction, state = model.predict(self.x[start:stop], state)
            total += _value(function(prediction, self.target[start:stop])) * (stop - start)
        return total / T

    def description(self) -> dict[str, Any]:
        return {"kind": "Streams", "x": list(self.x.shape), "target": list(self.target.shape)}


class Sequences(Data):
    """S separate sequences in shuffled mini-batches, each from a zero state and back through all of
    its steps.

    A mini-batch ends with its longest sequence. With lengths, a loss of every step is called as
    `loss(prediction, target, mask)`; `length_mask` says which steps are valid. With
    `per="sequence"` it is called as `loss(prediction, target)`, the prediction (N, ...) being that
    of each sequence's last step.

    Args:
        x: (T, S, ...).
        target: (T, S, ...), or with `per="sequence"` (S, ...).
        lengths: (S,) integers, 0 <= lengths[s] <= T, with `per="sequence"` at least 1; None: all T.
        batch_size: sequences in a mini-batch, >= 1; an epoch's last one has what is left.
        per: "step" or "sequence": what a target belongs to.
        shuffle: whether each epoch has an order of its own.
        seed: an integer >= 0; the order of an epoch depends on it and the epoch's number alone.
    """

    def __init__(
        self,
        x: Array,
        target: Array,
        lengths: Array | None = None,
        batch_size: int = 32,
        *,
        per: str = "step",
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        where = "Sequences"
        self.last_only = _validate.choice(where, "per", per, {"step": False, "sequence": True})
        _validate.sequences(where, x, target, self.last_only)
        T, S = x.shape[:2]
        if T == 0 or S == 0:
            raise ValueError(f"{where}: x has shape {x.shape}, expected T >= 1 steps, S >= 1")
        if lengths is not None:
            _validate.lengths(where, lengths, T, S, minimum=1 if self.last_only else 0)
        self.x = x
        self.target = target
        self.lengths = lengths
        self.batch_size = _validate.size(where, "batch_size", batch_size)
        self.shuffle = _validate.flag(where, "shuffle", shuffle)
        self.seed = _validate.size(where, "seed", seed, minimum=0)

    @property
    def steps(self) -> int | None:
        return len(self.x) * self.windows() if self.lengths is None else None

    def windows(self, schedule: Schedule | None = None) -> int:  # noqa: ARG002 (there is none)
        return int(-(-self.x.shape[1] // self.batch_size))

    def run(
        self,
        model: Layer,
        loss: Loss,
        schedule: Schedule | None,
        epoch: int,
        position: int = 0,
        state: State = None,  # noqa: ARG002 (every sequence starts from zero)
    ) -> Iterator[Step]:
        if schedule is not None:
            raise ValueError(
                f"Trainer.fit: schedule is {schedule!r}, expected None: sequences go back through "
                "all of their steps"
            )
        S = self.x.shape[1]
        order = np.arange(S)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(S)
        for start in range(position, S, self.batch_size):
            stop = min(start + self.batch_size, S)
            x, target, lengths = self._batch(order[start:stop])
            y, final, tape = model.forward(x, None, lengths)
            value, dprediction = loss(*self._arguments(y, target, lengths))
            gradients = model.backward(tape, self._spread(y, dprediction, lengths)).parameters
            yield Step(Update(0, len(x), float(value), gradients, final), stop, None)

    def evaluate(self, model: Layer, function: Callable[..., Any]) -> float:
        total, weights = 0.0, 0
        S = self.x.shape[1]
        for start in range(0, S, self.batch_size):
            chosen = np.arange(start, min(start + self.batch_size, S))
            x, target, lengths = self._batch(chosen)
            y, _ = model.predict(x, None, lengths)
            weight = len(chosen)
            if not self.last_only:
                weight = len(x) * weight if lengths is None else int(lengths.sum())
            total += _value(function(*self._arguments(y, target, lengths))) * weight
            weights += weight
        return total / max(weights, 1)

    def description(self) -> dict[str, Any]:
        return {
            "kind": "Sequences",
            "x": list(self.x.shape),
            "target": list(self.target.shape),
            "per": "sequence" if self.last_only else "step",
            "valid": None if self.lengths is None else int(self.lengths.sum()),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }

    def _batch(self, chosen: Array) -> tuple[Array, Array, Array | None]:
        """x, target and lengths of some sequences, up to the end of the longest."""
        lengths = None if self.lengths is None else self.lengths[chosen]
        T = len(self.x) if lengths is None else int(lengths.max())
        # Taken in the order of memory: a whole (N, ...) row of each step at once.
        x = np.ascontiguousarray(self.x[:T].take(chosen, axis=1))
        if self.last_only:
            return x, self.target[chosen], lengths
        return x, np.ascontiguousarray(self.target[:T].take(chosen, axis=1)), lengths

    def _arguments(self, y: Array, target: Array, lengths: Array | None) -> tuple[Array, ...]:
        """What the loss is called with."""
        if self.last_only:
            return y[self._last(y, lengths)], target
        return (y, target) if lengths is None else (y, target, length_mask(lengths, len(y)))

    def _spread(self, y: Array, dprediction: Array, lengths: Array | None) -> Array:
        """dL/dy (T, N, ...) from dL/dprediction."""
        if not self.last_only:
            return dprediction
        dy = np.zeros_like(y)
        dy[self._last(y, lengths)] = dprediction
        return dy

    @staticmethod
    def _last(y: Array, lengths: Array | None) -> tuple[Any, Array]:
        """Where each sequence's last step is in y (T, N, ...)."""
        return (len(y) if lengths is None else lengths) - 1, np.arange(y.shape[1])


def _value(found: Any) -> float:
    """Of a loss, which also returns a gradient, or a metric, which does not."""
    return float(found[0] if isinstance(found, tuple) else found)
