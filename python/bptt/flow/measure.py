"""`gradient_flow`: one exact gradient, taken apart by step and by lag."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _core, _validate
from bptt.flow.result import Flow, LayerFlow
from bptt.flow.stages import Curve, Map, Mask, Other, Recurrence, Stage, last_needed, stages
from bptt.layers import Layer
from bptt.layers.base import State
from bptt.losses import Loss

Array: TypeAlias = NDArray[Any]

DEFAULT_MAX_LAG = 200
WORK_BYTES = 1 << 27  # for the rows of one call
ACCUMULATOR_BYTES = 1 << 30  # for all D[k], kept apart by groups of sequences
MOST_GROUPS = 8
GOOD_DEPTH = 128  # rows of one lag in one call that make its product worth its memory traffic


def gradient_flow(
    model: Layer,
    x: Array,
    target: Array,
    loss: Loss,
    max_lag: int | None = None,
    *,
    lengths: Array | None = None,
    reset: Array | None = None,
    state: State = None,
    per_lag: bool = True,
    by_way: bool = False,
    full: bool = False,
) -> Flow:
    """How the gradient of one batch came about, step by step and lag by lag.

    Lags run as further rows of the batch through the backward loop: it costs about as much as a
    backward pass over N*(max_lag+2) sequences, and memory for max_lag+2 gradients of each W_hh,
    times up to 8 groups of sequences (as many as fit into 1 GiB) for the standard error.

    Args:
        model: a recurrent layer, or a `Sequential` with at least one. Between its recurrent layers
            only `Linear` and dropout may stand; dropout's mask is held. In a stack, a lag counts
            the steps in time from the loss, through whatever layers it came.
        x, target: (T, N, ...), as for training.
        loss: (prediction, target) -> (value, dprediction), where dprediction[t] is what the loss at
            step t sends. With lengths it should mask what is beyond them.
        max_lag: how many steps each loss is followed, 0 <= max_lag < T; None: 200, or T-1 if that
            is less.
        lengths, reset, state: as for `forward`.
        per_lag: False leaves the lags out: what is by step costs hardly more than a backward pass.
        by_way: split each lag of the LSTMs by way, through c alone or through h: a second ledger of
            each, without products by W_hh, for about half as much again.
        full: also keep every step's share of all weights' and biases' gradients, delta, and W_hh's
            gradient of every lag.

    Returns:
        A `Flow`. Parameters and tapes are left as they were.

    Raises:
        ValueError: for a max_lag beyond T-1, a model without recurrent layer, with one in two
            directions, or with a layer in between that can't be followed; by_way without an LSTM
            or without lags; a loss whose dprediction has another shape than the prediction.
        TypeError: for a loss that returns no pair, or a dprediction of another dtype.
    """
    where = "gradient_flow"
    _validate.instance(where, "model", model, Layer)
    _validate.instance(where, "loss", loss, Callable)
    T = _validate.stream(where, x, target)
    if 0 in x.shape[:2]:
        raise ValueError(f"{where}: x has shape {x.shape}, expected T and N of at least 1")
    if max_lag is None:
        max_lag = min(DEFAULT_MAX_LAG, T - 1)
    max_lag = _validate.size(where, "max_lag", max_lag, minimum=0)
    if max_lag >= T:
        raise ValueError(f"{where}: max_lag is {max_lag}, expected 0 <= max_lag < T = {T}")
    for name, flag in (("per_lag", per_lag), ("by_way", by_way), ("full", full)):
        _validate.flag(where, name, flag)
    if by_way and not per_lag:
        raise ValueError(f"{where}: by_way is true, expected per_lag=True with it: it splits lags")

    prediction, _, tape = model.forward(x, state, lengths, reset)
    found = stages(model, tape)
    lowest = last_needed(found)
    if by_way and not any(isinstance(s, Recurrence) and s.tape.cell == "lstm" for s in found):
        raise ValueError(f"{where}: by_way is true, and model has no LSTM: only its c is a way")
    value, dprediction = _sent(where, loss, prediction, target)
    notes = []
    if any(isinstance(stage, Mask) for stage in found):
        notes.append("dropout: one mask was drawn; it is held for all steps, lags and windows")

    way = _by_step(found, lowest, dprediction, lengths, full)
    if per_lag:
        with np.errstate(over="ignore", invalid="ignore"):  # Flow.warnings tells it in words
            _by_lag(found, lowest, way, max_lag, full, by_way)
        if max_lag < T - 1:
            notes.append(f"lags beyond {max_lag} are in the full gradient, but were not told apart")
    return Flow(value, [w.flow for w in way], notes)


def _sent(where: str, loss: Loss, prediction: Array, target: Array) -> tuple[float, Array]:
    """The loss, and what it sends back."""
    returned: object = loss(prediction, target)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(
            f"{where}: loss returned a {type(returned).__name__}, "
            "expected the pair (value, dprediction)"
        )
    value, dprediction = returned
    _validate.same_kind(where, "loss's dprediction", dprediction, prediction)
    return float(value), dprediction


class _Way(NamedTuple):
    """A recurrence, the gradient of its y, and what was found."""

    place: int  #: among the stages
    tape: _core.Tape
    dy: Array
    flow: LayerFlow


def _by_step(
    found: list[Stage], lowest: int, dy: Array, lengths: Array | None, full: bool
) -> list[_Way]:
    """Back through all stages down to the lowest recurrence; those first to last."""
    T, N = dy.shape[:2]
    alive = None if lengths is None else (np.arange(T)[:, None] < lengths)[:, :, None]
    ways = []
    for place in range(len(found) - 1, lowest - 1, -1):
        stage = found[place]
        if isinstance(stage, (Map, Curve, Mask)):
            dy = stage.back(dy, 0, T)
        elif isinstance(stage, Other):
            dx = stage.layer.backward(stage.tape, dy, retain=True).x
            assert dx is not None
            dy = dx
        else:
            dy = np.ascontiguousarray(dy)
            grads, recurrent, dc, norms, shares, delta = _core.backward_traced(
                stage.tape, dy, None, None, full
            )
            flow = LayerFlow(
                stage.name,
                stage.tape.cell,
                direct=dy if alive is None else np.where(alive, dy, 0).astype(dy.dtype),
                recurrent=recurrent,
                dc=dc,
                h=stage.tape.h,
                weight_hh=grads[4],
                valid_steps=T * N if alive is None else int(alive.sum()),
                norms_by_step=norms,
                weight_ih_by_step=shares[0],
                weight_hh_by_step=shares[1],
                bias_ih_by_step=shares[2],
                bias_hh_by_step=shares[3],
                delta=delta,
            )
            ways.append(_Way(place, stage.tape, dy, flow))
            dy = grads[0]
    return ways[::-1]


# ---- lags ----------------------------------------------------------------------------------------


def _by_lag(
    found: list[Stage], lowest: int, ways: list[_Way], K: int, full: bool, by_way: bool
) -> None:
    """Fills in what is by lag and by window."""
    T, N, _, _ = ways[0].tape.shape
    groups = _groups(ways, K, N)
    ledgers = {way.place: _core.Ledger(way.tape, K, groups, False) for way in ways}
    through_c = {
        way.place: _core.Ledger(way.tape, K, 1, True)
        for way in ways
        if by_way and way.tape.cell == "lstm"
    }
    maps = {way.place: np.full((T, K + 1, N), np.nan) for way in ways}
    steps = _steps_of_a_call(ways, K, groups, T, N)
    top = ways[-1]
    for last in range(T, 0, -steps):
        first = max(0, last - steps)
        rows: Array = top.dy
        for place in range(top.place, lowest - 1, -1):
            stage = found[place]
            if isinstance(stage, Recurrence):
                by_slots, more = place != top.place, place != lowest
                if place in through_c:
                    through_c[place].back(first, rows, by_slots, False)
                maps[place][first:last], dx = ledgers[place].back(first, rows, by_slots, more)
                if dx is not None:
                    rows = dx
            elif isinstance(stage, (Map, Curve, Mask)):
                rows = np.ascontiguousarray(stage.back(rows, first, last))

    seen = np.arange(T)[:, None] + np.arange(K + 1) < T
    for way in ways:
        flow = way.flow
        parts = ledgers[way.place].weight_hh
        squares = np.square(maps[way.place]).sum(axis=2)
        flow.lag_map = np.where(seen, np.sqrt(squares), np.nan).T
        whole = parts[:, -1].sum(axis=0)
        flow.norm_by_lag, flow.cosine_by_lag = _norms_and_cosines(
            (parts[:, k].sum(axis=0) for k in range(K + 1)), whole
        )
        if full:
            flow.weight_hh_by_lag = parts[:, :-1].sum(axis=0)
        if way.place in through_c:
            by_c = through_c[way.place].weight_hh[0]
            by_h = (parts[:, k].sum(axis=0) - by_c[k] for k in range(K + 1))
            flow.norm_by_lag_through_c, _ = _norms_and_cosines(by_c[:-1], whole)
            flow.weight_hh_by_lag_through_c = by_c[:-1].copy() if full else None
            flow.norm_by_lag_through_h, _ = _norms_and_cosines(by_h, whole)
            flow.norm_by_lag_through_h[0] = 0  # nothing has passed W_hh yet; the rest is rounding
        flow.bias_by_window, flow.bias_error_by_window, flow.cosine_by_window = _windows(parts)


def _groups(ways: list[_Way], K: int, N: int) -> int:
    """How many groups of sequences are kept apart."""
    total = sum(way.flow.weight_hh.nbytes for way in ways) * (K + 2)
    fit = ACCUMULATOR_BYTES // max(1, total)
    return int(max(1, min(MOST_GROUPS, N, fit)))


def _steps_of_a_call(ways: list[_Way], K: int, groups: int, T: int, N: int) -> int:
    """As many as there is room for, and no more than make it efficient."""
    widest = max(
        way.flow.weight_hh.shape[0] + way.tape.shape[2] + 2 * way.tape.shape[3] for way in ways
    )
    fit = WORK_BYTES // ((K + 2) * N * widest * ways[0].dy.itemsize)
    return int(min(T, max(1, min(fit, -(-GOOD_DEPTH * groups // N)))))


def _norms_and_cosines(parts: Iterable[Array], whole: Array) -> tuple[Array, Array]:
    """Of each of parts, and to `whole`; the cosine to or of nothing is 0."""
    flat = whole.ravel().astype(np.float64)
    norms, dots = [], []
    for part in parts:
        its = part.ravel().astype(np.float64)
        norms.append(np.sqrt(its @ its))
        dots.append(its @ flat)
    return np.array(norms), _ratio(np.array(dots), np.array(norms) * np.sqrt(flat @ flat))


def _windows(parts: Array) -> tuple[Array, Array, Array]:
    """Relative bias, its standard error, and cosine, for windows of 1..K+1 steps.

    parts (B, K+2, ...): D[k] of each group of sequences, and last the whole. The standard error is
    that of the jackknife: the bias of the batch without one group after the other (Tukey 1958).
    """
    B, count = len(parts), parts.shape[1] - 1
    flat = parts.reshape(B, count + 1, -1)
    whole = flat[:, -1].astype(np.float64)
    rest = whole.copy()  # what the window leaves out
    of_whole, total = whole @ whole.T, whole.sum(axis=0)
    bias, error, cosine = np.zeros(count), np.full(count, np.nan), np.zeros(count)
    pick = np.ones((B, B)) - np.eye(B)
    full_norm = np.sqrt(of_whole.sum())
    for k in range(count):
        rest -= flat[:, k]
        of_rest, with_whole = rest @ rest.T, (rest @ total).sum()
        square = max(0.0, of_rest.sum())
        bias[k] = _ratio(np.sqrt(square), full_norm)
        kept_square = max(0.0, of_whole.sum() - 2 * with_whole + square)
        cosine[k] = _ratio(of_whole.sum() - with_whole, full_norm * np.sqrt(kept_square))
        if B > 1:
            without = np.einsum("ib,bc,ic->i", pick, of_rest, pick).clip(min=0)
            its_whole = np.einsum("ib,bc,ic->i", pick, of_whole, pick).clip(min=0)
            biases = _ratio(np.sqrt(without), np.sqrt(its_whole))
            error[k] = np.sqrt((B - 1) / B * np.square(biases - biases.mean()).sum())
    return bias, error, cosine


def _ratio(a: Any, b: Any) -> Any:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros_like(np.asarray(a, np.float64)), where=np.asarray(b) != 0)
