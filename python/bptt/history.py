"""What a training run tells of itself: a record an update, a measurement an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate

__all__ = ["DivergenceError", "Evaluation", "History", "Record"]

Array: TypeAlias = NDArray[Any]


class DivergenceError(ArithmeticError):
    """A loss or a gradient that is not finite. Parameters are as they were before that update."""

    def __init__(self, update: int, step: int, loss: float, gradient_norm: float) -> None:
        super().__init__(
            f"training diverged at update {update} (time step {step} of its stream): "
            f"loss {loss:g}, gradient norm {gradient_norm:g}, expected finite ones; "
            "the parameters are those before this update"
        )
        self.update = update
        self.step = step
        self.loss = loss
        self.gradient_norm = gradient_norm


class Record(NamedTuple):
    """One update."""

    update: int  #: 1, 2, ...
    epoch: int  #: 1, 2, ...
    loss: float  #: of this window or mini-batch, before the update; of several, their mean
    gradient_norm: float  #: global, before clipping
    steps: int  #: time steps of this window or mini-batch
    seconds: float  #: since the run began
    steps_per_second: float  #: time steps (each of N sequences) per second, of this update
    learning_rate: float  #: the optimizer's, of this update


class Evaluation(NamedTuple):
    """One measurement on held-out data."""

    update: int  #: after which it was made
    epoch: int  #: that this update belongs to
    loss: float
    metric: float | None  #: None where none was asked for


class History:
    """The records of a run, one an update, and its measurements."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.evaluations: list[Evaluation] = []

    def __len__(self) -> int:
        return len(self.records)

    @property
    def loss(self) -> list[float]:
        return [record.loss for record in self.records]

    @property
    def gradient_norm(self) -> list[float]:
        return [record.gradient_norm for record in self.records]

    def state_dict(self) -> dict[str, Any]:
        """{"records": (updates, fields), "evaluations": (evaluations, fields)}, float64."""
        evaluations = [
            evaluation._replace(metric=math.nan) if evaluation.metric is None else evaluation
            for evaluation in self.evaluations
        ]
        return {
            "records": _table(self.records, len(Record._fields)),
            "evaluations": _table(evaluations, len(Evaluation._fields)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        where = "History.load_state_dict"
        _validate.same_names(where, "state", state, ("records", "evaluations"))
        self.records = [
            Record(int(update), int(epoch), loss, norm, int(steps), *rest)
            for update, epoch, loss, norm, steps, *rest in state["records"].tolist()
        ]
        self.evaluations = [
            Evaluation(int(update), int(epoch), loss, None if math.isnan(metric) else metric)
            for update, epoch, loss, metric in state["evaluations"].tolist()
        ]


def _table(rows: list[Any], fields: int) -> Array:
    return np.array(rows, np.float64).reshape(len(rows), fields)
