"""The training loop: windows or mini-batches, clipping, an optimizer, held-out measurements."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate
from bptt.average import WeightAverage
from bptt.callbacks import Callback
from bptt.checkpoint import Position, Resumable
from bptt.configuration import configuration
from bptt.data import Data, Step, Streams
from bptt.history import DivergenceError, Evaluation, History, Record
from bptt.layers import Layer
from bptt.losses import Loss
from bptt.lr import LearningRate
from bptt.optim import Optimizer, clip_by_global_norm, global_norm
from bptt.progress import bar, postfix
from bptt.schedule import Schedule, add_gradients

__all__ = ["DivergenceError", "History", "Record", "Trainer"]

Array: TypeAlias = NDArray[Any]


class Trainer(Resumable):
    """Trains a model on streams or on sets of sequences.

    Args:
        model: a layer or a `Sequential`.
        loss: (prediction, target) -> (value, dprediction), as those of `bptt.losses`; with a mask
            as third argument where sequences have lengths.
        optimizer: of `bptt.optim`.
        schedule: where a stream's windows end and how far back each goes; None is full BPTT, one
            window an epoch. Sequences go back through all of their steps: there it must be None.
        clip_norm: gradients are scaled down to this global norm, > 0; None: they are not.
        learning_rate: of `bptt.lr`: sets the optimizer's `lr` before every update and observes each
            held-out loss; None: `lr` stays.
        accumulate: windows or mini-batches of an update, >= 1: it takes the mean of their
            gradients, at the end of an epoch of those that are left.
        average: takes in the weights after every update; held-out data are then measured with the
            average.
        callbacks: of `bptt.callbacks`, called in this order.

    Attributes:
        history: of the latest `fit`, also where it ended by an exception.
        note: text shown at the end of the progress bar; free for `on_update` to change.
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        optimizer: Optimizer,
        schedule: Schedule | None = None,
        clip_norm: float | None = None,
        *,
        learning_rate: LearningRate | None = None,
        accumulate: int = 1,
        average: WeightAverage | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        _validate.instance("Trainer", "model", model, Layer)
        _validate.instance("Trainer", "loss", loss, Callable)
        _validate.instance("Trainer", "optimizer", optimizer, Optimizer)
        if schedule is not None:
            _validate.instance("Trainer", "schedule", schedule, Schedule)
        if clip_norm is not None:
            clip_norm = _validate.number("Trainer", "clip_norm", clip_norm, 0.0, bounds="()")
        if learning_rate is not None:
            _validate.instance("Trainer", "learning_rate", learning_rate, LearningRate)
        if average is not None:
            _validate.instance("Trainer", "average", average, WeightAverage)
        _validate.instance("Trainer", "callbacks", callbacks, Sequence)
        for i, callback in enumerate(callbacks):
            _validate.instance("Trainer", f"callbacks[{i}]", callback, Callback)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.learning_rate = learning_rate
        self.accumulate = _validate.size("Trainer", "accumulate", accumulate)
        self.average = average
        self.callbacks = tuple(callbacks)
        self.history = History()
        self.note = ""
        self._made_with = self._configuration()
        self._position = Position()
        self._data: dict[str, Any] | None = None  # the latest run's
        self._resumes = False

    def fit(
        self,
        data: Data | Array,
        target: Array | None = None,
        epochs: int | None = None,
        *,
        held_out: Data | tuple[Array, Array] | None = None,
        metric: Callable[..., float] | None = None,
        evaluate_every: int | None = None,
        minutes: float | None = None,
        updates: int | None = None,
        on_update: Callable[[Record], object] | None = None,
        progress: bool = True,
    ) -> History:
        """Trains until the first of the given limits is reached; at least one must be given.

        It starts at the data's beginning, after `load` where the saved run stood: its updates and
        epochs count towards the limits, its minutes do not.

        Args:
            data, target: arrays (T, N, ...), N streams of length T >= 1; or `data` alone, a
                `Streams` or a `Sequences`.
            epochs: passes over the data, >= 1.
            held_out: data of either kind, or a pair (x, target) of streams, measured after every
                epoch or every `evaluate_every` updates.
            metric: called as the loss, returns a number; measured on `held_out` beside the loss.
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
        where = "Trainer.fit"
        data = _data(where, data, target)
        if epochs is None and minutes is None and updates is None:
            raise ValueError(f"{where}: there is no limit, expected epochs, minutes or updates")
        if epochs is not None:
            epochs = _validate.size(where, "epochs", epochs)
        if updates is not None:
            updates = _validate.size(where, "updates", updates)
        seconds = math.inf
        if minutes is not None:
            seconds = 60 * _validate.number(where, "minutes", minutes, 0.0, bounds="()")
        if held_out is not None and not isinstance(held_out, Data):
            _validate.instance(where, "held_out", held_out, tuple)
            if len(held_out) != 2:
                raise ValueError(
                    f"{where}: held_out has {len(held_out)} entries, expected a pair (x, target)"
                )
            held_out = _data(where, *held_out)
        for name, function in (("metric", metric), ("on_update", on_update)):
            if function is not None:
                _validate.instance(where, name, function, Callable)
        if evaluate_every is not None:
            evaluate_every = _validate.size(where, "evaluate_every", evaluate_every)
        if held_out is None and not (metric is None and evaluate_every is None):
            raise ValueError(f"{where}: held_out is None, expected data to measure on")
        _validate.flag(where, "progress", progress)
        self._begin(data)

        def measure(epoch: int) -> bool:
            return held_out is not None and self._measure(held_out, metric, epoch)

        limit = seconds + (self.history.records[-1].seconds if self.history.records else 0.0)
        with bar(
            data, self.schedule, self.accumulate, self._position.epoch, epochs, updates, progress
        ) as shown:
            records = self._records(data, epochs, measure if evaluate_every is None else None)
            # A loaded run may have made all of them.
            left = None if updates is None else max(updates - len(self.history), 0)
            for record in islice(records, left):
                self.history.records.append(record)
                due = evaluate_every is not None and record.update % evaluate_every == 0
                stop = due and measure(record.epoch)
                stop |= on_update is not None and on_update(record) is True
                stop |= self._call("on_update", record)
                shown.set_postfix_str(postfix(record, self.note), refresh=False)
                shown.update(record.steps)
                if stop or record.seconds >= limit:
                    break
        for callback in self.callbacks:
            callback.on_end(self)
        return self.history

    def evaluate(
        self,
        data: Data | Array,
        target: Array | None = None,
        metric: Callable[..., float] | None = None,
    ) -> float:
        """The mean of the loss, or of `metric`, over data as `fit` takes them, without tapes.

        Streams start from a zero state and go in windows with the state carried over. The loss is
        taken to be a mean over what it is called with.
        """
        if metric is not None:
            _validate.instance("Trainer.evaluate", "metric", metric, Callable)
        data = _data("Trainer.evaluate", data, target)
        return data.evaluate(self.model, self.loss if metric is None else metric)

    @property
    def evaluated_parameters(self) -> Mapping[str, Array]:
        """The weights that held-out data are measured with: the average's, or the model's own."""
        if self.average is not None and self.average.parameters:
            return self.average.parameters
        return self.model.parameters

    def _configuration(self) -> dict[str, Any]:
        """All that the same bits depend on beside states and data. It is taken before the first
        update: some options, as `lr`, change in a run."""
        parts = ("model", "loss", "optimizer", "schedule", "clip_norm", "learning_rate")
        found: dict[str, Any] = {}
        for name in (*parts, "accumulate", "average"):
            found |= configuration(name, getattr(self, name))
        if self.learning_rate is not None:
            found.pop("optimizer.lr", None)  # which sets it at every update
        for i, callback in enumerate(self.callbacks):
            name = f"callbacks[{i}]"
            kind = {name: type(callback).__name__}
            found |= kind if callback.looks_on else configuration(name, callback)
        return found

    def _begin(self, data: Data) -> None:
        """At the data's beginning, or where a loaded run stood in the same data."""
        description = data.description()
        if not self._resumes:
            self.history = History()
            self._position = Position()
        elif description != self._data:
            raise ValueError(
                f"Trainer.fit: data are {description}, expected those of the loaded run, "
                f"{self._data}"
            )
        self._data = description
        self._resumes = False

    def _records(
        self, data: Data, epochs: int | None, measure: Callable[[int], bool] | None
    ) -> Iterator[Record]:
        """Makes the updates, epoch by epoch, each of which ends with a measurement."""
        last = self.history.records[-1] if self.history.records else None
        number = 0 if last is None else last.update
        before = time.perf_counter()
        begin = before - (0.0 if last is None else last.seconds)
        while epochs is None or self._position.epoch <= epochs:
            epoch, at, state = self._position
            steps = data.run(self.model, self.loss, self.schedule, epoch, at or 0, state)
            while group := list(islice(steps, self.accumulate)):
                number += 1
                loss, norm = self._apply(group, number)
                self._position = Position(epoch, group[-1].position, group[-1].state)
                now = time.perf_counter()
                taken = sum(step.update.steps for step in group)
                speed = taken / max(now - before, 1e-9)
                rate = self.optimizer.lr
                yield Record(number, epoch, loss, norm, taken, now - begin, speed, rate)
                before = time.perf_counter()  # what the caller did meanwhile is no training
            self._position = Position(epoch + 1)
            stop = measure is not None and measure(epoch)
            if self._call("on_epoch", epoch) or stop:
                return
            before = time.perf_counter()

    def _apply(self, group: list[Step], number: int) -> tuple[float, float]:
        """Changes the parameters. Returns the loss and the gradient's norm before clipping."""
        gradients, loss = group[0].update.gradients, group[0].update.loss
        if len(group) > 1:
            loss = sum(step.update.loss for step in group) / len(group)
            for step in group[1:]:
                add_gradients(gradients, step.update.gradients)
            with np.errstate(all="ignore"):  # what is not finite is told below
                for total in gradients.values():
                    total /= len(group)
        if self.clip_norm is None:
            norm = global_norm(gradients)
        else:
            norm = clip_by_global_norm(gradients, self.clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergenceError(number, group[-1].update.stop, loss, norm)
        if self.learning_rate is not None:
            self.optimizer.lr = self.learning_rate.at(number - 1)
        self.optimizer.step(self.model.parameters, gradients)
        if self.average is not None:
            self.average.update(self.model.parameters)
        return loss, norm

    def _measure(self, data: Data, metric: Callable[..., float] | None, epoch: int) -> bool:
        """Measures held-out data and tells of it; whether the run shall end."""
        if self.average is not None and self.average.parameters:
            with self.average.applied(self.model):
                loss, value = self._values(data, metric)
        else:
            loss, value = self._values(data, metric)
        evaluation = Evaluation(len(self.history), epoch, loss, value)
        self.history.evaluations.append(evaluation)
        if self.learning_rate is not None:
            self.learning_rate.observe(loss)
        return self._call("on_evaluation", evaluation)

    def _values(
        self, data: Data, metric: Callable[..., float] | None
    ) -> tuple[float, float | None]:
        loss = data.evaluate(self.model, self.loss)
        return loss, None if metric is None else data.evaluate(self.model, metric)

    def _call(self, method: str, *arguments: Any) -> bool:
        """Calls all callbacks; whether one ends the run."""
        answers = [getattr(c, method)(self, *arguments) for c in self.callbacks]
        return any(answer is True for answer in answers)


def _data(where: str, data: Any, target: Any) -> Data:
    if not isinstance(data, Data):
        return Streams(data, target, where=where)
    if target is not None:
        raise ValueError(f"{where}: target is given, expected none beside a {type(data).__name__}")
    return data
