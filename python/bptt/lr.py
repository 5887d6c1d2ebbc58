"""Learning rates that change from update to update.

A `LearningRate` says which rate each update has: `Trainer(..., learning_rate=...)` sets the
optimizer's `lr` before every update and tells it each held-out measurement. In a loop of one's own:
`optimizer.lr = rate.at(update)`, with update = 0, 1, 2, ...
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from bptt import _validate

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "LearningRate",
    "ReduceOnPlateau",
    "Step",
]


class LearningRate(ABC):
    """A learning rate for every update. One of one's own needs `at` alone."""

    @abstractmethod
    def at(self, update: int) -> float:
        """The rate of update 0, 1, 2, ..., >= 0."""

    def observe(self, value: float) -> None:  # noqa: B027
        """Takes note of a held-out measurement, of which less is better."""

    def state_dict(self) -> dict[str, Any]:
        """What the next rate depends on beside the update's number: here nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned. Raises `ValueError` for what is no such thing."""
        _validate.same_names(f"{type(self).__name__}.load_state_dict", "state", state, ())


class Constant(LearningRate):
    """`lr` at every update.

    Args:
        lr: >= 0.
    """

    def __init__(self, lr: float) -> None:
        self.lr = _validate.number("Constant", "lr", lr, 0.0)

    def at(self, update: int) -> float:  # noqa: ARG002
        return self.lr


class Step(LearningRate):
    """`lr * factor^(update // every)`.

    Args:
        lr: of the first updates, >= 0.
        every: updates between two changes, >= 1.
        factor: > 0.
    """

    def __init__(self, lr: float, every: int, factor: float = 0.1) -> None:
        self.lr = _validate.number("Step", "lr", lr, 0.0)
        self.every = _validate.size("Step", "every", every)
        self.factor = _validate.number("Step", "factor", factor, 0.0, bounds="()")

    def at(self, update: int) -> float:
        return float(self.lr * self.factor ** (update // self.every))


class Exponential(LearningRate):
    """`lr * factor^update`.

    Args:
        lr: of the first update, >= 0.
        factor: > 0, as 0.9999.
    """

    def __init__(self, lr: float, factor: float) -> None:
        self.lr = _validate.number("Exponential", "lr", lr, 0.0)
        self.factor = _validate.number("Exponential", "factor", factor, 0.0, bounds="()")

    def at(self, update: int) -> float:
        return float(self.lr * self.factor**update)


class Cosine(LearningRate):
    """Half a cosine wave from `lr` down to `final` (Loshchilov & Hutter 2017), after a warm-up in
    equal steps: update u < warmup has `lr * (u+1) / warmup`. From `updates` on it stays at `final`.

    Args:
        lr: the highest rate, >= 0.
        updates: of the whole run, >= 1, those of the warm-up included.
        warmup: updates, 0 <= warmup < updates.
        final: the last rate, >= 0.
    """

    def __init__(self, lr: float, updates: int, warmup: int = 0, final: float = 0.0) -> None:
        self.lr = _validate.number("Cosine", "lr", lr, 0.0)
        self.updates = _validate.size("Cosine", "updates", updates)
        self.warmup = _validate.size("Cosine", "warmup", warmup, minimum=0)
        self.final = _validate.number("Cosine", "final", final, 0.0)
        if self.warmup >= self.updates:
            raise ValueError(f"Cosine: warmup is {warmup}, expected less than updates = {updates}")

    def at(self, update: int) -> float:
        if update < self.warmup:
            return self.lr * (update + 1) / self.warmup
        done = min(1.0, (update - self.warmup) / (self.updates - self.warmup))
        return self.final + (self.lr - self.final) * 0.5 * (1 + math.cos(math.pi * done))


class ReduceOnPlateau(LearningRate):
    """The rate is multiplied with `factor` whenever more than `patience` measurements in a row were
    no better than the best one.

    Args:
        lr: the first rate, >= 0.
        factor: in (0, 1).
        patience: measurements without progress that are borne, >= 0.
        min_delta: by how much a measurement must be lower than the best to be better, >= 0.
        min_lr: the rate goes no lower, >= 0.
    """

    def __init__(
        self,
        lr: float,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        min_lr: float = 0.0,
    ) -> None:
        where = "ReduceOnPlateau"
        self.lr = _validate.number(where, "lr", lr, 0.0)
        self.factor = _validate.number(where, "factor", factor, 0.0, 1.0, "()")
        self.patience = _validate.size(where, "patience", patience, minimum=0)
        self.min_delta = _validate.number(where, "min_delta", min_delta, 0.0)
        self.min_lr = _validate.number(where, "min_lr", min_lr, 0.0)
        self.best: float | None = None
        self.waited = 0

    def at(self, update: int) -> float:  # noqa: ARG002
        return self.lr

    def observe(self, value: float) -> None:
        if self.best is None or value < self.best - self.min_delta:
            self.best, self.waited = float(value), 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.lr = max(self.lr * self.factor, min(self.lr, self.min_lr))
            self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"lr": self.lr, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        where = "ReduceOnPlateau.load_state_dict"
        _validate.same_names(where, "state", state, ("lr", "best", "waited"))
        lr = _validate.number(where, "state['lr']", state["lr"], 0.0)
        best = state["best"]
        if best is not None:
            best = _validate.number(where, "state['best']", best, -math.inf, bounds="()")
        waited = _validate.size(where, "state['waited']", state["waited"], minimum=0)
        self.lr, self.best, self.waited = lr, best, waited
