"""Layers: what the functions compute, under names, chained."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import bptt
from models import V, character_model
from networks import assert_close, assert_same_bits

Array = NDArray[Any]

# name: layer, its options, the functions that it calls, and the options of the forward function
RECURRENT: dict[str, tuple[Any, dict[str, Any], Any, Any, dict[str, Any]]] = {
    "RNN": (bptt.RNN, {}, bptt.rnn_forward, bptt.rnn_backward, {}),
    "RNN relu": (
        bptt.RNN,
        {"nonlinearity": "relu"},
        bptt.rnn_forward,
        bptt.rnn_backward,
        {"nonlinearity": "relu"},
    ),
    "LSTM": (bptt.LSTM, {}, bptt.lstm_forward, bptt.lstm_backward, {}),
    "GRU": (bptt.GRU, {}, bptt.gru_forward, bptt.gru_backward, {}),
    "GRU reset before": (
        bptt.GRU,
        {"reset_after": False},
        bptt.gru_forward,
        bptt.gru_backward,
        {"reset_after": False},
    ),
}
recurrent = pytest.mark.parametrize("name", RECURRENT)


def flat(value: Any) -> list[Array]:
    """All arrays within a state, gradients or mappings, in order."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return [value]
    return [
        a for part in (value.values() if isinstance(value, dict) else value) for a in flat(part)
    ]


def assert_same(actual: Any, expected: Any) -> None:
    actual, expected = flat(actual), flat(expected)
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert_same_bits(a, e)


# ---- recurrent layers --------------------------------------------------------------------------


@recurrent
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_computes_what_the_functions_do(name, bias, dtype, rng):
    kind, options, forward, backward, variant = RECURRENT[name]
    T, N, D, H = 6, 3, 4, 5
    layer = kind(D, H, bias=bias, dtype=dtype, seed=0, **options)
    x, dy = (rng.standard_normal((T, N, n)).astype(dtype) for n in (D, H))
    h, c, dh, dc = (rng.standard_normal((1, N, H)).astype(dtype) for _ in range(4))
    lengths, reset = rng.integers(0, T, N, endpoint=True), rng.random((T, N)) < 0.2

    pair = kind is bptt.LSTM
    y, state, tape = layer.forward(x, (h, c) if pair else h, lengths, reset)
    grads = layer.backward(tape, dy, (dh, dc) if pair else dh)

    weights = bptt.Weights(*layer.parameters.values())
    inner = (h[0], c[0]) if pair else h[0]
    y_f, state_f, tape_f = forward(x, weights, inner, lengths, reset, **variant)
    grads_f = backward(tape_f, dy, (dh[0], dc[0]) if pair else dh[0])

    assert_same(y, y_f)
    assert_same([s[0] for s in flat(state)], state_f)
    assert_same(grads.x, grads_f.x)
    assert_same([s[0] for s in flat(grads.state)], grads_f.state)
    assert grads.parameters.keys() == layer.parameters.keys()
    assert_same(grads.parameters, grads_f[2:])
    assert all(s.shape == (1, N, H) for s in flat(state) + flat(grads.state))


@recurrent
def test_predict_and_steps_give_what_forward_gives(name, rng):
    kind, options, *_ = RECURRENT[name]
    layer = kind(3, 7, dtype=np.float64, seed=4, **options)
    x = rng.standard_normal((9, 2, 3))
    y, state, _ = layer.forward(x)
    predicted, its_state = layer.predict(x)
    assert_same((predicted, its_state), (y, state))

    streamed = None
    for t in range(len(x)):
        y_t, streamed = layer.step(x[t], streamed)
        assert_close(y_t, y[t], 1e-12)
    for a, e in zip(flat(streamed), flat(state), strict=True):
        assert_close(a, e, 1e-12)


def test_parameters_have_pytorchs_names_and_shapes():
    assert {n: p.shape for n, p in bptt.LSTM(3, 5).parameters.items()} == {
        "weight_ih_l0": (20, 3),
        "weight_hh_l0": (20, 5),
        "bias_ih_l0": (20,),
        "bias_hh_l0": (20,),
    }
    assert list(bptt.RNN(3, 5, bias=False).parameters) == ["weight_ih_l0", "weight_hh_l0"]
    assert bptt.GRU(3, 5).parameters["weight_hh_l0"].shape == (15, 5)
    assert list(bptt.Linear(2, 3).parameters) == ["weight", "bias"]
    assert list(bptt.Linear(2, 3, bias=False).parameters) == ["weight"]
    assert bptt.Embedding(2, 3).parameters["weight"].shape == (2, 3)
    assert list(bptt.Sequential(bptt.Sequential(bptt.RNN(1, 1, bias=False))).parameters) == [
        "0.0.weight_ih_l0",
        "0.0.weight_hh_l0",
    ]


@pytest.mark.parametrize("kind", [bptt.RNN, bptt.LSTM, bptt.GRU])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_initial_parameters_are_uniform_within_one_over_sqrt_H_and_seeded(kind, dtype):
    H = 64
    layer = kind(9, H, dtype=dtype, seed=5)
    for p in layer.parameters.values():
        assert p.dtype == dtype
        assert np.abs(p).max() <= 1 / np.sqrt(H)
    weight = layer.parameters["weight_hh_l0"]
    assert weight.std() == pytest.approx(1 / np.sqrt(3 * H), rel=0.05)
    assert weight.mean() == pytest.approx(0, abs=0.003)
    assert_same(dict(kind(9, H, dtype=dtype, seed=5).parameters), dict(layer.parameters))
    other = kind(9, H, dtype=dtype, seed=6).parameters["weight_hh_l0"]
    assert not np.array_equal(other, weight)
    assert not np.array_equal(kind(9, H).parameters["weight_hh_l0"], weight)


def test_linear_and_embedding_begin_as_pytorchs_do():
    linear = bptt.Linear(25, 400, seed=0)
    for p in linear.parameters.values():
        assert np.abs(p).max() <= 0.2
        assert p.std() == pytest.approx(0.2 / np.sqrt(3), rel=0.1)
    weight = bptt.Embedding(100, 50, seed=0).parameters["weight"]
    assert weight.std() == pytest.approx(1, rel=0.05)
    assert weight.mean() == pytest.approx(0, abs=0.05)


# ---- chains ------------------------------------------------------------------------------------


def test_a_chain_computes_what_its_layers_do_one_after_the_other(rng):
    model = character_model()
    embedding, lstm, linear = model.layers
    x, dy = rng.integers(0, V, (6, 3)), rng.standard_normal((6, 3, V))
    y, state, tape = model.forward(x)
    grads = model.backward(tape, dy)

    e, no_state, tape_e = embedding.forward(x)
    h, state_h, tape_h = lstm.forward(e)
    y_l, _, tape_l = linear.forward(h)
    grads_l = linear.backward(tape_l, dy)
    grads_h = lstm.backward(tape_h, grads_l.x)
    grads_e = embedding.backward(tape_e, grads_h.x)

    assert no_state is None
    assert state[0] is None
    assert state[2] is None
    assert_same((y, state), (y_l, state_h))
    assert grads.x is None
    assert_same(grads.state, grads_h.state)
    assert list(grads.parameters) == list(model.parameters)
    assert_same(grads.parameters, [grads_e.parameters, grads_h.parameters, grads_l.parameters])
    assert_same(model.predict(x), (y, state))


@pytest.mark.parametrize("kind", [bptt.RNN, bptt.LSTM, bptt.GRU])
def test_gradients_of_a_chain_equal_central_differences(kind, rng):
    model = character_model(recurrent=kind)
    x, target = rng.integers(0, V, (5, 2)), rng.integers(0, V, (5, 2))

    def value() -> float:
        return bptt.losses.softmax_cross_entropy(model.predict(x)[0], target)[0]

    y, _, tape = model.forward(x)
    _, dy = bptt.losses.softmax_cross_entropy(y, target)
    grads = model.backward(tape, dy)
    epsilon = 1e-5
    for name, p in model.parameters.items():
        for at in {tuple(rng.integers(0, p.shape)) for _ in range(12)}:
            before = p[at]
            p[at] = before + epsilon
            above = value()
            p[at] = before - epsilon
            below = value()
            p[at] = before
            slope = (above - below) / (2 * epsilon)
            assert grads.parameters[name][at] == pytest.approx(slope, abs=1e-9, rel=1e-6), name


@pytest.mark.parametrize("kind", [bptt.RNN, bptt.LSTM, bptt.GRU])
def test_two_windows_with_the_state_handed_on_and_back_equal_one_pass(kind, rng):
    model = character_model(recurrent=kind)
    x, dy = rng.integers(0, V, (9, 3)), rng.standard_normal((9, 3, V))
    y, state, tape = model.forward(x)
    whole = model.backward(tape, dy)

    y1, state1, tape1 = model.forward(x[:4])
    y2, state2, tape2 = model.forward(x[4:], state1)
    late = model.backward(tape2, dy[4:])
    early = model.backward(tape1, dy[:4], late.state)

    assert_close(np.concatenate([y1, y2]), y, 1e-12)
    for a, e in zip(flat(state2), flat(state), strict=True):
        assert_close(a, e, 1e-12)
    for name, gradient in whole.parameters.items():
        assert_close(early.parameters[name] + late.parameters[name], gradient, 1e-12)


def test_no_dy_is_a_dy_of_zeros(rng):
    model = character_model()
    x = rng.integers(0, V, (4, 3))
    y, _, tape = model.forward(x)
    dstate = (None, tuple(rng.standard_normal((1, 3, 5)) for _ in range(2)), None)
    without = model.backward(tape, None, dstate, retain=True)
    with_zeros = model.backward(tape, np.zeros_like(y), dstate)
    assert without.parameters.keys() == model.parameters.keys()
    for name, gradient in with_zeros.parameters.items():
        assert_close(without.parameters[name], gradient, 1e-15)
    assert not without.parameters["2.weight"].any()
    assert without.parameters["0.weight"].any()


def test_half_a_state_is_a_state_with_zeros(rng):
    lstm = bptt.LSTM(2, 3, dtype=np.float64, seed=0)
    x, h = rng.standard_normal((4, 5, 2)), rng.standard_normal((1, 5, 3))
    assert_same(lstm.forward(x, (h, None))[:2], lstm.forward(x, (h, np.zeros_like(h)))[:2])


def test_a_retained_tape_gives_the_same_gradients_again(rng):
    model = character_model()
    y, _, tape = model.forward(rng.integers(0, V, (4, 3)))
    dy = rng.standard_normal(y.shape)
    assert_same(model.backward(tape, dy, retain=True), model.backward(tape, dy))


@given(st.integers(0, 5), st.integers(0, 4), st.booleans())
def test_streams_without_steps_or_sequences_pass(T, N, streamed):
    model = character_model(np.float32)
    x = np.zeros((T, N), np.int64)
    if streamed:
        y, state = np.zeros((0, N, V), np.float32), None
        for t in range(T):
            y, state = model.step(x[t], state)
            assert y.shape == (N, V)
        return
    y, _, tape = model.forward(x)
    assert y.shape == (T, N, V)
    grads = model.backward(tape, y)
    for name, p in model.parameters.items():
        assert grads.parameters[name].shape == p.shape
        assert np.isfinite(grads.parameters[name]).all()


def test_lengths_and_reset_reach_the_layers_of_a_chain(rng):
    model = character_model()
    x = rng.integers(0, V, (6, 2))
    lengths = np.array([6, 2])
    _, state, _ = model.forward(x, lengths=lengths)
    _, short = model.predict(x[:2, 1:])
    for a, e in zip(flat(state), flat(short), strict=True):
        assert_close(a[:, 1:], e, 1e-12)
    reset = np.zeros((6, 2), bool)
    reset[4] = True
    y, _, _ = model.forward(x, reset=reset)
    assert_close(y[4:], model.predict(x[4:])[0], 1e-12)


# ---- parameters --------------------------------------------------------------------------------


def test_parameters_of_a_chain_are_those_of_its_layers():
    model = character_model()
    model.parameters["1.bias_ih_l0"][...] = 7
    assert (model.layers[1].parameters["bias_ih_l0"] == 7).all()


def test_the_mapping_of_parameters_is_read_only():
    model = character_model()
    with pytest.raises(TypeError, match="item assignment"):
        model.parameters["0.weight"] = np.zeros((V, 4))


def test_load_parameters_copies(rng):
    model = character_model()
    values = {name: rng.standard_normal(p.shape) for name, p in model.parameters.items()}
    model.load_parameters(values)
    assert_same(dict(model.parameters), values)
    values["0.weight"][...] = 0
    assert model.parameters["0.weight"].all()


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"2.bias": None}, TypeError, r"values\['2.bias'\] is a NoneType, expected an array"),
        ({"2.bias": np.zeros(3)}, ValueError, r"values\['2.bias'\] has shape \(3,\), .*\(11,\)"),
        (
            {"2.bias": np.zeros(V, np.float32)},
            TypeError,
            r"values\['2.bias'\] has dtype float32, expected float64",
        ),
        ({"3.bias": np.zeros(V)}, ValueError, r"values has unknown \['3.bias'\]"),
    ],
)
def test_load_parameters_writes_nothing_before_all_is_checked(change, error, sentence):
    model = character_model()
    before = {name: p.copy() for name, p in model.parameters.items()}
    zeros = {name: np.zeros_like(p) for name, p in model.parameters.items()}
    with pytest.raises(error, match=sentence):
        model.load_parameters(zeros | change)
    with pytest.raises(ValueError, match=r"values lacks \['0.weight', '1.bias_hh_l0'"):
        model.load_parameters({})
    for wrong in (None, list(zeros)):
        with pytest.raises(TypeError, match=r"load_parameters: values is a .*, expected a Mapping"):
            model.load_parameters(wrong)
    assert_same(dict(model.parameters), before)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_model_is_a_model_of_its_own(duplicate, rng):
    model = character_model()
    other = duplicate(model)
    x = rng.integers(0, V, (4, 3))
    assert_same(other.predict(x), model.predict(x))
    for p in other.parameters.values():
        p[...] = 0
    assert not other.predict(x)[0].any()
    assert model.predict(x)[0].any()


def test_layers_say_what_they_are():
    model = bptt.Sequential(bptt.Embedding(3, 4), bptt.GRU(4, 5), bptt.Linear(5, 6, bias=False))
    assert repr(model) == (
        "Sequential(Embedding(3, 4), GRU(4, 5, bias=True), Linear(5, 6, bias=False))"
    )
