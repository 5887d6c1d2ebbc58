"""Truncated BPTT: its exact meaning, against brute force."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import bptt
import reference
from models import V, character_model
from networks import assert_close

Array = NDArray[Any]

LAYERS: dict[str, Any] = {
    "rnn_tanh": lambda D, H: bptt.RNN(D, H, dtype=np.float64, seed=0),
    "lstm": lambda D, H: bptt.LSTM(D, H, dtype=np.float64, seed=0),
    "gru": lambda D, H: bptt.GRU(D, H, dtype=np.float64, seed=0),
    "gru_reset_before": lambda D, H: bptt.GRU(D, H, dtype=np.float64, seed=0, reset_after=False),
}
cells = pytest.mark.parametrize("cell", LAYERS)

spans = st.tuples(st.integers(1, 24), st.integers(1, 9), st.integers(0, 12)).map(
    lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])  # T, k1, k2
)


def inner_product(prediction: Array, target: Array) -> tuple[float, Array]:
    """A loss whose gradient is the target: what backward gets is then known beforehand."""
    return float((prediction * target).sum()), target.copy()


def total(updates: list[Any]) -> dict[str, Array]:
    return {
        name: np.sum([u.gradients[name] for u in updates], axis=0) for name in updates[0].gradients
    }


@cells
@given(span=spans, seed=st.integers(0, 99))
def test_the_sum_of_all_windows_equals_the_references_brute_force(cell, span, seed):
    (T, k1, k2), N, D, H = span, 2, 3, 4
    rng = np.random.default_rng(seed)
    layer = LAYERS[cell](D, H)
    x, dy = rng.standard_normal((T, N, D)), rng.standard_normal((T, N, H))
    updates = list(bptt.TruncatedBPTT(k1, k2).run(layer, inner_product, x, dy))
    weights = reference.Weights(*layer.parameters.values())
    expected = reference.truncated_bptt(cell, x, weights, dy, k1, k2)
    for name, gradient in total(updates).items():
        assert_close(gradient, getattr(expected, name.removesuffix("_l0")), 1e-12)


@given(span=spans, seed=st.integers(0, 99))
def test_each_window_equals_brute_force_through_a_whole_model(span, seed):
    """Of each window: forward anew from the start, backward from its losses to step end-k2."""
    T, k1, k2 = span
    rng = np.random.default_rng(seed)
    model = character_model()
    x, target = rng.integers(0, V, (T, 2)), rng.integers(0, V, (T, 2))
    loss = bptt.losses.softmax_cross_entropy
    stop = 0
    for update in bptt.TruncatedBPTT(k1, k2).run(model, loss, x, target):
        assert update.start == stop
        stop = min(update.start + k1, T)
        assert update.stop == stop
        assert update.steps == stop - update.start

        begin = max(0, stop - k2)
        _, constant = model.predict(x[:begin])
        y, state, tape = model.forward(x[begin:stop], constant)
        skip = update.start - begin  # steps whose losses belong to windows before
        value, dy_window = loss(y[skip:], target[update.start : stop])
        dy = np.concatenate([np.zeros_like(y[:skip]), dy_window])
        expected = model.backward(tape, dy).parameters

        assert update.loss == pytest.approx(value, rel=1e-12)
        assert list(update.gradients) == list(model.parameters)
        for name, gradient in expected.items():
            assert_close(update.gradients[name], gradient, 1e-12)
        for a, e in zip(update.state[1], state[1], strict=True):
            assert_close(a, e, 1e-12)
    assert stop == T


@cells
def test_one_window_over_everything_is_full_bptt_to_the_bit(cell, rng):
    T, N, D, H = 13, 3, 4, 5
    layer = LAYERS[cell](D, H)
    x, target = rng.standard_normal((T, N, D)), rng.standard_normal((T, N, H))
    (update,) = bptt.TruncatedBPTT(T, T).run(layer, bptt.losses.mse, x, target)
    y, _, tape = layer.forward(x)
    value, dy = bptt.losses.mse(y, target)
    expected = layer.backward(tape, dy).parameters
    assert update.loss == value
    assert {n: g.tobytes() for n, g in update.gradients.items()} == {
        n: g.tobytes() for n, g in expected.items()
    }


@given(span=spans)
def test_where_k2_reaches_the_start_the_windows_sum_to_full_bptt(span):
    T, k1, _ = span
    rng = np.random.default_rng(0)
    model = character_model()
    x, dy = rng.integers(0, V, (T, 2)), rng.standard_normal((T, 2, V))
    updates = list(bptt.TruncatedBPTT(k1, max(T, k1)).run(model, inner_product, x, dy))
    _, _, tape = model.forward(x)
    for name, gradient in model.backward(tape, dy).parameters.items():
        assert_close(total(updates)[name], gradient, 1e-12)


@given(span=spans)
def test_every_loss_counts_once(span):
    T, k1, k2 = span
    rng = np.random.default_rng(0)
    model = character_model()
    x, target = rng.integers(0, V, (T, 2)), rng.integers(0, V, (T, 2))
    schedule = bptt.TruncatedBPTT(k1, k2)
    updates = list(schedule.run(model, bptt.losses.softmax_cross_entropy, x, target))
    assert len(updates) == schedule.windows(T)
    prediction, state = model.predict(x)
    whole, _ = bptt.losses.softmax_cross_entropy(prediction, target)
    assert sum(u.loss * u.steps for u in updates) / T == pytest.approx(whole, rel=1e-12)
    for a, e in zip(updates[-1].state[1], state[1], strict=True):
        assert_close(a, e, 1e-12)


def test_a_state_is_taken_up_and_handed_on(rng):
    model, schedule = character_model(), bptt.TruncatedBPTT(3, 3)
    x, target = rng.integers(0, V, (12, 2)), rng.integers(0, V, (12, 2))
    loss = bptt.losses.softmax_cross_entropy
    whole = list(schedule.run(model, loss, x, target))
    first = list(schedule.run(model, loss, x[:6], target[:6]))
    second = list(schedule.run(model, loss, x[6:], target[6:], first[-1].state))
    for a, e in zip(first + second, whole, strict=True):
        assert a.loss == e.loss
        for name, gradient in e.gradients.items():
            assert np.array_equal(a.gradients[name], gradient)


def test_parameters_may_change_between_windows(rng):
    """With k1 = k2 each window then is a forward and a backward with the parameters as they are."""
    model, twin = character_model(), character_model()
    x, target = rng.integers(0, V, (12, 2)), rng.integers(0, V, (12, 2))
    loss = bptt.losses.softmax_cross_entropy
    sgd, sgd_twin = bptt.optim.SGD(0.5), bptt.optim.SGD(0.5)
    state = None
    for update in bptt.TruncatedBPTT(4, 4).run(model, loss, x, target):
        y, state, tape = twin.forward(x[update.start : update.stop], state)
        _, dy = loss(y, target[update.start : update.stop])
        gradients = twin.backward(tape, dy).parameters
        for name, gradient in gradients.items():
            assert np.array_equal(update.gradients[name], gradient)
        sgd.step(model.parameters, update.gradients)
        sgd_twin.step(twin.parameters, gradients)


def test_older_steps_keep_their_activations_when_parameters_change():
    """The identity RNN has closed forms: h = x + w*h_prev. Here T = 2, k1 = 1, k2 = 2."""
    rnn = bptt.RNN(1, 1, bias=False, dtype=np.float64, nonlinearity="identity")
    rnn.load_parameters({"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.full((1, 1), 0.5)})
    x, h0 = np.array([[[2.0]], [[3.0]]]), np.array([[[4.0]]])
    updates = bptt.TruncatedBPTT(1, 2).run(rnn, inner_product, x, np.ones((2, 1, 1)), h0)
    first = next(updates)
    assert first.loss == 2 + 0.5 * 4
    assert first.gradients["weight_hh_l0"] == 4
    rnn.parameters["weight_hh_l0"][...] = 0.25
    second = next(updates)
    assert second.loss == 3 + 0.25 * 4  # h_1 = 4 was made by the older weight
    assert second.gradients["weight_hh_l0"] == 4 + 0.25 * 4  # the way back uses the newer


def test_the_loss_is_called_once_a_window_with_the_windows_steps():
    calls = []

    def loss(prediction: Array, target: Array) -> tuple[float, Array]:
        calls.append((len(prediction), target[:, 0].tolist()))
        return bptt.losses.softmax_cross_entropy(prediction, target)

    target = np.arange(8)[:, None] % V
    list(bptt.TruncatedBPTT(3, 4).run(character_model(), loss, target, target))
    assert calls == [(3, [0, 1, 2]), (3, [3, 4, 5]), (2, [6, 7])]


def test_memory_is_that_of_the_window_not_of_the_stream(rng, monkeypatch):
    """Tapes that no later window needs are let go of."""
    layer, alive, most = bptt.GRU(2, 3, dtype=np.float64, seed=0), set(), 0
    forward, close = layer.forward, type(layer)._close

    def counted_forward(*arguments: Any, **options: Any) -> Any:
        nonlocal most
        result = forward(*arguments, **options)
        alive.add(id(result[2]))
        most = max(most, len(alive))
        return result

    def counted_close(tape: Any) -> None:
        alive.discard(id(tape))
        close(tape)

    monkeypatch.setattr(layer, "forward", counted_forward)
    monkeypatch.setattr(layer, "_close", counted_close)
    x, dy = rng.standard_normal((40, 1, 2)), rng.standard_normal((40, 1, 3))
    list(bptt.TruncatedBPTT(2, 6).run(layer, inner_product, x, dy))
    assert most == 3
    assert not alive


def test_streams_without_steps_or_sequences_pass():
    model, loss = character_model(), bptt.losses.softmax_cross_entropy
    none = np.zeros((0, 2), np.int64)
    assert list(bptt.TruncatedBPTT(2, 3).run(model, loss, none, none)) == []
    empty = np.zeros((5, 0), np.int64)
    updates = list(bptt.TruncatedBPTT(2, 3).run(model, loss, empty, empty))
    assert [u.loss for u in updates] == [0, 0, 0]
    assert not any(g.any() for u in updates for g in u.gradients.values())


@pytest.mark.parametrize(("T", "k1", "count"), [(0, 3, 0), (1, 3, 1), (3, 3, 1), (4, 3, 2)])
def test_windows_counts_the_updates(T, k1, count):
    assert bptt.TruncatedBPTT(k1, k1).windows(T) == count


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k1", "k2", "error", "sentence"),
    [
        (0, 1, ValueError, "k1 is 0"),
        (-1, 1, ValueError, "k1 is -1"),
        (2, 1, ValueError, "k2 is 1, expected k2 >= k1 = 2"),
        (2.0, 3, TypeError, "k1 is 2.0"),
        (2, None, TypeError, "k2 is None"),
        (True, 3, TypeError, "k1 is True"),
    ],
)
def test_windows_that_make_no_sense_are_refused(k1, k2, error, sentence):
    with pytest.raises(error, match=f"^TruncatedBPTT: {sentence}"):
        bptt.TruncatedBPTT(k1, k2)


@pytest.mark.parametrize("k1", [1, 3, 5, 6, 9])
def test_both_directions_are_refused_unless_one_window_is_all(k1, rng):
    both = bptt.GRU(2, 3, bidirectional=True, dtype=np.float64, seed=1)
    x, dy = rng.standard_normal((6, 4, 2)), rng.standard_normal((6, 4, 6))
    for model in (both, bptt.Sequential(bptt.Sequential(both), bptt.Linear(6, 6, dtype=x.dtype))):
        schedule = bptt.TruncatedBPTT(k1, k1 + 1)
        if k1 >= 6:
            (update,) = schedule.run(model, inner_product, x, dy)
            expected = model.backward(model.forward(x)[2], dy).parameters
            for name, gradient in expected.items():
                assert_close(update.gradients[name], gradient, 1e-12)
        else:
            wanted = r"^TruncatedBPTT.run: GRU\(2, 3, .*\) is bidirectional, expected layers of one"
            with pytest.raises(ValueError, match=wanted):
                schedule.run(model, inner_product, x, dy)


def test_streams_that_do_not_fit_are_refused_at_once():
    schedule, model = bptt.TruncatedBPTT(2, 2), character_model()
    loss, x = bptt.losses.softmax_cross_entropy, np.zeros((5, 2), np.int64)
    for bad, error, sentence in [
        (x[:4], ValueError, r"target has shape \(4, 2\), expected \(T, N\) = \(5, 2\) first"),
        (x[:, 0], ValueError, r"target has shape \(5,\), expected \(T, N, ...\)"),
        (x.tolist(), TypeError, r"target is a list, expected an array"),
    ]:
        with pytest.raises(error, match=rf"^TruncatedBPTT.run: {sentence}"):
            schedule.run(model, loss, x, bad)
    with pytest.raises(TypeError, match=r"x is a NoneType"):
        schedule.run(model, loss, None, x)
    with pytest.raises(TypeError, match=r"model is a str, expected a Layer"):
        schedule.run("model", loss, x, x)
    with pytest.raises(TypeError, match=r"loss is a str, expected a Callable"):
        schedule.run(model, "mse", x, x)
    both = bptt.Sequential(bptt.GRU(2, 3, bidirectional=True), bptt.Linear(6, 1))
    features = np.zeros((5, 2, 2), np.float32)
    with pytest.raises(ValueError, match=r"^TruncatedBPTT.run: GRU\(2, 3.*\) is bidirectional"):
        schedule.run(both, loss, features, x)
    (whole,) = bptt.TruncatedBPTT(5, 5).run(both, bptt.losses.mse, features, features[:, :, :1])
    assert set(whole.gradients) == set(both.parameters)  # one window cuts nothing off
