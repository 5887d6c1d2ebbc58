"""What layers refuse, and how they say it."""

import numpy as np
import pytest

import bptt
from models import V, character_model


@pytest.mark.parametrize("kind", [bptt.RNN, bptt.LSTM, bptt.GRU])
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"input_size": -1}, ValueError, r"input_size is -1 \(int\), expected an integer >= 1"),
        ({"input_size": 2.0}, TypeError, r"input_size is 2.0 \(float\), expected an integer"),
        ({"hidden_size": 0}, ValueError, "hidden_size is 0"),
        ({"hidden_size": True}, TypeError, "hidden_size is True"),
        ({"num_layers": 0}, ValueError, "num_layers is 0"),
        ({"num_layers": 1.5}, TypeError, "num_layers is 1.5"),
        ({"bidirectional": 1}, TypeError, "bidirectional is 1"),
        ({"dropout": 0.5}, ValueError, "dropout is 0.5, expected 0 with num_layers = 1: it acts"),
        ({"learn_initial_state": None}, TypeError, "learn_initial_state is None"),
        ({"dropout": float("nan")}, ValueError, "dropout is nan"),
        ({"dropout": 1.0}, ValueError, r"dropout is 1.0 \(float\), expected a number in \[0, 1\)"),
        ({"dropout": "0"}, TypeError, "dropout is '0'"),
        ({"bias": None}, TypeError, "bias is None"),
        ({"dtype": np.float16}, TypeError, "dtype is float16, expected float32 or float64"),
        ({"dtype": int}, TypeError, "dtype is int64"),
        ({"dtype": "no such"}, TypeError, "dtype is 'no such'"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": 1.5}, TypeError, "seed is 1.5"),
    ],
)
def test_recurrent_layers_refuse(kind, arguments, error, sentence):
    with pytest.raises(error, match=f"^{kind.__name__}: {sentence}"):
        kind(**({"input_size": 3, "hidden_size": 4} | arguments))


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: bptt.RNN(2, 3, nonlinearity="sin"), ValueError, "RNN: nonlinearity is 'sin'"),
        (lambda: bptt.RNN(2, 3, nonlinearity=None), TypeError, "RNN: nonlinearity is None"),
        (lambda: bptt.GRU(2, 3, reset_after=1), TypeError, "GRU: reset_after is 1"),
        (lambda: bptt.Linear(0, 3), ValueError, "Linear: in_features is 0"),
        (lambda: bptt.Linear(3, -2), ValueError, "Linear: out_features is -2"),
        (lambda: bptt.Linear(3, 2, bias="no"), TypeError, "Linear: bias is 'no'"),
        (lambda: bptt.Linear(3, 2, dtype=complex), TypeError, "Linear: dtype is complex128"),
        (lambda: bptt.Embedding(0, 3), ValueError, "Embedding: num_embeddings is 0"),
        (lambda: bptt.Embedding(3, None), TypeError, "Embedding: embedding_dim is None"),
        (lambda: bptt.Embedding(3, 2, seed="a"), TypeError, "Embedding: seed is 'a'"),
        (lambda: bptt.Sequential(), ValueError, "Sequential: there are no layers"),
        (lambda: bptt.Sequential(bptt.LSTM), TypeError, r"layers\[0\] is a ABCMeta"),
    ],
)
def test_layers_refuse(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


def test_a_chain_refuses_the_same_parameters_twice():
    linear = bptt.Linear(3, 3)
    with pytest.raises(ValueError, match=r"1\.weight and 0\.weight are one array"):
        bptt.Sequential(linear, linear)
    with pytest.raises(ValueError, match=r"1\.0\.weight and 0\.weight are one array"):
        bptt.Sequential(linear, bptt.Sequential(linear))


BAD_STATES = [
    (np.zeros((3, 5), np.float32), ValueError, r"has shape \(3, 5\), expected"),
    (np.zeros((2, 3, 5), np.float32), ValueError, r"has shape \(2, 3, 5\), expected"),
    (np.zeros((1, 2, 5), np.float32), ValueError, r"\(1, 2, 5\).*\(1, 3, 5\)"),
    (np.zeros((1, 3, 5)), TypeError, "float64.*float32"),
    ([[0.0]], TypeError, "list"),
]


@pytest.mark.parametrize(("state", "error", "sentence"), BAD_STATES)
@pytest.mark.parametrize("method", ["forward", "predict", "step"])
@pytest.mark.parametrize("kind", [bptt.GRU, bptt.LSTM])
def test_states_that_do_not_fit_are_refused(kind, method, state, error, sentence):
    layer = kind(4, 5)
    x = np.zeros((3, 4) if method == "step" else (2, 3, 4), np.float32)
    state = (np.zeros((1, 3, 5), np.float32), state) if kind is bptt.LSTM else state
    with pytest.raises(error, match=rf"state.*{sentence}"):
        getattr(layer, method)(x, state)


def test_states_of_another_kind_are_refused():
    x = np.zeros((2, 3, 4), np.float32)
    h = np.zeros((1, 3, 5), np.float32)
    with pytest.raises(TypeError, match=r"GRU.forward: state is a tuple, expected .*\(1, N, 5\)"):
        bptt.GRU(4, 5).forward(x, (h, h))
    with pytest.raises(
        ValueError, match=r"LSTM.forward: state has shape.*expected a pair \(h, c\)"
    ):
        bptt.LSTM(4, 5).forward(x, h)
    with pytest.raises(TypeError, match=r"LSTM.forward: state is a tuple, expected a pair"):
        bptt.LSTM(4, 5).forward(x, (h,))
    with pytest.raises(ValueError, match=r"Linear.predict: state is a ndarray, expected None"):
        bptt.Linear(4, 5).predict(x, h)
    model = bptt.Sequential(bptt.GRU(4, 5))
    with pytest.raises(
        TypeError, match=r"Sequential.forward: state is a ndarray, expected a tuple"
    ):
        model.forward(x, h)
    with pytest.raises(ValueError, match=r"state has 2 entries, expected one for each of 1 layers"):
        model.predict(x, (h, h))


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (np.zeros((2, 3, 5), np.float32), ValueError, r"x has .*\(2, 3, 5\), expected \(.*\b4"),
        (np.zeros((2, 3, 4)), TypeError, "x has dtype float64, expected float32"),
        (np.zeros((2, 3, 4), np.int64), TypeError, "x has dtype int64, expected float32"),
        ([[[0.0] * 4]], TypeError, "x .*list"),
    ],
)
@pytest.mark.parametrize("method", ["forward", "predict"])
@pytest.mark.parametrize("kind", [bptt.LSTM, bptt.Linear])
def test_inputs_that_do_not_fit_are_refused(kind, method, x, error, sentence):
    with pytest.raises(error, match=sentence):
        getattr(kind(4, 5), method)(x)


def test_recurrent_layers_take_three_dimensions():
    with pytest.raises(ValueError, match=r"LSTM.forward: x has .*\(2, 4\), expected \(T, N, D\)"):
        bptt.LSTM(4, 5).forward(np.zeros((2, 4), np.float32))


def test_one_step_takes_one_step():
    with pytest.raises(ValueError, match=r"LSTM.step: x_t has shape \(4,\), expected \(N, 4\)"):
        bptt.LSTM(4, 5).step(np.zeros(4, np.float32))
    with pytest.raises(TypeError, match=r"LSTM.step: x_t is a list, expected a NumPy array"):
        bptt.LSTM(4, 5).step([[0.0] * 4])


LAYERS = [bptt.RNN, bptt.LSTM, bptt.GRU]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("method", ["forward", "predict"])
@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (
            {"lengths": np.array([1, -1, 2])},
            ValueError,
            r"lengths\[1\] is -1, expected 0 <= length",
        ),
        ({"lengths": np.array([1, 2, 3])}, ValueError, r"lengths\[2\] is 3, expected .* T = 2"),
        (
            {"lengths": np.array([1, 2**64 - 1, 2], np.uint64)},
            ValueError,
            r"lengths\[1\] is at least 9223372036854775807, expected 0 <= length",
        ),
        ({"lengths": np.array([1, 2])}, ValueError, r"lengths has shape \(2,\), expected \(N,\)"),
        ({"lengths": np.ones(3)}, TypeError, "lengths has dtype float64, expected integers"),
        ({"lengths": np.ones(3, bool)}, TypeError, "lengths has dtype bool, expected integers"),
        ({"lengths": [1, 2, 2]}, TypeError, "lengths is a list"),
        ({"reset": np.zeros((3, 2), bool)}, ValueError, r"reset has .*\(3, 2\), expected \(T, N\)"),
        ({"reset": np.zeros((2, 3), int)}, TypeError, "reset has dtype int64, expected bool"),
        ({"reset": np.zeros((2, 3, 1), bool)}, ValueError, r"reset has shape \(2, 3, 1\)"),
    ],
)
def test_lengths_and_resets_that_do_not_fit_are_refused(kind, method, arguments, error, sentence):
    layer = kind(4, 5, num_layers=2, bidirectional=True)
    with pytest.raises(error, match=f"^{kind.__name__}.{method}: {sentence}"):
        getattr(layer, method)(np.zeros((2, 3, 4), np.float32), **arguments)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_stacked_in_another_order_are_refused(kind, bidirectional):
    layer = kind(4, 5, num_layers=3, bidirectional=bidirectional)
    rows = 6 if bidirectional else 3
    x = np.zeros((2, 7, 4), np.float32)
    y, _, tape = layer.forward(x)
    letters = r"num_layers\*directions" if bidirectional else "num_layers"
    for shape in ((7, rows, 5), (rows - 1, 7, 5), (rows + 1, 7, 5), (7, 5), (1, 7, 5)):
        wrong = np.zeros(shape, np.float32)
        state = (np.zeros((rows, 7, 5), np.float32), wrong) if kind is bptt.LSTM else wrong
        which = r"\[1\]" if kind is bptt.LSTM else ""
        sentence = rf"{which} has shape .*, expected \({letters}, N, H\) = \({rows}, 7, 5\)$"
        for method in ("forward", "predict"):
            with pytest.raises(ValueError, match=f"^{kind.__name__}.{method}: state{sentence}"):
                getattr(layer, method)(x, state)
        with pytest.raises(ValueError, match=f"^{kind.__name__}.backward: dstate{sentence}"):
            layer.backward(tape, y, state)
    # The same rows, but units before sequences.
    wrong = np.zeros((rows, 5, 7), np.float32)
    shapes = rf"\({rows}, 5, 7\), expected .* = \({rows}, 7, 5\)"
    with pytest.raises(ValueError, match=f"has shape {shapes}"):
        layer.forward(x, (wrong, wrong) if kind is bptt.LSTM else wrong)
    layer.backward(tape, y)  # the refused calls consumed nothing


@pytest.mark.parametrize("kind", LAYERS)
def test_a_bidirectional_layer_refuses_single_steps_and_half_gradients(kind):
    layer = kind(4, 5, bidirectional=True)
    with pytest.raises(ValueError, match=rf"^{kind.__name__}.step: the layer is bidirectional"):
        layer.step(np.zeros((3, 4), np.float32))
    _, _, tape = layer.forward(np.zeros((2, 3, 4), np.float32))
    for shape in ((2, 3, 5), (2, 3, 15), (3, 2, 10), (2, 10)):
        with pytest.raises(
            ValueError, match=r"backward: dy has shape .*\(T, N, 2\*H\) = \(2, 3, 10"
        ):
            layer.backward(tape, np.zeros(shape, np.float32))
    with pytest.raises(TypeError, match="dy is a list, expected"):
        layer.backward(tape, [1.0])
    layer.backward(tape, np.zeros((2, 3, 10), np.float32))


def test_training_is_true_or_false():
    with pytest.raises(TypeError, match=r"^LSTM.forward: training is 1 \(int\), expected True or"):
        bptt.LSTM(4, 5).forward(np.zeros((2, 3, 4), np.float32), training=1)


def test_indices_outside_the_vocabulary_are_refused():
    embedding = bptt.Embedding(3, 2)
    for bad in (-1, 3):
        with pytest.raises(ValueError, match="index"):
            embedding.forward(np.array([[0, bad]]))
    for bad_type in (np.zeros((2, 3)), np.zeros((2, 3), bool), [[0]]):
        with pytest.raises(TypeError, match="index"):
            embedding.forward(bad_type)


def test_a_tape_is_used_once_and_by_the_layer_that_made_it(rng):
    model, other = character_model(), character_model()
    y, _, tape = model.forward(rng.integers(0, V, (4, 3)))
    with pytest.raises(ValueError, match=r"Sequential.backward: tape was made by another layer"):
        other.backward(tape, y)
    with pytest.raises(
        TypeError, match=r"Sequential.backward: tape is a str, expected a LayerTape"
    ):
        model.backward("tape", y)
    with pytest.raises((TypeError, ValueError), match="dy"):
        model.backward(tape, y[:2])
    model.backward(tape, y)  # the refused call before it consumed nothing
    with pytest.raises(ValueError, match=r"Sequential.backward: tape was consumed"):
        model.backward(tape, y)


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        (np.zeros((1, 2, 5)), ValueError, r"GRU.backward: dstate has shape \(1, 2, 5\), expected"),
        (np.zeros((1, 3, 5), np.float32), TypeError, "GRU.backward: dstate has dtype float32"),
        ((np.zeros((1, 3, 5)),), TypeError, "GRU.backward: dstate is a tuple, expected an array"),
    ],
)
def test_a_wrong_dstate_below_consumes_no_tape_above(wrong, error, sentence, rng):
    model = bptt.Sequential(
        bptt.Linear(4, 4, dtype=np.float64),
        bptt.Sequential(bptt.GRU(4, 5, dtype=np.float64), bptt.LSTM(5, 3, dtype=np.float64)),
        bptt.Linear(3, 2, dtype=np.float64),
    )
    x = rng.standard_normal((2, 3, 4))
    y, _, tape = model.forward(x)
    with pytest.raises(error, match=f"^{sentence}"):
        model.backward(tape, y, (None, (wrong, None), None))
    with pytest.raises(ValueError, match=r"Linear.backward: dstate is a int, expected None"):
        model.backward(tape, y, (1, None, None))
    found = model.backward(tape, y).parameters
    expected = model.backward(model.forward(x)[2], y).parameters
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("at", range(3))
def test_every_layer_refuses_a_consumed_tape(at, rng):
    layer = character_model().layers[at]
    x = rng.integers(0, V, (2, 3)) if at == 0 else rng.standard_normal((2, 3, 3 + at))
    y, _, tape = layer.forward(x)
    layer.backward(tape, y)
    with pytest.raises(ValueError, match=rf"{type(layer).__name__}.backward: tape was consumed"):
        layer.backward(tape, y)


def test_the_tape_of_another_cell_is_refused(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    gru, lstm = bptt.GRU(4, 5), bptt.LSTM(4, 5)
    y, _, tape = gru.forward(x)
    with pytest.raises(ValueError, match="made by another layer"):
        lstm.backward(tape, y)
