"""What is by lag and by window: each recurrence's ledger, and what its parts add up to.

Between two stages go rows of gradient (steps, max_lag+2, N, V). What was handed on k times and has
come to step t is in slot (t+k) mod (max_lag+1) of that step, where a ledger that takes the steps in
their order has it; all of it together is in the last slot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _core
from bptt.flow.result import LayerFlow
from bptt.flow.stages import Curve, Direction, Map, Mask, Recurrence, Stage

Array: TypeAlias = NDArray[Any]

WORK_BYTES = 1 << 27  # for the rows of one call
ACCUMULATOR_BYTES = 1 << 30  # for all D[k], kept apart by groups of sequences
MOST_GROUPS = 8
GOOD_DEPTH = 128  # rows of one lag in one call that make its product worth its memory traffic


class Way(NamedTuple):
    """The gradient's way through one direction of a recurrence, and what was found of it."""

    place: int  #: of the recurrence among the stages
    direction: Direction
    dy: Array  #: the gradient of its y
    flow: LayerFlow

    @property
    def tape(self) -> _core.Tape:
        return self.direction.tape


def by_lag(
    found: list[Stage], lowest: int, ways: list[Way], K: int, full: bool, by_way: bool
) -> None:
    """Fills in what is by lag and by window."""
    T, N, _, _ = ways[0].tape.shape
    groups = _groups(ways, K, N)
    steps = _steps_of_a_call(ways, K, groups, T, N)
    through = {
        place: [
            _Through(way, K, groups, steps, _both_ways(way, ways), by_way)
            for way in ways
            if way.place == place
        ]
        for place in {way.place for way in ways}
    }
    top = ways[-1].place
    # A layer of two directions needs all steps of the one above it.
    at_once = steps if not any(way.direction.reverse for way in ways) else T
    for last in range(T, 0, -at_once):
        first = max(0, last - at_once)
        rows: Array | None = None
        for place in range(top, lowest - 1, -1):
            stage = found[place]
            if isinstance(stage, Recurrence):
                below: Array | None = None
                for its in through[place]:
                    dx = its.back(first, last, rows, place != lowest)
                    if dx is not None:
                        below = dx if below is None else np.add(below, dx, out=below)
                rows = below
            elif isinstance(stage, (Map, Curve, Mask)):
                assert rows is not None
                rows = np.ascontiguousarray(stage.back(rows, first, last))
    for several in through.values():
        for its in several:
            its.tell(full)


def longest_way(ways: list[Way], T: int) -> int:
    """So many steps at most a gradient is handed on: all of them, wherever it turns once more."""
    turns = len({way.place for way in ways if _both_ways(way, ways)})
    return (1 + turns) * (T - 1)


def _both_ways(way: Way, ways: list[Way]) -> bool:
    """Whether a direction above it hands gradients the other way."""
    return any(
        other.place > way.place and other.direction.reverse != way.direction.reverse
        for other in ways
    )


class _Through:
    """The ledgers of one direction."""

    def __init__(
        self, way: Way, K: int, groups: int, steps: int, both_ways: bool, by_way: bool
    ) -> None:
        self._way, self._K, self._steps, self._both_ways = way, K, steps, both_ways
        self._ledger = _core.Ledger(way.tape, K, groups, False, both_ways)
        self._through_c: _core.Ledger | None = None
        if by_way and way.tape.cell == "lstm":
            self._through_c = _core.Ledger(way.tape, K, 1, True, both_ways)
        T, N, _, _ = way.tape.shape
        self._map = np.full((T, K + 1, N), np.nan)

    def back(self, first: int, last: int, rows: Array | None, more: bool) -> Array | None:
        """Through steps first..last-1, some at a time. rows: of these steps, all units; None: dy.
        Returns what the stage below gets, where there is `more`."""
        T, N, D, _ = self._way.tape.shape
        reverse = self._way.direction.reverse
        below = None
        starts = range(first, last, self._steps) if reverse else range(last, first, -self._steps)
        for start in starts:
            a, b = (start, start + self._steps) if reverse else (start - self._steps, start)
            a, b = max(first, a), min(last, b)
            dy = self._way.dy if rows is None else self._rows_of(rows[a - first : b - first], a)
            arguments = (T - b if reverse else a, dy, rows is not None)
            if self._through_c is not None:
                self._through_c.back(*arguments, False)
            self._map[a:b], dx = self._ledger.back(*arguments, more)
            if dx is None:
                continue
            if reverse:
                dx = self._turned(dx, a, -1)
            if b - a == last - first:
                return dx
            if below is None:
                below = np.empty((last - first, self._K + 2, N, D), dx.dtype)
            below[a - first : b - first] = dx
        return below

    def _rows_of(self, rows: Array, first: int) -> Array:
        """This direction's units, and its slots."""
        start, H = self._way.direction.first, self._way.tape.shape[3]
        rows = rows[..., start : start + H]
        if self._way.direction.reverse:
            return self._turned(rows, first, 1)
        return np.ascontiguousarray(rows)

    def _turned(self, rows: Array, first: int, sign: int) -> Array:
        """The slots from where time goes forward to where it goes in reverse (1), or back (-1):
        there step t is taken as T-1-t-th, and gives its lags slots accordingly."""
        T, slots = self._way.tape.shape[0], self._K + 1
        t = np.arange(first, first + len(rows))[:, None]
        slot = np.empty((len(rows), slots + 1), np.intp)
        slot[:, :slots] = (np.arange(slots) - sign * (T - 1 - 2 * t)) % slots
        slot[:, slots] = slots
        return rows[np.arange(len(rows))[:, None], slot]

    def tell(self, full: bool) -> None:
        """What was found goes into the flow."""
        flow, parts = self._way.flow, self._ledger.weight_hh
        flow.both_ways = self._both_ways
        flow.lag_map = np.where(self._seen(), np.sqrt(np.square(self._map).sum(axis=2)), np.nan).T
        lag, rest = self._ledger.sums()
        flow.norm_by_lag = np.sqrt(lag[:-1, 0])
        flow.cosine_by_lag = _ratio(lag[:-1, 1], flow.norm_by_lag * np.sqrt(lag[-1, 0]))
        flow.bias_by_window, flow.bias_error_by_window, flow.cosine_by_window = _windows(lag, rest)
        if full:
            flow.weight_hh_by_lag = parts[:, :-1].sum(axis=0)
        if self._through_c is not None:
            by_c = self._through_c.weight_hh[0, :-1]
            by_h = (parts[:, k].sum(axis=0) - its for k, its in enumerate(by_c))
            flow.norm_by_lag_through_c = np.sqrt(self._through_c.sums()[0][:-1, 0])
            flow.weight_hh_by_lag_through_c = by_c.copy() if full else None
            flow.norm_by_lag_through_h = _norms(by_h)
            flow.norm_by_lag_through_h[0] = 0  # nothing has passed W_hh yet; the rest is rounding

    def _seen(self) -> Array:
        """Whether anything can come so many steps to a step: (T, K+1)."""
        T = self._way.tape.shape[0]
        if self._both_ways:
            return np.ones((T, self._K + 1), bool)
        t = np.arange(T)[:, None]
        ahead = t if self._way.direction.reverse else T - 1 - t
        return np.arange(self._K + 1) <= ahead


def _groups(ways: list[Way], K: int, N: int) -> int:
    """How many groups of sequences are kept apart."""
    total = sum(way.flow.weight_hh.nbytes for way in ways) * (K + 2)
    fit = ACCUMULATOR_BYTES // max(1, total)
    return int(max(1, min(MOST_GROUPS, N, fit)))


def _steps_of_a_call(ways: list[Way], K: int, groups: int, T: int, N: int) -> int:
    """As many as there is room for, and no more than make it efficient."""
    widest = max(
        way.flow.weight_hh.shape[0] + way.tape.shape[2] + 2 * way.tape.shape[3] for way in ways
    )
    fit = WORK_BYTES // ((K + 2) * N * widest * ways[0].dy.itemsize)
    return int(min(T, max(1, min(fit, -(-GOOD_DEPTH * groups // N)))))


def _norms(parts: Iterable[Array]) -> Array:
    return np.array([np.linalg.norm(part.ravel().astype(np.float64)) for part in parts])


def _windows(lag: Array, rest: Array) -> tuple[Array, Array, Array]:
    """Relative bias, its standard error, and cosine, for windows of 1..max_lag+1 steps.

    lag (max_lag+2, 2), rest (max_lag+2, B, 2): the ledger's sums. The standard error is that of the
    jackknife: the bias of the batch without one group after the other (Tukey 1958).
    """
    B, whole = rest.shape[1], lag[-1, 0]
    of_all = rest[:, :, 1].sum(axis=1).clip(min=0)  # |rest|^2
    kept_with_whole = lag[:-1, 1].cumsum()
    kept = np.sqrt((2 * kept_with_whole - whole + of_all[1:]).clip(min=0))
    cosine = _ratio(kept_with_whole, np.sqrt(whole) * kept)
    without = np.sqrt((of_all[:, None] - 2 * rest[:, :, 1] + rest[:, :, 0]).clip(min=0))
    bias = _ratio(np.sqrt(of_all), np.sqrt(whole))
    spread = _ratio(without, without[0])
    spread -= spread.mean(axis=1, keepdims=True)
    error = np.sqrt((B - 1) / B * np.square(spread).sum(axis=1))
    if B == 1:
        error[:] = np.nan
    return bias[1:], error[1:], cosine


def _ratio(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(np.asarray(a, np.float64)), where=np.asarray(b) != 0)
