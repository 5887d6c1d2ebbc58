"""What may be done while a `Trainer` runs.

A callback of one's own overrides what it needs of `Callback`; whatever returns True ends the run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate, dynamics, progress
from bptt.history import Evaluation, History, Record
from bptt.layers import Layer

__all__ = ["Callback", "Checkpoint", "EarlyStopping", "GradientWatch", "Run"]

Array: TypeAlias = NDArray[Any]


class Run(Protocol):
    """What a callback sees of the trainer."""

    model: Layer
    history: History
    note: str

    @property
    def evaluated_parameters(self) -> Mapping[str, Array]: ...

    def save(self, path: str | os.PathLike[str]) -> None: ...


class Callback:
    """Called by a trainer; every method may be left as it is.

    A measurement is told before the update or the epoch after which it was made, so that a
    checkpoint made at either knows of it.
    """

    #: Whether it only looks on. The run does not depend on its options then: they need not be the
    #: same where a run is resumed.
    looks_on: ClassVar[bool] = False

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> bool | None:  # noqa: ARG002
        """After a measurement on held-out data."""
        return None

    def on_update(self, run: Run, record: Record) -> bool | None:  # noqa: ARG002
        """After an update of the parameters."""
        return None

    def on_epoch(self, run: Run, epoch: int) -> bool | None:  # noqa: ARG002
        """After an epoch."""
        return None

    def on_end(self, run: Run) -> None:
        """After a run, unless an exception ended it."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: arrays, numbers, strings, and dicts, lists, tuples of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        _validate.same_names(f"{type(self).__name__}.load_state_dict", "state", state, ())


class EarlyStopping(Callback):
    """Ends a run after more than `patience` measurements in a row that were no better than the
    best, or when the goal is reached, and then gives the model the weights of the best one.

    Args:
        patience: measurements without progress that are borne, >= 0.
        min_delta: by how much a measurement must beat the best to be better, >= 0.
        monitor: "loss", or "metric": then a measurement without one is a `ValueError`.
        mode: "min" where less is better, "max" where more is.
        restore: whether the best weights come back at the end of the run.
        goal: a measurement that is this good ends the run; None: none does.

    Attributes:
        best: the best measurement, None before the first.
        best_update: after which update it was made.
    """

    def __init__(
        self,
        patience: int,
        min_delta: float = 0.0,
        monitor: str = "loss",
        mode: str = "min",
        restore: bool = True,
        goal: float | None = None,
    ) -> None:
        where = "EarlyStopping"
        self.patience = _validate.size(where, "patience", patience, minimum=0)
        self.min_delta = _validate.number(where, "min_delta", min_delta, 0.0)
        self.monitor = _validate.choice(
            where, "monitor", monitor, {name: name for name in ("loss", "metric")}
        )
        self._sign = _validate.choice(where, "mode", mode, {"min": 1.0, "max": -1.0})
        self.mode = mode
        self.restore = _validate.flag(where, "restore", restore)
        if goal is not None:
            goal = _validate.number(where, "goal", goal, -math.inf, bounds="()")
        self.goal = goal
        self.best: float | None = None
        self.best_update = 0
        self.waited = 0
        self._weights: dict[str, Array] = {}

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> bool:
        value = getattr(evaluation, self.monitor)
        if value is None:
            raise ValueError("EarlyStopping: monitor is 'metric', expected a metric in Trainer.fit")
        best = math.inf if self.best is None else self._sign * self.best
        if self._sign * value < best - self.min_delta:
            self.best, self.best_update, self.waited = value, evaluation.update, 0
            if self.restore:
                parameters = run.evaluated_parameters
                self._weights = {name: array.copy() for name, array in parameters.items()}
            return self.goal is not None and self._sign * value <= self._sign * self.goal
        self.waited += 1
        return self.waited > self.patience

    def on_end(self, run: Run) -> None:
        if self._weights:
            run.model.load_parameters(self._weights)

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_update": self.best_update,
            "waited": self.waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        where = "EarlyStopping.load_state_dict"
        _validate.same_names(where, "state", state, ("best", "best_update", "waited", "weights"))
        best, weights = state["best"], state["weights"]
        if best is not None:
            best = _validate.number(where, "state['best']", best, -math.inf, bounds="()")
        best_update = _validate.size(where, "state['best_update']", state["best_update"], minimum=0)
        waited = _validate.size(where, "state['waited']", state["waited"], minimum=0)
        _validate.instance(where, "state['weights']", weights, Mapping)
        self.best, self.best_update, self.waited = best, best_update, waited
        self._weights = dict(weights)


class Checkpoint(Callback):
    """Saves the run to the file `path` as `Trainer.save` does, after every epoch or every `every`
    updates. The file is replaced as a whole: it always holds one good checkpoint.

    Args:
        path: of the file.
        every: updates, >= 1; None: after every epoch.
    """

    looks_on = True

    def __init__(self, path: str | os.PathLike[str], every: int | None = None) -> None:
        _validate.instance("Checkpoint", "path", path, (str, os.PathLike))
        self.path = path
        self.every = None if every is None else _validate.size("Checkpoint", "every", every)

    def on_update(self, run: Run, record: Record) -> None:
        if self.every is not None and record.update % self.every == 0:
            run.save(self.path)

    def on_epoch(self, run: Run, epoch: int) -> None:  # noqa: ARG002
        if self.every is None:
            run.save(self.path)


class GradientWatch(Callback):
    """Says in words when the network begins to make gradients vanish or explode, and when it ends.

    Every so often it follows a gradient back through the model over `x` (`bptt.dynamics.lyapunov`,
    whose warnings it passes on: at which step, in which sequence). A warning is told when it is
    new, not at each look: "update 300: gradients explode: handed back from step 64, ...".

    Args:
        x: (T, N, ...), what is looked at: a short piece of the model's input is enough. It starts
            from the state that the model begins with.
        every: updates between two looks, >= 1; None: one after every epoch. The first look is
            after the first update.
        factor: > 1: by how much a gradient must shrink or grow over `x` to be told.
        tell: takes each sentence; None prints it to stderr, above the progress bar.

    Attributes:
        told: (update, sentence) of all that was told.
        exponents: (update, largest Lyapunov exponent per step, mean over sequences) of each look:
            exp of it is the factor by which gradients change from step to step.
    """

    looks_on = True

    def __init__(
        self,
        x: Array,
        every: int | None = None,
        factor: float = 1e6,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        where = "GradientWatch"
        _validate.instance(where, "x", x, np.ndarray)
        if x.ndim < 2 or 0 in x.shape[:2]:
            raise ValueError(f"{where}: x has shape {x.shape}, expected (T, N, ...), both >= 1")
        if tell is not None:
            _validate.instance(where, "tell", tell, Callable)
        self.x = x
        self.every = None if every is None else _validate.size(where, "every", every)
        self.factor = _validate.number(where, "factor", factor, 1.0, bounds="()")
        self.told: list[tuple[int, str]] = []
        self.exponents: list[tuple[int, float]] = []
        self._tell = progress.tell if tell is None else tell
        self._now: list[str] = []  # what gradients do: "vanish", "explode"

    def on_update(self, run: Run, record: Record) -> None:
        if not self.exponents or (self.every is not None and record.update % self.every == 0):
            self._look(run, record.update)

    def on_epoch(self, run: Run, epoch: int) -> None:  # noqa: ARG002
        if self.every is None and self.exponents[-1][0] != len(run.history):
            self._look(run, len(run.history))

    def state_dict(self) -> dict[str, Any]:
        return {"told": list(self.told), "exponents": list(self.exponents), "now": list(self._now)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        where = "GradientWatch.load_state_dict"
        _validate.same_names(where, "state", state, ("told", "exponents", "now"))
        self.told = [(int(update), str(sentence)) for update, sentence in state["told"]]
        self.exponents = [(int(update), float(value)) for update, value in state["exponents"]]
        self._now = list(state["now"])

    def _look(self, run: Run, update: int) -> None:
        found = dynamics.lyapunov(run.model, self.x, count=1)
        self.exponents.append((update, float(found.exponents[:, 0].mean())))
        sentences = found.verdicts(self.factor)
        for verb in self._now:
            if verb not in sentences:
                self._say(update, f"gradients {verb} no more")
        for verb, sentence in sentences.items():
            if verb not in self._now:
                self._say(update, sentence)
        self._now = list(sentences)

    def _say(self, update: int, sentence: str) -> None:
        self.told.append((update, sentence))
        self._tell(f"update {update}: {sentence}")
