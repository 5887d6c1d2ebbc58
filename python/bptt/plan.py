"""Where to keep states so that a long sequence goes backward in little memory: the optimal plan.

A sequence is cut into segments. Backward needs them last to first, each with its tape, and a
segment's tape is made by running it from its first state. Only states at some boundaries are kept,
in `slots`; others are made again from the nearest one before. Which boundaries to keep so that the
fewest steps run again is the problem of Griewank & Walther (2000), solved by binomial coefficients;
Gruslys et al. (2016) solve it for recurrent networks, and what is here is their case of "hidden
states only".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

from bptt import _validate

__all__ = ["CheckpointPlan", "Move"]


class Move(NamedTuple):
    """One action of a plan, on segments: those from `start` to `stop` - 1 are run forward from the
    state at the beginning of `start`."""

    start: int
    stop: int
    tape: bool  #: with a tape and backward (stop = start + 1); else only for the state at `stop`


@dataclass(frozen=True)
class CheckpointPlan:
    """How a sequence of T steps goes backward with `slots` kept states and segments of given size.

    All segments have `segment` steps but the first, which runs again most often: it has what is
    left. `CheckpointPlan(T, slots)` has segments of one step.

    Args:
        T: steps, >= 1.
        slots: how many states are kept at most at a time, >= 1, the initial one among them. The
            state that the network is just in is none of them.
        segment: steps whose tape is held at a time, >= 1.
        memory: what the plan takes, in bytes, where `FullBPTT.plan` measured it; else None.
    """

    T: int
    slots: int
    segment: int = 1
    memory: int | None = None

    def __post_init__(self) -> None:
        for name in ("T", "slots", "segment"):
            value = _validate.size("CheckpointPlan", name, getattr(self, name))
            object.__setattr__(self, name, value)
        if self.memory is not None:
            _validate.size("CheckpointPlan", "memory", self.memory, minimum=0)

    @property
    def segments(self) -> int:
        return -(-self.T // self.segment)

    @property
    def forward_steps(self) -> int:
        """How many steps are run forward in all, those with a tape included: T at least. It is the
        optimum for these segments and slots."""
        n, m = self.segments, self.slots
        runs_of_first, first = 1, n
        while first > 1:
            first = _first_part(first, m)
            runs_of_first += 1
        missing = n * self.segment - self.T  # of the first segment, which is shorter
        return (n + advances(n, m)) * self.segment - missing * runs_of_first

    @property
    def cost(self) -> float:
        """Forward steps per step of the sequence: 1 is nothing twice, 2 is one extra forward."""
        return self.forward_steps / self.T

    def bounds(self, segment: int) -> tuple[int, int]:
        """The first step of a segment and the one after its last."""
        start = self.T - (self.segments - segment) * self.segment
        return max(start, 0), start + self.segment

    def moves(self) -> Iterator[Move]:
        """The plan: what to run, in order. A state that a move without a tape reaches is kept
        until its own segment has gone backward."""
        pending = [(0, self.segments, self.slots)]  # segments from, to; slots, with that of `from`
        while pending:
            start, stop, m = pending.pop()
            if stop - start == 1:
                yield Move(start, stop, True)
                continue
            middle = start + _first_part(stop - start, m)
            yield Move(start, middle, False)
            pending += [(start, middle, m), (middle, stop, m - 1)]


def advances(n: int, m: int) -> int:
    """The fewest runs of segments without a tape that n segments need with m slots.

    With r the least number for which binomial(m + r, m) >= n it is r*n - binomial(m + r, m + 1)
    (Griewank & Walther 2000). Gruslys et al. (2016) count the n runs with a tape as well: their
    C(n, m) is this plus n.
    """
    r = _rounds(n, m)
    return r * n - comb(m + r, m + 1)


def _rounds(n: int, m: int) -> int:
    """The least r for which binomial(m + r, m) >= n: no segment runs without a tape more often."""
    if m == 1:
        return n - 1
    r = 0
    while comb(m + r, m) < n:
        r += 1
    return r


def _first_part(n: int, m: int) -> int:
    """After how many of n >= 2 segments the next state is kept, m >= 1 slots being there: the most
    for which the left part gets along with r - 1 rounds and m slots, and the right part is not so
    short that it wastes its r rounds with m - 1."""
    r = _rounds(n, m)
    return min(comb(m + r - 1, m), n - comb(m + r - 2, m - 1))
