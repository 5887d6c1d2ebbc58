"""One exact gradient over a sequence whose tape would not fit into memory."""

from __future__ import annotations

import gc
from bisect import bisect
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from sys import getsizeof
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _core, _validate, states
from bptt.layers import Layer
from bptt.layers.base import State
from bptt.losses import Loss
from bptt.plan import CheckpointPlan, advances
from bptt.schedule import REDUCTIONS, Schedule, Update, add_gradients

__all__ = ["FullBPTT"]

Array: TypeAlias = NDArray[Any]
Count: TypeAlias = Callable[[Array], float]


class _Needs(NamedTuple):
    """What a model takes, in bytes, as probes found it.

    A short segment takes most when its workspaces are largest, a long one when its tape is. So the
    two are told apart: the most of them does not show how the other one grows.
    """

    steps: list[int]  # of each probe, ascending: 1, 2, ...
    passed: list[int]  # by a segment of so many steps without a tape
    held: list[int]  # by one with a tape: tape, head and gradients, when its way back begins
    beside: list[int]  # and the most that it takes beside these, before or after
    state: int  # of each state that is kept

    def segment(self, steps: int) -> int:
        found = max(
            self._of(steps, self.passed), self._of(steps, self.held) + self._of(steps, self.beside)
        )
        # Blocks of memory are rounded up, large ones by a sixteenth at most.
        return int(found * 9 / 8) + 2**14

    def _of(self, steps: int, found: list[int]) -> float:
        """What a workspace takes grows until a chunk is full: at most on as before, and not beyond
        the next probe's. The most of several grows faster at last: below the line between two."""
        if steps in self.steps:
            return found[self.steps.index(steps)]
        i = bisect(self.steps, steps) - 1
        rise = (found[i] - found[i - 1]) / (self.steps[i] - self.steps[i - 1])
        on = found[i] + max(rise, 0.0) * (steps - self.steps[i])
        if i + 1 == len(found):
            return on
        return max(float(np.interp(steps, self.steps, found)), min(on, found[i + 1]))

    def memory(self, slots: int, steps: int) -> int:
        # Beside the slots: the state that is run, the one that is made, the one handed back.
        return self.segment(steps) + self.state * (slots + 3)


class FullBPTT(Schedule):
    """The exact gradient over the whole stream: one update, nothing cut off.

    With a memory budget the stream runs in segments. First it runs forward without a tape and keeps
    states at some boundaries. Then segments run again, last first, now with a tape, head and loss,
    and each goes backward from what the one after it handed back. Which states are kept, and where
    the segments end, is the optimal plan for the budget (`plan`): with enough memory for one state
    a segment, all that is added is one more forward pass (Gruslys et al. 2016).

    The gradient is that in one piece, to rounding (with dropout, for the masks that the segments
    draw: they are drawn again when a segment runs again). The loss is called segment by segment,
    and its values are put together as `reduction` says.

    Arrays may be memory-mapped files: each is read segment by segment.

    Args:
        memory_budget: bytes for all that bptt allocates beyond model, input and target: states,
            one tape, head, gradients. What a loss written in NumPy allocates for one segment is
            not counted beyond its dprediction; nor are a few percent that the library keeps for
            the next call. None: everything in one piece, with the loss called once.
        reduction: how the loss reduces over the steps it is called with: "mean" or "sum". "sum" is
            also right for "mean_sequences" where no sequence is masked out of a whole segment.
        count: of a "mean" over other than all elements (a mask, an ignored target): target of a
            segment -> how many elements count there. None: each step counts the same.
    """

    def __init__(
        self,
        memory_budget: int | None = None,
        reduction: str = "mean",
        count: Count | None = None,
    ) -> None:
        if memory_budget is not None:
            memory_budget = _validate.size("FullBPTT", "memory_budget", memory_budget)
        self.memory_budget = memory_budget
        self._mean = _validate.choice("FullBPTT", "reduction", reduction, REDUCTIONS)
        self.reduction = reduction
        if count is not None:
            _validate.instance("FullBPTT", "count", count, Callable)
            if not self._mean:
                raise ValueError('FullBPTT: count is given, expected None with reduction "sum"')
        self.count = count

    def __repr__(self) -> str:
        return f"FullBPTT(memory_budget={self.memory_budget}, reduction={self.reduction!r})"

    def windows(self, T: int) -> int:
        """How many updates a stream of T steps gives: 1, or 0 where T is 0."""
        return min(1, _validate.size("FullBPTT.windows", "T", T, minimum=0))

    @property
    def separable(self) -> bool:
        return True

    def plan(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State = None
    ) -> CheckpointPlan:
        """The plan for a stream, with its predicted memory and cost; arguments are `run`'s.

        It runs some first steps to see what a step takes. Raises `ValueError` for a budget below
        the smallest possible, and says what that is.
        """
        T = self._checked("FullBPTT.plan", model, loss, x, target)
        if T == 0:
            raise ValueError(f"FullBPTT.plan: x has shape {x.shape}, expected T >= 1 steps")
        return self._plan(model, loss, x, target, state)[0]

    def run(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State = None
    ) -> Iterator[Update]:
        """As `Schedule.run`: one `Update`. Raises as `plan` does."""
        T = self._checked("FullBPTT.run", model, loss, x, target)
        if T == 0:
            return iter(())
        if self.memory_budget is None:
            return _in_one_piece(model, loss, x, target, state)
        return self._in_segments(model, loss, x, target, state)

    def _checked(self, where: str, model: Layer, loss: Loss, x: Array, target: Array) -> int:
        _validate.instance(where, "model", model, Layer)
        _validate.instance(where, "loss", loss, Callable)
        if self.memory_budget is not None:
            states.refuse_bidirectional(where, model)
            given = loss.keywords.get("reduction") if isinstance(loss, partial) else None
            if given is not None and (given == "mean") != self._mean:
                raise ValueError(
                    f"{where}: the loss has reduction {given!r}, this schedule {self.reduction!r}"
                )
        return _validate.stream(where, x, target)

    def _in_segments(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State
    ) -> Iterator[Update]:
        plan, random = self._plan(model, loss, x, target, state)
        T, shares = plan.T, self._shares(plan, target)
        kept = {0: (state, model.random_state)}  # by segment: what it begins with
        total: dict[str, Array] = {}
        value, final, dstate = 0.0, None, None
        for move in plan.moves():
            start, stop = plan.bounds(move.start)[0], plan.bounds(move.stop - 1)[1]
            if not move.tape:
                state, model.random_state = kept[move.start]
                for segment in range(move.start, move.stop):
                    its_x = x[slice(*plan.bounds(segment))]
                    if random:  # only a training pass draws what the pass with a tape will draw
                        state = model.forward(its_x, state)[1]
                    else:
                        state = states.run(model, its_x, state)
                kept[move.stop] = (state, model.random_state)
                continue
            state, model.random_state = kept.pop(move.start)
            prediction, state, tape = model.forward(x[start:stop], state)
            if stop == T:
                final, last_random = state, model.random_state
            its_value, dy = loss(prediction, target[start:stop])
            share = shares[move.start] if shares is not None else 1.0
            value += share * float(its_value)
            if share != 1.0:
                dy = dy * dy.dtype.type(share)
            del prediction
            found = model.backward(tape, dy, dstate)
            dstate = found.state
            add_gradients(total, found.parameters)
            del found, dy, tape
        model.random_state = last_random
        yield Update(0, T, value, total, final)

    def _shares(self, plan: CheckpointPlan, target: Array) -> list[float] | None:
        """What each segment's mean counts for in the whole mean; None for sums."""
        if not self._mean:
            return None
        bounds = [plan.bounds(k) for k in range(plan.segments)]
        if self.count is None:
            return [(stop - start) / plan.T for start, stop in bounds]
        counts = [
            _validate.number("FullBPTT.run", "count(target)", self.count(target[a:b]), 0.0)
            for a, b in bounds
        ]
        whole = sum(counts)
        return [count / whole if whole else 0.0 for count in counts]

    def _plan(
        self, model: Layer, loss: Loss, x: Array, target: Array, state: State
    ) -> tuple[CheckpointPlan, bool]:
        """The plan, and whether a training pass of the model draws random numbers."""
        T = len(x)
        before = model.random_state
        try:
            needs, random = _probe(model, loss, x, target, state, self.memory_budget or inf)
        finally:
            model.random_state = before
        if self.memory_budget is None:
            return CheckpointPlan(T, 1, T, needs.memory(1, T)), random
        smallest = needs.memory(1, min(2, T))  # what is run to find it
        if self.memory_budget < smallest:
            raise ValueError(
                f"FullBPTT: memory_budget is {self.memory_budget} bytes, "
                f"expected at least {smallest} for this model and stream"
            )
        return _best(T, needs, self.memory_budget), random


def _in_one_piece(
    model: Layer, loss: Loss, x: Array, target: Array, state: State
) -> Iterator[Update]:
    prediction, state, tape = model.forward(x, state)
    value, dy = loss(prediction, target)
    yield Update(0, len(x), float(value), model.backward(tape, dy).parameters, state)


def _best(T: int, needs: _Needs, budget: int) -> CheckpointPlan:
    """The plan with the fewest forward steps that fits, over segments of all promising sizes."""
    # For a given number of segments the shortest possible ones leave most room for states.
    numbers = {*range(1, min(T, 4096) + 1), *np.geomspace(1, T, 2048).astype(int).tolist()}
    best, fewest = None, inf
    for n in numbers:
        segment = -(-T // n)
        segments = -(-T // segment)
        room = budget - needs.memory(0, segment)
        if room < needs.state:
            continue
        slots = min(room // max(needs.state, 1), max(1, segments - 1))
        steps = T + advances(segments, slots) * segment
        if steps < fewest:
            best, fewest = (slots, segment), steps
    assert best is not None, "the smallest plan is always among them"
    slots, segment = best
    return CheckpointPlan(T, slots, segment, needs.memory(slots, segment))


def _probe(
    model: Layer, loss: Loss, x: Array, target: Array, state: State, budget: float
) -> tuple[_Needs, bool]:
    """Runs pieces of 1, 2, 4, 8, 32, ... steps forward and backward and sees what memory they take,
    as long as the next can be expected to stay within the budget."""
    random, drew = model.random_state, False
    needs = _Needs([], [], [], [], 0)
    collecting = gc.isenabled()
    gc.disable()  # what it frees would count as memory that a piece did not take
    _core.spend_most_memory(True)  # longer pieces may be worth more threads, or run side by side
    try:
        for steps in (1, 2, 4, 8, 32, 128, 512):
            if steps > 8 and 8 * steps > len(x):
                break
            if steps > len(x) or (steps > 2 and needs.segment(steps) > budget):
                break
            before = _core.used_memory()
            _core.reset_peak_memory()
            states.run(model, x[:steps], state)
            passed = _core.peak_memory() - before
            _core.reset_peak_memory()
            y, final, tape = model.forward(x[:steps], state)
            drew = drew or model.random_state != random
            dy = loss(y, target[:steps])[1]
            del y
            held = _core.used_memory() - before
            found = model.backward(tape, dy)
            beside = _core.peak_memory() - before - held
            # What a segment has beside: dy times its share, the sum of gradients.
            held += dy.nbytes
            kept, gradients = [*states.leaves(final)], [*found.parameters.values()]
            del final, tape, dy, found
            held += _freed(gradients)
            needs = _Needs(
                [*needs.steps, steps],
                [*needs.passed, passed],
                [*needs.held, held],
                [*needs.beside, beside],
                _freed(kept),
            )
    finally:
        _core.spend_most_memory(False)
        if collecting:
            gc.enable()
    return needs, drew


def _freed(arrays: list[Array]) -> int:
    """Empties a list that alone refers to its arrays, and returns how many bytes they took: NumPy's
    own, and those of the library, which are rounded up."""
    total, before = 0, _core.used_memory()
    while arrays:
        total += getsizeof(arrays.pop())
    return total + before - _core.used_memory()
