"""`gradient_flow`: one exact gradient, taken apart by step and by lag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _core, _validate
from bptt.flow.lags import Way, by_lag, longest_way
from bptt.flow.result import Flow, LayerFlow
from bptt.flow.stages import (
    Curve,
    Direction,
    Map,
    Mask,
    Other,
    Recurrence,
    Stage,
    last_needed,
    stages,
)
from bptt.layers import Layer
from bptt.layers.base import State
from bptt.losses import Loss

Array: TypeAlias = NDArray[Any]

DEFAULT_MAX_LAG = 200


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
    times up to 8 groups of sequences (as many as fit into 1 GiB) for the standard error. Below a
    layer of two directions also for max_lag+2 gradients of that layer's whole x.

    Args:
        model: a recurrent layer, or a `Sequential` with at least one. Between its recurrent layers
            only `Linear`, `Activation` and dropout may stand; dropout's mask is held. In a stack, a
            lag counts the steps in time from the loss, through whatever layers it came: how often
            the gradient was handed from one step to the next. In a layer of two directions, that
            is back in time or ahead of it; each direction is told apart.
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
        ValueError: for a max_lag beyond T-1, a model without recurrent layer, or with a layer in
            between that can't be followed; by_way without an LSTM or without lags; a loss whose
            dprediction has another shape than the prediction.
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
    recurrences = [stage for stage in found if isinstance(stage, Recurrence)]
    if by_way and not any(its.directions[0].tape.cell == "lstm" for its in recurrences):
        raise ValueError(f"{where}: by_way is true, and model has no LSTM: only its c is a way")
    value, dprediction = _sent(where, loss, prediction, target)
    notes = []
    if any(isinstance(stage, Mask) for stage in found):
        notes.append("dropout: one mask was drawn; it is held for all steps, lags and windows")

    ways = _by_step(found, lowest, dprediction, lengths, full)
    if per_lag:
        with np.errstate(over="ignore", invalid="ignore"):  # Flow.warnings tells it in words
            by_lag(found, lowest, ways, max_lag, full, by_way)
        if max_lag < longest_way(ways, T):
            notes.append(f"lags beyond {max_lag} are in the full gradient, but were not told apart")
    return Flow(value, [way.flow for way in ways], notes)


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


def _by_step(
    found: list[Stage], lowest: int, dy: Array, lengths: Array | None, full: bool
) -> list[Way]:
    """Back through all stages down to the lowest recurrence; those first to last."""
    T = len(dy)
    alive = None if lengths is None else (np.arange(T)[:, None] < lengths)[:, :, None]
    ways: list[Way] = []
    for place in range(len(found) - 1, lowest - 1, -1):
        stage = found[place]
        if isinstance(stage, (Map, Curve, Mask)):
            dy = stage.back(dy, 0, T)
        elif isinstance(stage, Other):
            dx = stage.layer.backward(stage.tape, dy, retain=True).x
            assert dx is not None
            dy = dx
        else:
            its, below = [], None
            for direction in stage.directions:
                way, dx = _of_direction(place, direction, dy, alive, full)
                its.append(way)
                below = dx if below is None else below + dx
            ways[:0] = its
            assert below is not None
            dy = below
    return ways


def _of_direction(
    place: int, direction: Direction, dy: Array, alive: Array | None, full: bool
) -> tuple[Way, Array]:
    """What one direction of a recurrence makes of its share of dy, and its dx."""
    T, N, _, H = direction.tape.shape
    dy = np.ascontiguousarray(dy[..., direction.first : direction.first + H])
    grads, recurrent, dc, norms, shares, delta = _core.backward_traced(
        direction.tape, dy, None, None, full
    )
    flow = LayerFlow(
        direction.name,
        direction.tape.cell,
        direction.reverse,
        direct=dy if alive is None else np.where(alive, dy, 0).astype(dy.dtype),
        recurrent=recurrent,
        dc=dc,
        h=direction.tape.h,
        weight_hh=grads[4],
        valid_steps=T * N if alive is None else int(alive.sum()),
        norms_by_step=norms,
        weight_ih_by_step=shares[0],
        weight_hh_by_step=shares[1],
        bias_ih_by_step=shares[2],
        bias_hh_by_step=shares[3],
        delta=delta,
    )
    return Way(place, direction, dy, flow), grads[0]
