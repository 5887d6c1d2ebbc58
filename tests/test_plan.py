"""The plan of checkpoints: optimal, and what it says of itself is so."""

import itertools
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt import CheckpointPlan


@cache
def fewest_forward_steps(t: int, m: int) -> int:
    """C(t, m) of Gruslys et al. (2016), "hidden states only", by the recursion itself: run y steps,
    keep that state, do the right part with a slot less and then the left part."""
    if t == 1:
        return 1
    if m == 1:
        return t * (t + 1) // 2
    return min(
        y + fewest_forward_steps(t - y, m - 1) + fewest_forward_steps(y, m) for y in range(1, t)
    )


@pytest.mark.parametrize(("slots", "steps"), [(50, 2948), (20, 3747), (10, 4636)])
def test_the_paper_s_optima_for_a_thousand_steps(slots, steps):
    plan = CheckpointPlan(1000, slots)
    assert plan.forward_steps == steps
    assert plan.cost == steps / 1000
    assert sum(move.stop - move.start for move in plan.moves()) == steps


def test_the_plan_equals_the_dynamic_programme():
    for t, m in itertools.product(range(1, 41), range(1, 9)):
        assert CheckpointPlan(t, m).forward_steps == fewest_forward_steps(t, m), (t, m)


@given(T=st.integers(1, 200), slots=st.integers(1, 30), segment=st.integers(1, 30))
def test_the_moves_do_the_work_within_the_slots(T, slots, segment):
    plan = CheckpointPlan(T, slots, segment)
    bounds = [plan.bounds(k) for k in range(plan.segments)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == T
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    assert all(stop - start == segment for start, stop in bounds[1:])

    kept, steps, left = {0}, 0, plan.segments
    for move in plan.moves():
        assert move.start in kept
        steps += bounds[move.stop - 1][1] - bounds[move.start][0]
        if move.tape:
            left -= 1
            assert (move.start, move.stop) == (left, left + 1)
            kept.discard(move.start)
        else:
            kept.add(move.stop)
        # One more than slots: the state that was just reached and is used at once.
        assert len(kept) <= slots + 1
    assert left == 0
    assert steps == plan.forward_steps


def test_enough_slots_add_less_than_one_forward_pass():
    plan = CheckpointPlan(1_000_000, 999, 1000)
    assert plan.forward_steps == 1_000_000 + 999_000
    assert CheckpointPlan(1_000_000, 1, 1_000_000).forward_steps == 1_000_000


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((0, 1), ValueError, "T is 0 (int), expected an integer >= 1"),
        ((5, 0), ValueError, "slots is 0 (int), expected an integer >= 1"),
        ((5, 1, 0), ValueError, "segment is 0 (int), expected an integer >= 1"),
        ((5, 1.0), TypeError, "slots is 1.0 (float), expected an integer >= 1"),
        ((5, 1, 1, -1), ValueError, "memory is -1 (int), expected an integer >= 0"),
    ],
)
def test_plans_that_make_no_sense_are_refused(arguments, error, sentence):
    with pytest.raises(error) as caught:
        CheckpointPlan(*arguments)
    assert str(caught.value) == f"CheckpointPlan: {sentence}"
