"""Learning rates: their closed forms, what plateaus do, what they refuse."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bptt

lr = bptt.lr


def test_closed_forms():
    assert [lr.Constant(0.1).at(u) for u in (0, 7)] == [0.1, 0.1]
    assert [lr.Step(1.0, every=3, factor=0.5).at(u) for u in range(7)] == [
        1, 1, 1, 0.5, 0.5, 0.5, 0.25,
    ]  # fmt: skip
    assert lr.Exponential(2.0, 0.9).at(5) == pytest.approx(2 * 0.9**5)
    cosine = lr.Cosine(1.0, updates=14, warmup=4, final=0.2)
    assert [cosine.at(u) for u in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert cosine.at(4) == 1.0
    assert cosine.at(9) == pytest.approx(0.6)
    assert cosine.at(14) == cosine.at(99) == pytest.approx(0.2)


@given(updates=st.integers(2, 50), share=st.floats(0, 0.9), final=st.floats(0, 1))
def test_cosine_rises_and_then_falls(updates, share, final):
    warmup = int(share * updates)
    cosine = lr.Cosine(1.0, updates, warmup, final)
    rates = [cosine.at(u) for u in range(updates + 3)]
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert all(min(final, 1 / max(warmup, 1)) - 1e-12 <= rate <= 1 for rate in rates)


def test_plateaus_reduce_the_rate_after_patience():
    rate = lr.ReduceOnPlateau(1.0, factor=0.5, patience=2, min_delta=0.1, min_lr=0.3)
    seen = []
    for value in [5, 4, 3.95, 4, 4, 4, 4, 4, 4, 4, 4, 1]:
        rate.observe(value)
        seen.append(rate.at(0))
    #            best 4  waited 1, 2 and then reduced, twice; the second time to min_lr
    assert seen == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3, 0.3]
    assert rate.best == 1


def test_a_plateaus_state_is_all_that_it_is():
    values = [3, 2, 2, 2, 2, 1, 1, 1, 1, 1]
    whole = lr.ReduceOnPlateau(1.0, patience=1)
    for value in values:
        whole.observe(value)
    for cut in range(len(values)):
        first, second = lr.ReduceOnPlateau(1.0, patience=1), lr.ReduceOnPlateau(9.0, patience=1)
        for value in values[:cut]:
            first.observe(value)
        second.load_state_dict(first.state_dict())
        for value in values[cut:]:
            second.observe(value)
        assert second.state_dict() == whole.state_dict()


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (
        lambda: lr.Constant(-1),
        ValueError,
        "Constant: lr is -1 (int), expected a number in [0, inf)",
    ),
    (lambda: lr.Constant(math.nan), ValueError, "Constant: lr is nan"),
    (lambda: lr.Step(1, every=0), ValueError, "Step: every is 0 (int), expected an integer >= 1"),
    (lambda: lr.Step(1, 3, factor=0), ValueError, "Step: factor is 0"),
    (lambda: lr.Exponential(1, "0.9"), TypeError, "Exponential: factor is '0.9' (str)"),
    (
        lambda: lr.Cosine(1, 5, warmup=5),
        ValueError,
        "Cosine: warmup is 5, expected less than updates = 5",
    ),
    (lambda: lr.Cosine(1, 5.0), TypeError, "Cosine: updates is 5.0 (float)"),
    (lambda: lr.ReduceOnPlateau(1, factor=1), ValueError, "ReduceOnPlateau: factor is 1 (int)"),
    (lambda: lr.ReduceOnPlateau(1, patience=-1), ValueError, "ReduceOnPlateau: patience is -1"),
    (
        lambda: lr.ReduceOnPlateau(1).load_state_dict({"lr": 1.0}),
        ValueError,
        "ReduceOnPlateau.load_state_dict: state lacks ['best', 'waited']",
    ),
    (
        lambda: lr.Constant(1).load_state_dict({"lr": 1.0}),
        ValueError,
        "Constant.load_state_dict: state has unknown ['lr']",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), REFUSED)
def test_what_makes_no_sense_is_refused(call, error, sentence):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(sentence)
