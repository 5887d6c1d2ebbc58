"""How far back the gradient of each update goes: truncated backpropagation through time."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

__all__ = ["Schedule", "TruncatedBPTT", "Update"]

Array: TypeAlias = NDArray[Any]


# How a loss reduces over the steps that it is called with: whether it is a mean.
REDUCTIONS = {"mean": True, "sum": False}


class Update(NamedTuple):
    """What one window gives for one update of the parameters."""

    start: int  #: first step of the window's losses
    stop: int  #: the step after the last
    loss: float  #: the loss of steps start..stop-1
    gradients: dict[str, Array]  #: its gradient through the latest k2 steps, by parameters' names
    state: State  #: the model's state after step stop-1
    apart: bool = True  #: whether no later window goes back into the steps before `stop`

    @property
    def steps(self) -> int:
        """How many time steps the window's losses cover: k1, in the last window T mod k1."""
        return self.stop - self.start


class Schedule(ABC):
    """Where the updates of a stream happen, and how far back the gradient of each goes.

    What `Trainer` asks of it is all here; a schedule of one's own needs `run` alone.
    """

    @abstractmethod
    def run(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State = None
    ) -> Iterator[Update]:
        """Runs `model` over a stream and yields an `Update` after each window.

        The caller may change the parameters in place between two updates. What is random is drawn
        when it is needed, window by window: `state_dict` then tells where the draws stand.

        Args:
            model: a layer or a `Sequential`.
            loss: (prediction, target) -> (value, dprediction), called once for each window.
            x, target: (T, N, ...).
            state: the model's before the first step; None is zero.
        """

    def windows(self, T: int) -> int | None:  # noqa: ARG002
        """How many updates a stream of T steps gives; None where only the run itself will tell."""
        return None

    @property
    def separable(self) -> bool:
        """Whether a run over x[t:] from `Update.state` goes on as the whole run would, where t is
        the `stop` of any of its updates that is `apart`."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """What the next window depends on beside parameters and stream, as the state of a random
        generator: numbers, strings, lists and dicts, which JSON can hold. Here: nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned. Raises `ValueError` for what is no such thing."""
        _validate.same_names(f"{type(self).__name__}.load_state_dict", "state", state, ())


def add_gradients(total: dict[str, Array], part: Mapping[str, Array]) -> None:
    """Adds to the arrays of `total` in place; those that it has not yet it takes."""
    with np.errstate(all="ignore"):  # a gradient that is not finite: the trainer's to tell
        for name, gradient in part.items():
            if name in total:
                total[name] += gradient
            else:
                total[name] = gradient


class _Segment(NamedTuple):
    start: int
    stop: int
    tape: LayerTape


class TruncatedBPTT(Schedule):
    """Every k1 steps, the losses of the latest k1 steps go back through the latest k2 steps.

    The state is carried from window to window and no loss is counted twice. k2 is not necessarily a
    multiple of k1, nor T, the stream's length: its last window has fewer losses, which go back
    through k2 steps like all others. k1 = k2 = T is full BPTT. (Williams & Peng 1990; Sutskever
    2013.)

    Where parameters change between windows and k2 > k1, older steps keep the activations that the
    older parameters made, and the way back through them uses the parameters as they are now:
    nothing is computed forward twice. The gradient is exact where the parameters did not change.

    A bidirectional layer needs all of its sequence at once: `run` refuses it, a `ValueError`, where
    there is more than one window.

    Args:
        k1: steps between two updates, >= 1.
        k2: steps that a loss goes back through, >= k1.
    """

    def __init__(self, k1: int, k2: int) -> None:
        self.k1 = _validate.size("TruncatedBPTT", "k1", k1)
        self.k2 = _validate.size("TruncatedBPTT", "k2", k2)
        if self.k2 < self.k1:
            raise ValueError(f"TruncatedBPTT: k2 is {k2}, expected k2 >= k1 = {k1}")

    def __repr__(self) -> str:
        return f"TruncatedBPTT(k1={self.k1}, k2={self.k2})"

    def windows(self, T: int) -> int:
        """How many updates a stream of T steps gives."""
        return -(-_validate.size("TruncatedBPTT.windows", "T", T, minimum=0) // self.k1)

    @property
    def separable(self) -> bool:
        return self.k1 == self.k2

    def run(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State = None
    ) -> Iterator[Update]:
        _validate.instance("TruncatedBPTT.run", "model", model, Layer)
        _validate.instance("TruncatedBPTT.run", "loss", loss, Callable)
        T = _validate.stream("TruncatedBPTT.run", x, target)
        if self.k1 < T:  # else it is full BPTT, in which nothing is carried on
            states.refuse_bidirectional("TruncatedBPTT.run", model)
        return self._updates(model, loss, x, target, state, T)

    def _updates(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State, T: int
    ) -> Iterator[Update]:
        # Each tape spans a segment, and the ends of segments are all places where a window's
        # losses end or its way back does: every window is then a whole number of tapes.
        ends = [*range(self.k1, T, self.k1), T] if T else []
        cuts = sorted({0, *ends, *(end - self.k2 for end in ends if end > self.k2)})
        segments = deque(pairwise(cuts))
        kept: deque[_Segment] = deque()  # oldest first
        start = 0
        for i, end in enumerate(ends):
            # Where the next window's way back ends: what is older, no window needs after this one.
            reach = ends[i + 1] - self.k2 if i + 1 < len(ends) else T
            predictions = []
            while segments and segments[0][1] <= end:
                a, b = segments.popleft()
                y, state, tape = model.forward(x[a:b], state)
                kept.append(_Segment(a, b, tape))
                predictions.append(y)
            prediction = predictions[0] if len(predictions) == 1 else np.concatenate(predictions)
            value, dprediction = loss(prediction, target[start:end])
            gradients = _backward(model, kept, dprediction, start, reach)
            while kept and kept[0].start < reach:
                kept.popleft()
            yield Update(start, end, float(value), gradients, state, apart=not kept)
            start = end


def _backward(
    model: Layer, segments: deque[_Segment], dprediction: Array, start: int, reach: int
) -> dict[str, Array]:
    """The sum of gradients over all segments, newest first.

    Losses are those from step `start` on; tapes from `reach` on stay usable.
    """
    total: dict[str, Array] = {}
    dstate: State = None
    for segment in reversed(segments):
        has_loss = segment.start >= start
        dy = dprediction[segment.start - start : segment.stop - start] if has_loss else None
        found = model.backward(segment.tape, dy, dstate, retain=segment.start >= reach)
        dstate = found.state
        add_gradients(total, found.parameters)
    return total
