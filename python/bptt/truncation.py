"""Truncation that is random and right on average, and truncation that measures how far to go."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate, states
from bptt.layers import Layer, LayerTape
from bptt.layers.base import State
from bptt.losses import Loss
from bptt.optim import global_norm
from bptt.schedule import REDUCTIONS, Schedule, Update, add_gradients

__all__ = ["AdaptiveTruncation", "RandomTruncation"]

Array: TypeAlias = NDArray[Any]

_DISTRIBUTIONS = {"power": True, "geometric": False}


class RandomTruncation(Schedule):
    """Windows of random length whose gradient is right on average (ARTBP, Tallec & Ollivier 2017).

    After every `every` steps the stream is cut with a probability c, which depends on how long the
    window already is. Losses go back to the cut before them, so that windows do not overlap and
    each gives one update. Where the stream was not cut, what is handed back is multiplied by
    1/(1-c): gradients that got through stand for those that a cut stopped. The expectation of the
    sum of all windows' gradients is the gradient of full BPTT, for every distribution (exactly so
    where parameters do not change between windows). Of a loss that is a mean over its window, a
    window's gradient is multiplied by its steps / `mean`: else steps of short windows would count
    for more. The expectation of the sum is then T / `mean` times the gradient of full BPTT, so that
    an update has the size that it has with windows of fixed length.

    The price is variance, which grows as windows get shorter than what the gradient spans; and the
    memory of the longest window that happens to be drawn.

    Args:
        mean: mean length of a window in steps, > `every`. At the stream's end the last window is
            cut short.
        every: steps between two places where a cut can be, >= 1; each such place costs one call
            of the core. None: a sixteenth of `mean`, at least 1.
        distribution: "power": c = alpha / ((alpha - 1) * m + l) for a window of l pieces of `every`
            steps, m = mean / every: long windows are rare, but not so rare that the factors grow
            exponentially. "geometric": c = 1 / m, the same at every place.
        alpha: > 1, of "power": how fast long windows become rare, as length^-alpha.
        seed: an integer >= 0 for the same cuts every time, or None. A further run goes on drawing
            where the last ended.
        reduction: how the loss reduces over the steps it is called with, "mean" or "sum".
    """

    def __init__(
        self,
        mean: float,
        every: int | None = None,
        distribution: str = "power",
        alpha: float = 6.0,
        seed: int | None = None,
        reduction: str = "mean",
    ) -> None:
        where = "RandomTruncation"
        self._mean = _validate.choice(where, "reduction", reduction, REDUCTIONS)
        self.reduction = reduction
        self.mean = _validate.number(where, "mean", mean, 1.0, bounds="()")
        if every is None:
            every = max(1, int(self.mean) // 16)
        self.every = _validate.size(where, "every", every)
        if self.mean <= self.every:
            raise ValueError(f"{where}: mean is {mean!r}, expected more than every = {self.every}")
        self._power = _validate.choice(where, "distribution", distribution, _DISTRIBUTIONS)
        self.distribution = distribution
        self.alpha = _validate.number(where, "alpha", alpha, 1.0, bounds="()")
        self._random = _validate.random_generator(where, seed)

    def __repr__(self) -> str:
        return f"RandomTruncation({self.mean:g}, every={self.every}, {self.distribution!r})"

    @property
    def separable(self) -> bool:
        return True

    def cut_probability(self, pieces: int) -> float:
        """The probability of a cut after a window's piece number `pieces`, 1, 2, ..."""
        l = _validate.size("RandomTruncation.cut_probability", "pieces", pieces)  # noqa: E741
        m = self.mean / self.every
        return self.alpha / ((self.alpha - 1) * m + l) if self._power else 1 / m

    def state_dict(self) -> dict[str, Any]:
        return {"random": self._random.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        where = "RandomTruncation.load_state_dict"
        _validate.same_names(where, "state", state, ("random",))
        _validate.load_random_state(where, "state['random']", self._random, state["random"])

    def run(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State = None
    ) -> Iterator[Update]:
        T = _checked("RandomTruncation.run", model, loss, x, target)
        return self._updates(model, loss, x, target, state, T)

    def _updates(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State, T: int
    ) -> Iterator[Update]:
        start = 0
        while start < T:
            pieces, factors = self._draw(-(-(T - start) // self.every))
            ends = [min(start + self.every * (i + 1), T) for i in range(pieces)]
            tapes, predictions = [], []
            for a, b in pairwise([start, *ends]):
                y, state, tape = model.forward(x[a:b], state)
                tapes.append(_Piece(a, b, tape))
                predictions.append(y)
            value, dy = loss(_joined(predictions), target[start : ends[-1]])
            if self._mean:
                dy = dy * dy.dtype.type((ends[-1] - start) / self.mean)
            total: dict[str, Array] = {}
            dstate: State = None
            for piece, factor in zip(reversed(tapes), reversed(factors), strict=True):
                its_dy = dy[piece.start - start : piece.stop - start]
                found = model.backward(piece.tape, its_dy, dstate)
                dstate = _scaled(found.state, factor)
                add_gradients(total, found.parameters)
            yield Update(start, ends[-1], float(value), total, state)
            start = ends[-1]

    def _draw(self, most: int) -> tuple[int, list[float]]:
        """How many pieces the next window has, and for each what it hands back is multiplied by."""
        factors = [1.0]  # the first hands back to the cut, where nobody takes it
        while len(factors) < most:
            c = self.cut_probability(len(factors))
            if self._random.random() < c:
                break
            factors.append(1 / (1 - c))
        return len(factors), factors


class AdaptiveTruncation(Schedule):
    """TruncatedBPTT whose window follows the gradient's reach (after Aicher, Foti & Fox 2019).

    Every k1 steps, the losses of the latest k1 steps go back through the latest `window` steps, a
    multiple of k1. At every `every`-th update they go back further, through `maximum` steps, piece
    by piece of k1 steps: that gives the norm of what each piece adds to the gradient. A geometric
    decay, fitted to the farther half of the pieces, stands for what lies beyond `maximum`. By the
    triangle inequality

        bias(w) <= tail(w) / (|gradient within w| - tail(w)),    tail(w) = sum of norms beyond w

    bounds the relative bias of a window of w pieces, and `window` becomes the shortest with a bound
    of at most `tolerance`; `maximum` where there is none. Norms are averaged over measurements.

    Memory is that of `maximum` steps; time is that of `window` but for the measurements. As with
    TruncatedBPTT, older steps keep the activations that older parameters made.

    Args:
        tolerance: the relative bias that is accepted, in (0, 1).
        k1: steps between two updates, >= 1, and the unit that the window is counted in.
        maximum: the longest window in steps, a multiple of k1, at least 2*k1.
        every: updates between two measurements, >= 1.
        memory: in [0, 1): what earlier measurements still count for at the next.

    Attributes:
        window: the window in steps; `maximum` until the first measurement.
        bias_by_window: the latest bound for windows of k1, 2*k1, ..., maximum; None before the
            first measurement.
    """

    def __init__(
        self,
        tolerance: float,
        k1: int = 16,
        maximum: int = 256,
        every: int = 10,
        memory: float = 0.5,
    ) -> None:
        where = "AdaptiveTruncation"
        self.tolerance = _validate.number(where, "tolerance", tolerance, 0.0, 1.0, bounds="()")
        self.k1 = _validate.size(where, "k1", k1)
        self.maximum = _validate.size(where, "maximum", maximum)
        if self.maximum % self.k1 or self.maximum < 2 * self.k1:
            raise ValueError(
                f"{where}: maximum is {maximum}, "
                f"expected a multiple of k1 = {k1}, at least {2 * k1}"
            )
        self.every = _validate.size(where, "every", every)
        self.memory = _validate.number(where, "memory", memory, 0.0, 1.0)
        self.window = self.maximum
        self.bias_by_window: Array | None = None
        self._updates_since = self.every  # since the latest measurement: one is due at once
        self._parts: Array | None = None  # running means: norm of what each piece adds,
        self._sums: Array | None = None  # and norm of the sum up to each

    def __repr__(self) -> str:
        return f"AdaptiveTruncation({self.tolerance:g}, k1={self.k1}, maximum={self.maximum})"

    def windows(self, T: int) -> int:
        """How many updates a stream of T steps gives."""
        return -(-_validate.size("AdaptiveTruncation.windows", "T", T, minimum=0) // self.k1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "updates_since": self._updates_since,
            "parts": None if self._parts is None else self._parts.tolist(),
            "sums": None if self._sums is None else self._sums.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        where = "AdaptiveTruncation.load_state_dict"
        _validate.same_names(where, "state", state, self.state_dict())
        window = _validate.size(where, "state['window']", state["window"])
        since = _validate.size(where, "state['updates_since']", state["updates_since"], minimum=0)
        parts, sums = (
            None if state[name] is None else np.array(state[name], np.float64)
            for name in ("parts", "sums")
        )
        pieces = self.maximum // self.k1
        if window % self.k1 or window > self.maximum:
            raise ValueError(
                f"{where}: state['window'] is {window}, "
                f"expected a multiple of k1 = {self.k1} up to {self.maximum}"
            )
        for name, norms in (("parts", parts), ("sums", sums)):
            if norms is not None and norms.shape != (pieces,):
                raise ValueError(f"{where}: state[{name!r}] is no list of {pieces} numbers")
        self.window, self._updates_since, self._parts, self._sums = window, since, parts, sums
        self.bias_by_window = None if parts is None or sums is None else relative_bias(parts, sums)

    def run(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State = None
    ) -> Iterator[Update]:
        T = _checked("AdaptiveTruncation.run", model, loss, x, target)
        if 0 < T < self.maximum:
            raise ValueError(
                f"AdaptiveTruncation.run: the stream has T = {T} steps, "
                f"expected at least maximum = {self.maximum}: nothing could be measured"
            )
        return self._updates(model, loss, x, target, state, T)

    def _updates(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State, T: int
    ) -> Iterator[Update]:
        pieces = self.maximum // self.k1
        kept: deque[LayerTape] = deque(maxlen=pieces)  # newest first
        for start in range(0, T, self.k1):
            stop = min(start + self.k1, T)
            y, state, tape = model.forward(x[start:stop], state)
            kept.appendleft(tape)
            value, dy = loss(y, target[start:stop])
            # A shorter last piece is not what windows are counted in: it is no measurement.
            due = self._updates_since >= self.every
            measuring = due and len(kept) == pieces and stop - start == self.k1
            gradients = self._backward(model, kept, dy, measuring)
            self._updates_since = 1 if measuring else self._updates_since + 1
            yield Update(start, stop, float(value), gradients, state, apart=stop == T)

    def _backward(
        self, model: Layer, kept: deque[LayerTape], dy: Array, measuring: bool
    ) -> dict[str, Array]:
        """The gradient through the window. A measurement goes on to the oldest piece."""
        inside = self.window // self.k1
        parts, sums = [], []
        whole: dict[str, Array] = {}
        gradients: dict[str, Array] = {}
        dstate: State = None
        for i, tape in enumerate(kept):
            if i == inside:
                if not measuring:
                    break
                gradients = {name: value.copy() for name, value in whole.items()}
            found = model.backward(tape, dy if i == 0 else None, dstate, retain=True)
            dstate = found.state
            if measuring:
                parts.append(global_norm(found.parameters))
            add_gradients(whole, found.parameters)
            if measuring:
                sums.append(global_norm(whole))
        if measuring:
            self._measured(np.array(parts), np.array(sums))
        return gradients or whole

    def _measured(self, parts: Array, sums: Array) -> None:
        if not (np.isfinite(parts).all() and np.isfinite(sums).all()):
            return  # the trainer will tell
        old = self.memory if self._parts is not None else 0.0
        self._parts = parts if self._parts is None else old * self._parts + (1 - old) * parts
        self._sums = sums if self._sums is None else old * self._sums + (1 - old) * sums
        self.bias_by_window = relative_bias(self._parts, self._sums)
        good = np.flatnonzero(self.bias_by_window <= self.tolerance)
        self.window = self.k1 * int(good[0] + 1) if good.size else self.maximum


def relative_bias(parts: Array, sums: Array) -> Array:
    """A bound of the relative bias for windows of 1, 2, ... pieces (Aicher, Foti & Fox 2019, whose
    norms are of single lags).

    Args:
        parts: (K,) norms of what each piece adds to the gradient.
        sums: (K,) norms of the gradient through the first 1, 2, ... pieces.

    Returns:
        (K,); inf where nothing can be said: the tail does not decay or is as large as the gradient.
    """
    K = len(parts)
    if not parts[-1] > 0:
        beyond = 0.0
    else:
        with np.errstate(divide="ignore"):
            logarithms = np.log(parts[K // 2 :])
        lags = np.arange(len(logarithms))
        finite = np.isfinite(logarithms)
        if finite.sum() >= 2:
            slope = np.polyfit(lags[finite], logarithms[finite], 1)[0]
            rate = math.exp(min(float(slope), 0.0))
        else:
            rate = min(1.0, float(parts[-1] / parts[-2])) if K >= 2 and parts[-2] > 0 else 1.0
        # A flat or rising end within rounding does not decay.
        beyond = float(parts[-1]) * rate / (1 - rate) if rate < 1 - 1e-9 else math.inf
    tail = beyond + np.append(np.cumsum(parts[:0:-1])[::-1], 0.0)
    bound = np.full(K, math.inf)
    fine = tail < sums
    bound[fine] = tail[fine] / (sums[fine] - tail[fine])
    bound[tail == 0] = 0.0
    return bound


class _Piece(NamedTuple):
    start: int
    stop: int
    tape: LayerTape


def _checked(where: str, model: Layer, loss: Loss, x: Array, target: Array) -> int:
    _validate.instance(where, "model", model, Layer)
    _validate.instance(where, "loss", loss, Callable)
    states.refuse_bidirectional(where, model)
    return _validate.stream(where, x, target)


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _scaled(state: State, factor: float) -> State:
    return state if factor == 1.0 else states.mapped(lambda a: a * a.dtype.type(factor), state)
