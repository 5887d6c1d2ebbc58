"""bptt.Activation: the reference, central differences, shapes, a layer among layers."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bptt
import reference_activations as reference
from networks import assert_close, assert_same_bits

each = pytest.mark.parametrize("name", reference.NONLINEARITIES)
names = st.sampled_from(reference.NONLINEARITIES)
sizes = st.integers(0, 5)
widths = st.one_of(st.integers(1, 40), st.sampled_from([1, 63, 64, 65, 4097]))
dtypes = st.sampled_from([np.float32, np.float64])
TOLERANCE = {np.float32: 2e-6, np.float64: 4e-15}


def backward(layer: Any, x: Any, dy: Any) -> Any:
    return layer.backward(layer.forward(x)[2], dy).x


@given(names, sizes, sizes, widths, dtypes, st.integers(0, 2**32 - 1))
def test_it_is_the_reference(name, T, N, V, dtype, seed):
    rng = np.random.default_rng(seed)
    x, dy = (rng.standard_normal((T, N, V)).astype(dtype) * 3 for _ in range(2))
    layer = bptt.Activation(name)
    y, state, tape = layer.forward(x)
    assert state is None
    tolerance = TOLERANCE[dtype]
    wide = x.astype(np.float64)
    assert_close(y, reference.forward(name, wide).astype(dtype), tolerance)
    grads = layer.backward(tape, dy)
    expected = reference.backward(name, wide, dy.astype(np.float64)).astype(dtype)
    assert_close(grads.x, expected, 20 * tolerance)
    assert grads.parameters == {}
    assert grads.state is None
    assert_same_bits(layer.predict(x)[0], y)


@each
def test_its_gradient_is_that_of_central_differences(name, rng):
    x, dy = rng.standard_normal((2, 3, 4, 7))
    layer, e = bptt.Activation(name), 1e-6
    found = backward(layer, x, dy)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = e
        above, below = (float((layer.predict(x + s)[0] * dy).sum()) for s in (step, -step))
        assert found[i] == pytest.approx((above - below) / (2 * e), abs=1e-8)


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_is_its_steps_and_any_number_of_threads_gives_the_same_bits(name, dtype, rng):
    x, dy = rng.standard_normal((2, 40, 30, 33)).astype(dtype)
    layer = bptt.Activation(name)
    y, dx = layer.predict(x)[0], backward(layer, x, dy)
    for t in (0, 17, 39):
        assert_same_bits(layer.step(x[t])[0], y[t])
        assert_same_bits(backward(layer, x[t], dy[t]), dx[t])
    with bptt.num_threads(1):
        assert_same_bits(layer.predict(x)[0], y)
        assert_same_bits(backward(layer, x, dy), dx)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_away_numbers_and_those_that_are_none(dtype):
    far = np.array([-np.inf, -1e30, -800.0, -0.0, 0.0, 800.0, 1e30, np.inf], dtype)[:, None]
    limits = {
        "tanh": [-1, -1, -1, 0, 0, 1, 1, 1],
        "sigmoid": [0, 0, 0, 0.5, 0.5, 1, 1, 1],
        "relu": [0, 0, 0, 0, 0, 800, 1e30, np.inf],
        "elu": [-1, -1, -1, 0, 0, 800, 1e30, np.inf],
    }
    for name, expected in limits.items():
        y = bptt.Activation(name).predict(far)[0]
        np.testing.assert_allclose(y[:, 0], np.array(expected, dtype), atol=1e-37)
    for name in reference.NONLINEARITIES:
        y = bptt.Activation(name).predict(np.array([[0.0, np.nan, 1.0], [0, 1, 2]], dtype))[0]
        assert np.isnan(y[0, 1])
        assert np.isnan(y[0]).all() == (name == "softmax")
        assert np.isfinite(y[1]).all()


def test_the_softmax_is_a_distribution_wherever_its_numbers_are():
    x = np.array([[-1e4, 1e4], [1e30, 1e30], [-np.inf, 3], [-2e4, -2e4]], np.float32)
    y = bptt.Activation("softmax").predict(x)[0]
    assert_same_bits(y, np.array([[0, 1], [0.5, 0.5], [0, 1], [0.5, 0.5]], np.float32))


def test_a_small_number_of_the_elu_keeps_its_digits():
    x = np.array([[-1e-8, -1e-3, -0.5]])
    assert_close(bptt.Activation("elu").predict(x)[0], np.expm1(x), 4e-16)


# ---- among layers --------------------------------------------------------------------------------


def network(dtype: Any = np.float64) -> bptt.Sequential:
    return bptt.Sequential(
        bptt.GRU(3, 5, dtype=dtype, seed=1),
        bptt.Activation("elu"),
        bptt.Linear(5, 4, dtype=dtype, seed=2),
        bptt.Activation("tanh"),
        bptt.Linear(4, 6, dtype=dtype, seed=3),
        bptt.Activation("softmax"),
    )


def test_a_chain_with_activations_has_the_gradients_of_central_differences(rng):
    model = network()
    x, dy = rng.standard_normal((5, 2, 3)), rng.standard_normal((5, 2, 6))
    grads = model.backward(model.forward(x)[2], dy)
    arrays, e = {**model.parameters, "x": x}, 1e-6
    for name, array in arrays.items():
        gradient = grads.x if name == "x" else grads.parameters[name]
        for i in list(np.ndindex(array.shape))[::7]:
            kept = array[i]
            values = []
            for moved in (kept + e, kept - e):
                array[i] = moved
                values.append(float((model.predict(x)[0] * dy).sum()))
            array[i] = kept
            assert gradient[i] == pytest.approx((values[0] - values[1]) / (2 * e), abs=1e-7)


def test_a_chain_steps_as_it_predicts(rng):
    model, state = network(), None
    x = rng.standard_normal((5, 2, 3))
    y = model.predict(x)[0]
    for t in range(5):
        y_t, state = model.step(x[t], state)
        assert_close(y_t, y[t], 1e-13)


@each
def test_the_flow_of_gradients_goes_through_it_lag_by_lag(name, rng):
    """Of a loss at the last step alone, lag k is what reaches step T-1-k."""
    T = 6
    model = bptt.Sequential(
        bptt.GRU(3, 5, dtype=np.float64, seed=1),
        bptt.Activation(name),
        bptt.Linear(5, 4, dtype=np.float64, seed=2),
        bptt.Activation(name),
        bptt.LSTM(4, 3, dtype=np.float64, seed=3),
        bptt.Activation(name),
    )
    x, slope = rng.standard_normal((T, 2, 3)), rng.standard_normal((2, 3))

    def last(prediction: Any, _target: Any) -> Any:
        gradient = np.zeros_like(prediction)
        gradient[-1] = slope
        return float((prediction[-1] * slope).sum()), gradient

    flow = bptt.gradient_flow(model, x, np.zeros((T, 2)), last, full=True)
    y, _, tape = model.forward(x)
    whole = model.backward(tape, last(y, None)[1]).parameters
    assert [layer.name for layer in flow.layers] == ["0", "4"]
    for layer in flow.layers:
        assert_close(layer.weight_hh, whole[f"{layer.name}.weight_hh_l0"], 1e-13)
        assert_close(layer.weight_hh_by_lag, layer.weight_hh_by_step[::-1], 1e-13)
        assert np.abs(layer.weight_hh_by_lag[1:-1]).max() > 0  # none from h_{-1} = 0


def test_it_copies_and_pickles(rng):
    x = rng.standard_normal((2, 3))
    layer = bptt.Activation("elu")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(other) == repr(layer) == "Activation('elu')"
        assert_same_bits(other.predict(x)[0], layer.predict(x)[0])


def test_keras_weights_are_none():
    layer = bptt.Activation("relu")
    assert bptt.convert.to_keras(layer) == []
    bptt.convert.from_keras(layer, [])
    with pytest.raises(ValueError, match="weights has 1 arrays, expected 0"):
        bptt.convert.from_keras(layer, [np.zeros(1)])


# ---- what it refuses -----------------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"Activation: nonlinearity is 'swish'.*'elu', 'softmax'"):
        bptt.Activation("swish")
    with pytest.raises(TypeError, match="Activation: nonlinearity is 3"):
        bptt.Activation(3)  # type: ignore[arg-type]
    layer = bptt.Activation("tanh")
    with pytest.raises(ValueError, match=r"x has shape \(\), expected \(\.\.\., V\) with V >= 1"):
        layer.predict(np.array(1.0))
    with pytest.raises(ValueError, match=r"x has shape \(3, 0\), expected"):
        layer.predict(np.zeros((3, 0)))
    with pytest.raises(TypeError, match="x has dtype int64, expected float32 or float64"):
        layer.forward(np.zeros((1, 2), np.int64))
    with pytest.raises(ValueError, match=r"Activation.predict: state is a ndarray, expected None"):
        layer.predict(np.zeros((1, 2)), np.zeros(1))
    x = np.zeros((4, 2), np.float32)
    y, _, tape = layer.forward(x)
    with pytest.raises(ValueError, match="read-only"):
        y[0] = 1
    with pytest.raises(ValueError, match=r"dy has shape \(4, 3\), expected y's \(4, 2\)"):
        layer.backward(tape, np.zeros((4, 3), np.float32))
    with pytest.raises(TypeError, match="dy has dtype float64, expected float32"):
        layer.backward(tape, np.zeros((4, 2)))
    assert layer.backward(tape, None).x is None
    with pytest.raises(ValueError, match="tape was consumed"):
        layer.backward(tape, x)
    with pytest.raises(ValueError, match="tape was made by another layer"):
        layer.backward(bptt.Activation("tanh").forward(x)[2], x)


def test_layers_that_do_not_fit_each_other_are_refused():
    def refused(sentence, *layers):
        with pytest.raises(ValueError, match=sentence):
            bptt.Sequential(*layers)

    refused(
        r"layers\[1\]: Linear\(4, 2, bias=True\) reads 4 numbers a step, expected 3",
        *(bptt.LSTM(2, 3), bptt.Linear(4, 2)),
    )
    refused(
        r"layers\[1\]: GRU\(3, 2.* expected 6", bptt.RNN(2, 3, bidirectional=True), bptt.GRU(3, 2)
    )
    refused(
        r"layers\[2\]: Linear.* reads 5 numbers a step, expected 3",
        *(bptt.Embedding(9, 3), bptt.Activation("relu"), bptt.Linear(5, 2)),
    )
    refused("Embedding.* reads indices, expected it", bptt.Linear(2, 3), bptt.Embedding(3, 2))
    inner = bptt.Sequential(bptt.Linear(2, 3), bptt.Linear(3, 4))
    refused(r"layers\[1\]: Linear.* reads 3 numbers a step, expected 4", inner, bptt.Linear(3, 1))
    refused(r"layers\[1\]: Sequential: layers\[0\]: .* expected 5", bptt.Linear(1, 5), inner)
    assert inner.output_size(2) == inner.output_size(None) == 4
    assert bptt.Sequential(bptt.Activation("tanh")).output_size(7) == 7
