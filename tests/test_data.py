"""The trainer's two kinds of data: what is run over in which order, with which gradients."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import bptt
from networks import assert_close

Array = NDArray[Any]
mse = bptt.losses.mse
cross_entropy = bptt.losses.softmax_cross_entropy


def model(outputs: int = 2, seed: int = 0) -> bptt.Sequential:
    return bptt.Sequential(
        bptt.GRU(3, 5, dtype=np.float64, seed=seed),
        bptt.Linear(5, outputs, dtype=np.float64, seed=1),
    )


def sequences(rng: np.random.Generator, T: int, S: int, per: str, **options: Any) -> bptt.Sequences:
    x = rng.standard_normal((T, S, 3))
    target = rng.standard_normal((T, S, 2) if per == "step" else (S, 2))
    return bptt.Sequences(x, target, per=per, **options)


@pytest.mark.parametrize("per", ["step", "sequence"])
@given(
    T=st.integers(1, 7),
    S=st.integers(1, 9),
    batch_size=st.integers(1, 10),
    shuffle=st.booleans(),
    seed=st.integers(0, 99),
)
def test_each_batch_is_what_its_sequences_alone_would_give(per, T, S, batch_size, shuffle, seed):
    """With summed losses, gradients of an epoch add up to those of all sequences one by one."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0 if per == "step" else 1, T + 1, S)
    data = sequences(rng, T, S, per, lengths=lengths, batch_size=batch_size, shuffle=shuffle)
    network = model()

    def total(prediction: Array, target: Array, mask: Array | None = None) -> tuple[float, Array]:
        return mse(prediction, target, mask, "sum")

    steps = list(data.run(network, total, None, epoch=1))
    assert len(steps) == -(-S // batch_size)
    assert [step.position for step in steps] == [
        min((i + 1) * batch_size, S) for i in range(len(steps))
    ]
    value, gradients = 0.0, {name: np.zeros_like(p) for name, p in network.parameters.items()}
    for s, k in enumerate(lengths):
        if k == 0:
            continue
        y, _, tape = network.forward(np.ascontiguousarray(data.x[:k, s : s + 1]))
        if per == "step":
            its_value, dy = total(y, data.target[:k, s : s + 1])
        else:
            dy = np.zeros_like(y)
            its_value, dy[-1] = total(y[-1], data.target[s : s + 1])
        value += its_value
        for name, g in network.backward(tape, dy).parameters.items():
            gradients[name] += g
    assert sum(step.update.loss for step in steps) == pytest.approx(value)
    for name, g in gradients.items():
        assert_close(sum(step.update.gradients[name] for step in steps), g, 1e-12)


@pytest.mark.parametrize("per", ["step", "sequence"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_is_the_mean_over_all_valid_targets(per, batch_size, rng):
    T, S = 6, 9
    lengths = rng.integers(1, T + 1, S)
    data = sequences(rng, T, S, per, lengths=lengths, batch_size=batch_size)
    network = model()
    y, _ = network.predict(data.x)
    if per == "step":
        expected, _ = mse(y, data.target, bptt.losses.length_mask(lengths, T))
    else:
        expected, _ = mse(y[lengths - 1, np.arange(S)], data.target)
    assert data.evaluate(network, mse) == pytest.approx(expected, rel=1e-13)


def test_sequences_run_in_both_directions_and_may_be_empty(rng):
    T, S = 6, 9
    lengths = np.array([0, 0, 0, 6, 2, 0, 3, 1, 5])
    data = sequences(rng, T, S, "step", lengths=lengths, batch_size=3, shuffle=False)
    network = bptt.Sequential(
        bptt.LSTM(3, 4, bidirectional=True, dtype=np.float64, seed=0),
        bptt.Linear(8, 2, dtype=np.float64, seed=1),
    )
    y, _ = network.predict(data.x, None, lengths)
    expected, _ = mse(y, data.target, bptt.losses.length_mask(lengths, T))
    assert data.evaluate(network, mse) == pytest.approx(expected, rel=1e-13)
    first, *_ = data.run(network, mse, None, epoch=1)  # its sequences have no steps at all
    assert first.update.loss == 0
    assert not any(g.any() for g in first.update.gradients.values())


def test_an_epochs_order_depends_on_seed_and_epoch_alone():
    seen: list[Array] = []

    def spy(prediction: Array, target: Array) -> tuple[float, Array]:
        seen.append(target[:, 0])
        return mse(prediction, target)

    def order(epoch: int, **options: Any) -> Array:
        seen.clear()
        x, target = np.zeros((2, 20, 3)), np.arange(20.0)[:, None].repeat(2, 1)
        data = bptt.Sequences(x, target, per="sequence", batch_size=6, **options)
        list(data.run(model(), spy, None, epoch))
        return np.concatenate(seen)

    assert np.array_equal(order(1), order(1))
    assert not np.array_equal(order(1), order(2))
    assert not np.array_equal(order(1), order(1, seed=1))
    assert np.array_equal(np.sort(order(3)), np.arange(20))
    assert np.array_equal(order(3, shuffle=False), np.arange(20))


def test_streams_are_what_the_schedule_yields(rng):
    x, target = rng.standard_normal((11, 2, 3)), rng.standard_normal((11, 2, 2))
    network, schedule = model(), bptt.TruncatedBPTT(4, 4)
    steps = list(bptt.data.Streams(x, target).run(network, mse, schedule, 1))
    updates = list(schedule.run(network, mse, x, target))
    assert [step.position for step in steps] == [4, None, 11]
    assert [s.update.loss for s in steps] == [u.loss for u in updates]
    # From any of these positions, the rest is the same to the bit.
    rest = list(bptt.data.Streams(x, target).run(network, mse, schedule, 1, 4, steps[0].state))
    for step, update in zip(rest, updates[1:], strict=True):
        assert (step.update.start, step.update.stop) == (update.start, update.stop)
        for name, g in update.gradients.items():
            assert np.array_equal(step.update.gradients[name], g)
    overlapping = bptt.data.Streams(x, target).run(network, mse, bptt.TruncatedBPTT(4, 6), 1)
    assert [step.position for step in overlapping] == [None, None, 11]


def test_metrics():
    logits = np.array([[[1.0, 2], [3, 0]], [[0, 1], [0, 1]]])
    target = np.array([[1, 0], [1, 0]])
    assert bptt.metrics.accuracy(logits, target) == 0.75
    assert bptt.metrics.accuracy(logits, target, np.array([[1, 1], [1, 0]], bool)) == 1
    assert bptt.metrics.accuracy(logits, target, np.zeros((2, 2), bool)) == 0
    assert bptt.metrics.mean_absolute_error(np.array([[1.0, -3]]), np.zeros((1, 2))) == 2
    mask = np.array([[True, False]])
    assert bptt.metrics.mean_absolute_error(np.array([[1.0, -3]]), np.zeros((1, 2)), mask) == 1


# ---- bad input ---------------------------------------------------------------------------------

X, Y = np.zeros((5, 4, 3)), np.zeros((5, 4, 2))

REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: bptt.Sequences([1], Y), TypeError, "x is a list, expected an array"),
    (lambda: bptt.Sequences(X, None), TypeError, "target is a NoneType, expected an array"),
    (lambda: bptt.Sequences(X[0, 0], Y), ValueError, "x has shape (3,), expected (T, S, ...)"),
    (
        lambda: bptt.Sequences(X, Y[:, :3]),
        ValueError,
        "target has shape (5, 3, 2), expected (T, S) = (5, 4) first",
    ),
    (
        lambda: bptt.Sequences(X, Y, per="sequence"),
        ValueError,
        "target has shape (5, 4, 2), expected (S) = (4,) first",
    ),
    (
        lambda: bptt.Sequences(X[:0], Y[:0]),
        ValueError,
        "x has shape (0, 4, 3), expected T >= 1 steps, S >= 1",
    ),
    (
        lambda: bptt.Sequences(X, Y, np.array([1, 2, 3])),
        ValueError,
        "lengths has shape (3,), expected (N,) = (4,)",
    ),
    (
        lambda: bptt.Sequences(X, Y, np.array([1, 2, 6, 0])),
        ValueError,
        "lengths[2] is 6, expected 0 <= length <= T = 5",
    ),
    (
        lambda: bptt.Sequences(X, Y[0], np.array([1, 0, 5, 2]), per="sequence"),
        ValueError,
        "lengths[1] is 0, expected 1 <= length <= T = 5",
    ),
    (
        lambda: bptt.Sequences(X, Y, np.ones(4)),
        TypeError,
        "lengths has dtype float64, expected integers",
    ),
    (
        lambda: bptt.Sequences(X, Y, per="batch"),
        ValueError,
        "per is 'batch' (str), expected one of 'step', 'sequence'",
    ),
    (lambda: bptt.Sequences(X, Y, batch_size=0), ValueError, "batch_size is 0 (int), expected"),
    (lambda: bptt.Sequences(X, Y, seed=None), TypeError, "seed is None (NoneType), expected"),
    (lambda: bptt.Sequences(X, Y, shuffle=1), TypeError, "shuffle is 1 (int), expected True"),
    (lambda: bptt.data.Streams(X[:0], Y[:0]), ValueError, "x has shape (0, 4, 3), expected T >= 1"),
    (
        lambda: bptt.data.Streams(X, Y[:3]),
        ValueError,
        "target has shape (3, 4, 2), expected (T, N)",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), REFUSED)
def test_data_that_do_not_fit_are_refused(call, error, sentence):
    with pytest.raises(error) as caught:
        call()
    where, _, text = str(caught.value).partition(": ")
    assert where in ("Sequences", "Streams")
    assert text.startswith(sentence)
