"""Initialisation by name: each has the distribution that its source gives."""

import numpy as np
import pytest

import bptt
from bptt import init

KINDS = [bptt.RNN, bptt.LSTM, bptt.GRU]
kinds = pytest.mark.parametrize("kind", KINDS)


def make(kind, **options):
    return kind(20, 48, num_layers=2, bidirectional=True, dtype=np.float64, seed=0, **options)


def named(layer, beginning):
    return [p for name, p in layer.parameters.items() if name.startswith(beginning)]


def gates(layer, array):
    return np.split(array, len(array) // layer.hidden_size)


def snapshot(layer):
    return {name: p.copy() for name, p in layer.parameters.items()}


def changed(layer, before):
    return {name for name, p in layer.parameters.items() if not np.array_equal(p, before[name])}


@kinds
@pytest.mark.parametrize(
    "function",
    [
        init.uniform,
        init.glorot,
        init.orthogonal_recurrent,
        lambda layer, seed: init.chrono(layer, 50, seed),
    ],
    ids=["uniform", "glorot", "orthogonal_recurrent", "chrono"],
)
def test_the_seed_decides(kind, function):
    if kind is bptt.RNN and function not in (
        init.uniform,
        init.glorot,
        init.orthogonal_recurrent,
    ):
        return
    layers = [make(kind) for _ in range(3)]
    for layer, seed in zip(layers, (5, 5, 6), strict=True):
        function(layer, seed=seed)
    assert not changed(layers[0], snapshot(layers[1]))
    assert changed(layers[0], snapshot(layers[2]))


@kinds
def test_uniform_is_what_a_layer_begins_with(kind):
    layer = make(kind, learn_initial_state=True)
    before = snapshot(layer)
    for p in layer.parameters.values():
        p[...] = 7
    init.uniform(layer, seed=0)
    for name, p in layer.parameters.items():
        if name.startswith("initial_"):
            assert (p == 7).all()
        else:
            np.testing.assert_array_equal(p, before[name])
    linear = bptt.Linear(25, 400, dtype=np.float64)
    init.uniform(linear, seed=1)
    assert 0.19 < np.abs(linear.parameters["weight"]).max() <= 0.2


@kinds
@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_glorot(kind, distribution):
    layer = make(kind)
    before = snapshot(layer)
    init.glorot(layer, gain=2.0, distribution=distribution, seed=1)
    weights = named(layer, "weight_ih")
    assert changed(layer, before) == {n for n in before if n.startswith("weight_ih")}
    for weight in weights:
        for gate in gates(layer, weight):
            H, D = gate.shape
            assert gate.std() == pytest.approx(2 * np.sqrt(2 / (D + H)), rel=0.1)
            if distribution == "uniform":
                assert np.abs(gate).max() <= 2 * np.sqrt(6 / (D + H))
    linear = bptt.Linear(200, 100)
    init.glorot(linear, seed=1)
    assert linear.parameters["weight"].std() == pytest.approx(np.sqrt(2 / 300), rel=0.05)
    assert linear.parameters["weight"].dtype == np.float32


@kinds
def test_orthogonal_recurrent(kind):
    layer = make(kind)
    before = snapshot(layer)
    init.orthogonal_recurrent(layer, gain=1.5, seed=1)
    assert changed(layer, before) == {n for n in before if n.startswith("weight_hh")}
    found = [gate for weight in named(layer, "weight_hh") for gate in gates(layer, weight)]
    for gate in found:
        np.testing.assert_allclose(gate @ gate.T, 2.25 * np.eye(48), atol=1e-12)
    assert not np.allclose(found[0], found[-1])


def test_identity_recurrent_is_the_irnn(rng):
    layer = bptt.RNN(3, 5, num_layers=2, nonlinearity="relu", dtype=np.float64, seed=0)
    before = snapshot(layer)
    init.identity_recurrent(layer, scale=0.5)
    assert changed(layer, before) == {n for n in before if not n.startswith("weight_ih")}
    for weight in named(layer, "weight_hh"):
        np.testing.assert_array_equal(weight, 0.5 * np.eye(5))
    assert not any(bias.any() for bias in named(layer, "bias_"))
    # Without an input the state stays.
    init.identity_recurrent(layer)
    h = rng.random((2, 1, 5))
    _, state = layer.predict(np.zeros((10, 1, 3)), h)
    np.testing.assert_array_equal(state[0], h[0])


def test_forget_bias():
    layer = make(bptt.LSTM)
    before = snapshot(layer)
    init.forget_bias(layer, 2.0)
    for name, p in layer.parameters.items():
        if name.startswith("bias"):
            i, f, g, o = gates(layer, p)
            assert (f == (2 if name.startswith("bias_ih") else 0)).all()
            rest = gates(layer, before[name])
            for a, e in zip((i, g, o), (rest[0], rest[2], rest[3]), strict=True):
                np.testing.assert_array_equal(a, e)
        else:
            np.testing.assert_array_equal(p, before[name])


@pytest.mark.parametrize("kind", [bptt.LSTM, bptt.GRU])
def test_chrono_spreads_the_time_spans_evenly(kind):
    layer = kind(2, 2000, dtype=np.float64, seed=0)
    before = snapshot(layer)
    init.chrono(layer, longest=101, seed=1)
    assert changed(layer, before) == {"bias_ih_l0", "bias_hh_l0"}
    ih, hh = (gates(layer, layer.parameters[f"bias_{side}_l0"]) for side in ("ih", "hh"))
    # sigmoid(bias) = 1 - 1/span
    span = 1 + np.exp(ih[1])
    assert 2 <= span.min() < 3
    assert 100 < span.max() <= 101
    assert span.mean() == pytest.approx(51.5, rel=0.05)
    assert not hh[1].any()
    if kind is bptt.LSTM:
        np.testing.assert_array_equal(ih[0], -ih[1])
        assert not hh[0].any()
    # A unit whose gate is open so far forgets over so many steps.
    layer = kind(1, 300, dtype=np.float64, seed=0)
    for p in layer.parameters.values():
        p[...] = 0
    init.chrono(layer, longest=50, seed=2)
    gate = gates(layer, layer.parameters["bias_ih_l0"])[1]
    state = np.ones((1, 1, 300))
    given = (np.zeros_like(state), state) if kind is bptt.LSTM else state
    _, end = layer.predict(np.zeros((20, 1, 1)), given)
    kept = end[1] if kind is bptt.LSTM else end
    np.testing.assert_allclose(kept[0, 0], (1 / (1 + np.exp(-gate))) ** 20, rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: init.uniform("x"), TypeError, "init.uniform: layer is a str, expected one of RNN"),
        (
            lambda: init.glorot(bptt.Embedding(3, 2)),
            TypeError,
            "init.glorot: layer is a Embedding, expected one of RNN, LSTM, GRU, Linear",
        ),
        (lambda: init.glorot(bptt.RNN(1, 2), -1), ValueError, "init.glorot: gain is -1"),
        (
            lambda: init.glorot(bptt.RNN(1, 2), distribution="even"),
            ValueError,
            "init.glorot: distribution is 'even'",
        ),
        (lambda: init.glorot(bptt.RNN(1, 2), seed=-1), ValueError, "init.glorot: seed is -1"),
        (
            lambda: init.orthogonal_recurrent(bptt.Linear(1, 2)),
            TypeError,
            "init.orthogonal_recurrent: layer is a Linear, expected one of RNN, LSTM, GRU",
        ),
        (
            lambda: init.orthogonal_recurrent(bptt.RNN(1, 2), float("nan")),
            ValueError,
            "init.orthogonal_recurrent: gain is nan",
        ),
        (
            lambda: init.identity_recurrent(bptt.LSTM(1, 2)),
            TypeError,
            "init.identity_recurrent: layer is a LSTM, expected one of RNN",
        ),
        (
            lambda: init.forget_bias(bptt.GRU(1, 2)),
            TypeError,
            "init.forget_bias: layer is a GRU, expected one of LSTM",
        ),
        (
            lambda: init.forget_bias(bptt.LSTM(1, 2, bias=False)),
            ValueError,
            "init.forget_bias: the layer has bias=False, expected a layer with biases",
        ),
        (
            lambda: init.forget_bias(bptt.LSTM(1, 2), float("inf")),
            ValueError,
            "init.forget_bias: value is inf",
        ),
        (
            lambda: init.chrono(bptt.RNN(1, 2), 9),
            TypeError,
            "init.chrono: layer is a RNN, expected one of LSTM, GRU",
        ),
        (lambda: init.chrono(bptt.GRU(1, 2), 2), ValueError, "init.chrono: longest is 2"),
        (lambda: init.chrono(bptt.GRU(1, 2), 9.0), TypeError, "init.chrono: longest is 9.0"),
        (
            lambda: init.chrono(bptt.GRU(1, 2, bias=False), 9),
            ValueError,
            "init.chrono: the layer has bias=False",
        ),
    ],
)
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=f"^{sentence}"):
        call()
