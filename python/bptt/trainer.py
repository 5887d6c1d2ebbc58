"""The training loop: windows of a stream, clipping, an optimizer, a progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from bptt import _validate
from bptt.layers import Layer
from bptt.losses import Loss
from bptt.optim import Optimizer, clip_by_global_norm, global_norm
from bptt.schedule import TruncatedBPTT, Update

__all__ = ["DivergenceError", "History", "Record", "Trainer"]

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
    loss: float  #: of this window, before the update
    gradient_norm: float  #: global, before clipping
    steps: int  #: time steps of this window
    seconds: float  #: since `fit` began
    steps_per_second: float  #: time steps (each of N sequences) per second, of this update


class History:
    """The records of a run, one an update."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def __len__(self) -> int:
        return len(self.records)

    @property
    def loss(self) -> list[float]:
        return [record.loss for record in self.records]

    @property
    def gradient_norm(self) -> list[float]:
        return [record.gradient_norm for record in self.records]


class Trainer:
    """Trains a model on streams.

    Args:
        model: a layer or a `Sequential`.
        loss: (prediction, target) -> (value, dprediction), as those of `bptt.losses`.
        optimizer: of `bptt.optim`.
        schedule: where the windows end and how far back each goes; None is full BPTT, one update
            an epoch.
        clip_norm: gradients are scaled down to this global norm, > 0; None: they are not.

    Attributes:
        history: of the latest `fit`, also where it ended by an exception.
        note: text shown at the end of the progress bar; free for `on_update` to change.
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        optimizer: Optimizer,
        schedule: TruncatedBPTT | None = None,
        clip_norm: float | None = None,
    ) -> None:
        _validate.instance("Trainer", "model", model, Layer)
        _validate.instance("Trainer", "loss", loss, Callable)
        _validate.instance("Trainer", "optimizer", optimizer, Optimizer)
        if schedule is not None:
            _validate.instance("Trainer", "schedule", schedule, TruncatedBPTT)
        if clip_norm is not None:
            clip_norm = _validate.number("Trainer", "clip_norm", clip_norm, 0.0, bounds="()")
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.history = History()
        self.note = ""

    def fit(
        self,
        x: Array,
        target: Array,
        epochs: int | None = None,
        *,
        minutes: float | None = None,
        updates: int | None = None,
        on_update: Callable[[Record], object] | None = None,
        progress: bool = True,
    ) -> History:
        """Trains until the first of the given limits is reached; at least one must be given.

        Args:
            x, target: (T, N, ...): N streams of length T >= 1. Each epoch starts at their
                beginning from a zero state.
            epochs: passes over the streams, >= 1.
            minutes: > 0; the update during which they end is the last.
            updates: >= 1.
            on_update: called after every update; True ends the run.
            progress: whether to show a bar with loss, gradient norm and time steps per second.

        Returns:
            The history, which is also `self.history`.

        Raises:
            DivergenceError: a loss or a gradient is NaN or infinite; the parameters are left as
                they were before that update.
        """
        T = _validate.stream("Trainer.fit", x, target)
        if T == 0:
            raise ValueError(f"Trainer.fit: x has shape {x.shape}, expected T >= 1 steps")
        if epochs is None and minutes is None and updates is None:
            raise ValueError("Trainer.fit: there is no limit, expected epochs, minutes or updates")
        if epochs is not None:
            epochs = _validate.size("Trainer.fit", "epochs", epochs)
        if updates is not None:
            updates = _validate.size("Trainer.fit", "updates", updates)
        seconds = math.inf
        if minutes is not None:
            seconds = 60 * _validate.number("Trainer.fit", "minutes", minutes, 0.0, bounds="()")
        if on_update is not None:
            _validate.instance("Trainer.fit", "on_update", on_update, Callable)
        _validate.flag("Trainer.fit", "progress", progress)

        self.history = History()
        with _bar(T, self._schedule(T), epochs, updates, progress) as bar:
            for record in self._records(x, target, epochs):
                self.history.records.append(record)
                stop = on_update is not None and on_update(record) is True
                bar.set_postfix_str(_postfix(record, self.note), refresh=False)
                bar.update(record.steps)
                if stop or record.update == updates or record.seconds >= seconds:
                    break
        return self.history

    def evaluate(self, x: Array, target: Array) -> float:
        """The mean of the loss over streams (T, N, ...), from a zero state and without tapes.

        It goes in windows of k1 steps with the state carried over; the loss is taken to be a mean
        over its window.
        """
        T = _validate.stream("Trainer.evaluate", x, target)
        if T == 0:
            raise ValueError(f"Trainer.evaluate: x has shape {x.shape}, expected T >= 1 steps")
        k1 = self._schedule(T).k1
        state, total = None, 0.0
        for start in range(0, T, k1):
            stop = min(start + k1, T)
            prediction, state = self.model.predict(x[start:stop], state)
            total += float(self.loss(prediction, target[start:stop])[0]) * (stop - start)
        return total / T

    def _schedule(self, T: int) -> TruncatedBPTT:
        return self.schedule if self.schedule is not None else TruncatedBPTT(T, T)

    def _records(self, x: Array, target: Array, epochs: int | None) -> Iterator[Record]:
        """Makes the updates, epoch by epoch."""
        schedule = self._schedule(len(x))
        begin = before = time.perf_counter()
        number = 0
        for epoch in range(1, epochs + 1) if epochs is not None else count(1):
            for update in schedule.run(self.model, self.loss, x, target):
                number += 1
                norm = self._apply(update, number)
                now = time.perf_counter()
                speed = update.steps / max(now - before, 1e-9)
                yield Record(number, epoch, update.loss, norm, update.steps, now - begin, speed)
                before = time.perf_counter()  # what the caller did meanwhile is no training

    def _apply(self, update: Update, number: int) -> float:
        """Changes the parameters. Returns the gradient's norm before clipping."""
        if self.clip_norm is None:
            norm = global_norm(update.gradients)
        else:
            norm = clip_by_global_norm(update.gradients, self.clip_norm)
        if not (math.isfinite(update.loss) and math.isfinite(norm)):
            raise DivergenceError(number, update.stop, update.loss, norm)
        self.optimizer.step(self.model.parameters, update.gradients)
        return norm


def _bar(
    T: int, schedule: TruncatedBPTT, epochs: int | None, updates: int | None, progress: bool
) -> Any:
    """A progress bar that counts time steps, so that its rate is time steps per second."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    totals = [] if epochs is None else [epochs * T]
    if updates is not None:
        whole, rest = divmod(updates, schedule.windows(T))
        totals.append(whole * T + rest * schedule.k1)
    return tqdm(
        total=min(totals, default=None),
        unit=" steps",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not progress,
    )


def _postfix(record: Record, note: str) -> str:
    text = f"loss {record.loss:.4f}, gradient norm {record.gradient_norm:.3g}"
    return f"{text}, {note}" if note else text
