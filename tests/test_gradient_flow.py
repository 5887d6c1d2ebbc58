"""`gradient_flow` of models: stacks, windows, ways, and what it says in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
import reference
import reference_flow
from bptt.losses import mse, softmax_cross_entropy
from models import V, character_model
from networks import assert_close

LAYERS = [bptt.RNN, bptt.LSTM, bptt.GRU]
layers = pytest.mark.parametrize("recurrent", LAYERS)


def batch(rng: np.random.Generator, T: int = 9, N: int = 4) -> tuple[Any, Any]:
    return rng.integers(0, V, (T, N)), rng.integers(0, V, (T, N))


def weights(layer: Any) -> reference.Weights:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return reference.Weights(*(layer.parameters[name] for name in names))


def stack(*between: bptt.Linear, dtype: Any = np.float64) -> bptt.Sequential:
    size = between[-1].out_features if between else 5
    return bptt.Sequential(
        bptt.GRU(3, 5, dtype=dtype, seed=1),
        *between,
        bptt.LSTM(size, 4, dtype=dtype, seed=2),
        bptt.Linear(4, 2, dtype=dtype, seed=3),
    )


# ---- one layer -----------------------------------------------------------------------------------


@layers
def test_parts_sum_to_the_gradient(recurrent: Any, rng: np.random.Generator) -> None:
    model = character_model(recurrent=recurrent)
    x, target = batch(rng)
    flow = bptt.gradient_flow(model, x, target, softmax_cross_entropy, full=True)
    y, _, tape = model.forward(x)
    value, dy = softmax_cross_entropy(y, target)
    whole = model.backward(tape, dy).parameters["1.weight_hh_l0"]
    assert flow.loss == value
    assert flow.max_lag == 8
    assert_close(flow.dh, flow.direct + flow.recurrent, 0)
    shares = (
        (flow.weight_ih_by_step, "weight_ih"),
        (flow.weight_hh_by_step, "weight_hh"),
        (flow.bias_ih_by_step, "bias_ih"),
        (flow.bias_hh_by_step, "bias_hh"),
    )
    gradients = model.backward(model.forward(x)[2], dy).parameters
    for i, (share, name) in enumerate(shares):
        assert_close(share.sum(axis=0), gradients[f"1.{name}_l0"], 1e-12)
        norms = np.linalg.norm(share.reshape(9, -1), axis=1)
        np.testing.assert_allclose(flow.norms_by_step[:, i], norms, rtol=1e-10)
    for total in (
        flow.weight_hh,
        flow.weight_hh_sum,
        flow.weight_hh_mean * 36,
        flow.weight_hh_by_step.sum(axis=0),
        flow.weight_hh_by_lag.sum(axis=0),
    ):
        assert_close(total, whole, 1e-12)
    assert_close(flow.norm_by_step, np.linalg.norm(flow.weight_hh_by_step, axis=(1, 2)), 1e-12)
    assert_close(flow.norm_by_lag, np.linalg.norm(flow.weight_hh_by_lag, axis=(1, 2)), 1e-12)
    assert flow.delta.shape == (9, 4, flow.weight_hh.shape[0])


@layers
def test_windows_are_what_truncation_gives(recurrent: Any, rng: np.random.Generator) -> None:
    model = character_model(recurrent=recurrent)
    x, target = batch(rng)
    flow = bptt.gradient_flow(model, x, target, softmax_cross_entropy, max_lag=6, full=True)
    total = flow.weight_hh
    size = np.linalg.norm(total)
    assert list(flow.windows) == [1, 2, 3, 4, 5, 6, 7]
    for w in flow.windows:
        kept = flow.weight_hh_by_lag[:w].sum(axis=0)
        bias, cosine = flow.window(w)
        assert bias == pytest.approx(np.linalg.norm(kept - total) / size, rel=1e-9)
        assert cosine == pytest.approx(np.sum(kept * total) / size / np.linalg.norm(kept), rel=1e-9)
    assert any("lags beyond 6" in note for note in flow.notes)


def test_the_standard_error_is_the_jackknifes(rng: np.random.Generator) -> None:
    model = character_model()
    x, target = batch(rng, T=7, N=4)
    loss = lambda p, t: softmax_cross_entropy(p, t, reduction="sum")  # noqa: E731
    flow = bptt.gradient_flow(model, x, target, loss, max_lag=5)
    biases = []
    for n in range(4):
        others = (np.delete(a, n, axis=1) for a in (x, target))
        biases.append(bptt.gradient_flow(model, *others, loss, 5).bias_by_window)
    without = np.stack(biases)
    error = np.sqrt(3 / 4 * np.square(without - without.mean(axis=0)).sum(axis=0))
    np.testing.assert_allclose(flow.bias_error_by_window, error, rtol=1e-8, atol=1e-14)
    alone = bptt.gradient_flow(model, x[:, :1], target[:, :1], loss)
    assert np.isnan(alone.bias_error_by_window).all()
    assert "+-" not in str(alone.recommend_window())


def test_ways_of_the_lstm_sum_to_the_lag(rng: np.random.Generator) -> None:
    model = character_model()
    x, target = batch(rng)
    flow = bptt.gradient_flow(model, x, target, softmax_cross_entropy, by_way=True, full=True)
    through_c = flow.weight_hh_by_lag_through_c
    assert_close(through_c[0], flow.weight_hh_by_lag[0], 1e-13)  # nothing has passed W_hh yet
    rest = np.linalg.norm(flow.weight_hh_by_lag - through_c, axis=(1, 2))
    assert_close(flow.norm_by_lag_through_h, rest, 1e-12)
    assert_close(flow.norm_by_lag_through_c, np.linalg.norm(through_c, axis=(1, 2)), 1e-12)
    # The reference without W_hh on the way back.
    lstm, linear = model.layers[1], model.layers[2]
    embedded = model.layers[0].parameters["weight"][x]
    y, _, _, tape = reference.forward("lstm", embedded, weights(lstm))
    _, dp = softmax_cross_entropy(linear.predict(y)[0], target)
    tape.weights = reference.Weights(*vars(tape.weights).values())
    tape.weights.weight_hh = np.zeros_like(tape.weights.weight_hh)
    only_c = reference.backward(tape, dp @ linear.parameters["weight"]).weight_hh
    assert_close(through_c.sum(axis=0), only_c, 1e-12)
    assert bptt.gradient_flow(model, x, target, softmax_cross_entropy).norm_by_lag_through_c is None


def test_without_lags_it_is_by_step_only(rng: np.random.Generator) -> None:
    model = character_model()
    x, target = batch(rng)
    flow = bptt.gradient_flow(model, x, target, softmax_cross_entropy, per_lag=False)
    whole = bptt.gradient_flow(model, x, target, softmax_cross_entropy)
    assert_close(flow.norm_by_step, whole.norm_by_step, 0)
    assert_close(flow.dh, whole.dh, 0)
    assert flow.warnings == []
    with pytest.raises(ValueError, match="measured with per_lag=False"):
        flow.recommend_window()
    with pytest.raises(ValueError, match="measured with per_lag=False"):
        flow.window(1)


# ---- stacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_lags_of_a_stack_equal_truncated_runs(
    linear: bool, ragged: bool, rng: np.random.Generator
) -> None:
    model = stack(*[bptt.Linear(5, 6, dtype=np.float64, seed=4)] * linear)
    T, N = 7, 3
    x, target = rng.standard_normal((T, N, 3)), rng.standard_normal((T, N, 2))
    lengths = np.array([7, 4, 1]) if ragged else None
    reset = rng.random((T, N)) < 0.2 if ragged else None
    flow = bptt.gradient_flow(
        model, x, target, mse, lengths=lengths, reset=reset, full=True, by_way=True
    )
    assert [layer.name for layer in flow.layers] == ["0", "2" if linear else "1"]
    y, _, tape = model.forward(x, None, lengths, reset)
    _, dp = mse(y, target)
    grads = model.backward(tape, dp).parameters
    upper, head = model.layers[-2], model.layers[-1].parameters["weight"]
    between = model.layers[1].parameters if linear else None
    if between is not None:
        # Folded into the layer above: W_ih (W x + b) + b_ih.
        folded = weights(upper)
        folded.bias_ih = folded.bias_ih + folded.weight_ih @ between["bias"]
        folded.weight_ih = folded.weight_ih @ between["weight"]
    else:
        folded = weights(upper)
    run = [
        reference_flow.Layer("gru", weights(model.layers[0])),
        reference_flow.Layer("lstm", folded),
    ]
    for layer in flow.layers:
        whole = grads[f"{layer.name}.weight_hh_l0"]
        assert_close(layer.weight_hh, whole, 1e-12)
        assert_close(layer.weight_hh_by_lag.sum(axis=0), whole, 1e-12)
    for w in range(1, T + 1):
        truncated = reference_flow.windows(run, x, dp @ head, w, lengths, reset)
        for layer, wanted in zip(flow.layers, truncated, strict=True):
            assert_close(layer.weight_hh_by_lag[:w].sum(axis=0), wanted, 1e-12)
    assert flow.recommend_window().window == max(
        layer.recommend_window().window or 0 for layer in flow.layers
    )


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_layers_own_stack_is_followed_with_its_dropout_held(
    dropout: float, rng: np.random.Generator
) -> None:
    lstm = bptt.LSTM(3, 5, 2, dropout=dropout, dtype=np.float64, seed=1)
    model = bptt.Sequential(lstm, bptt.Linear(5, 2, dtype=np.float64, seed=2))
    x, target = rng.standard_normal((8, 3, 3)), rng.standard_normal((8, 3, 2))
    before = lstm.random_state
    flow = bptt.gradient_flow(model, x, target, mse, full=True)
    lstm.random_state = before  # the same mask once more
    y, _, tape = model.forward(x)
    grads = model.backward(tape, mse(y, target)[1]).parameters
    assert [layer.name for layer in flow.layers] == ["0.l0", "0.l1"]
    for k, layer in enumerate(flow.layers):
        whole = grads[f"0.weight_hh_l{k}"]
        assert_close(layer.weight_hh, whole, 1e-12)
        assert_close(layer.weight_hh_by_lag.sum(axis=0), whole, 1e-12)
    assert any("one mask was drawn" in note for note in flow.notes) == (dropout > 0)


def test_many_calls_are_one(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stack()
    x, target = rng.standard_normal((11, 3, 3)), rng.standard_normal((11, 3, 2))
    once = bptt.gradient_flow(model, x, target, mse, 4, by_way=True)
    monkeypatch.setattr("bptt.flow.lags.WORK_BYTES", 1)
    for a, b in zip(
        once.layers, bptt.gradient_flow(model, x, target, mse, 4, by_way=True).layers, strict=True
    ):
        assert_close(b.norm_by_lag, a.norm_by_lag, 1e-12)
        assert_close(b.bias_by_window, a.bias_by_window, 1e-12)
        np.testing.assert_allclose(b.lag_map, a.lag_map, rtol=1e-12)
    monkeypatch.setattr("bptt.flow.lags.ACCUMULATOR_BYTES", 1)
    one_group = bptt.gradient_flow(model, x, target, mse, 4)
    assert_close(one_group.bias_by_window, once.bias_by_window, 1e-12)
    assert np.isnan(one_group.bias_error_by_window).all()


# ---- words ---------------------------------------------------------------------------------------


def scalar(w: float, T: int) -> tuple[bptt.RNN, Any, Any]:
    """h_t = w h_{t-1} + x_t, with the loss h_{T-1}."""
    model = bptt.RNN(1, 1, bias=False, dtype=np.float64, nonlinearity="identity")
    model.load_parameters({"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.full((1, 1), w)})
    return model, np.ones((T, 1, 1)), np.zeros((T, 1, 1))


def last(prediction: Any, _: Any) -> tuple[float, Any]:
    dy = np.zeros_like(prediction)
    dy[-1] = 1
    return float(prediction[-1].sum()), dy


def test_warnings_say_what_vanishes_and_explodes_and_where() -> None:
    (said,) = bptt.gradient_flow(*scalar(0.5, 20), last).warnings
    assert "gradients vanish: 10 steps back, 0.098 % of what the loss sent is left" in said
    (said,) = bptt.gradient_flow(*scalar(2.0, 20), last).warnings
    assert "gradients explode: 7 steps back, |dL_s/dh_t| is 128 times" in said
    assert "largest at step 0" in said
    assert bptt.gradient_flow(*scalar(1.0, 20), last).warnings == []
    (said,) = bptt.gradient_flow(*scalar(2.0, 20), last, per_lag=False).warnings
    assert "|dL/dh_t| is 5.24e+05 times as large at step 0 as at step 19" in said
    (said,) = bptt.gradient_flow(*scalar(1e20, 20), last).warnings
    assert "dL/dh_t is not finite at step" in said
    (said,) = bptt.gradient_flow(*scalar(0.5, 1), last).warnings
    assert "dL/dW_hh is zero" in said


def test_recommendations_are_shortest_and_reported_in_words() -> None:
    flow = bptt.gradient_flow(*scalar(0.5, 40), last)
    found = flow.recommend_window(0.05)
    assert found.window is not None
    assert flow.bias_by_window[found.window - 1] <= 0.05 < flow.bias_by_window[found.window - 2]
    assert str(found).startswith(f"window {found.window}: within 5 % of the full gradient")
    short = bptt.gradient_flow(*scalar(1.0, 40), last, 3).recommend_window(0.05)
    assert short.window is None
    assert str(short).startswith("no window up to 4 is within 5 % of the full gradient")
    report = flow.report()
    assert f"window {found.window}:" in report
    assert "warning: the layer: gradients vanish" in report
    assert repr(flow.layers) == "[<LayerFlow 0 (rnn_identity): T 40, N 1, H 1, 40 lags>]"


def test_pictures_are_written(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("matplotlib")
    model = character_model()
    x, target = batch(rng)
    flow = bptt.gradient_flow(model, x, target, softmax_cross_entropy, by_way=True)
    flow.plot(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")
    bptt.gradient_flow(*scalar(0.0, 3), last, 0).plot(tmp_path / "zero.png")
    with pytest.raises(FileNotFoundError, match=r"nowhere/flow\.png"):
        flow.plot(tmp_path / "nowhere" / "flow.png")


# ---- bad input -----------------------------------------------------------------------------------


class Untracked(bptt.Layer):
    """A layer that nobody knows."""

    def __init__(self) -> None:
        self._parameters = {}

    def forward(self, x: Any, state: Any = None, *_: Any, **__: Any) -> Any:
        return x, state, bptt.layers.LayerTape(self, None)

    def backward(self, _tape: Any, dy: Any, dstate: Any = None, *_: Any, **__: Any) -> Any:
        return bptt.layers.LayerGradients(2 * dy, dstate, {})

    def predict(self, x: Any, state: Any = None) -> Any:
        return x, state

    step = predict


def test_refusals_name_what_is_wrong(rng: np.random.Generator) -> None:
    model = character_model()
    x, target = batch(rng)
    flow = bptt.gradient_flow(model, x, target, softmax_cross_entropy)

    def refused(sentence: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=sentence):
            bptt.gradient_flow(*arguments, **options)

    refused("max_lag is 9, expected 0 <= max_lag < T = 9", model, x, target, mse, 9)
    refused("max_lag is -1 ", model, x, target, mse, -1)
    refused("expected T and N of at least 1", model, x[:0], target[:0], softmax_cross_entropy)
    refused(
        "no recurrent layer", bptt.Linear(3, 2), np.zeros((4, 2, 3), np.float32), x[:4, :2], mse
    )
    untracked = bptt.Sequential(bptt.RNN(3, 5), Untracked(), bptt.RNN(5, 2))
    features = np.zeros((9, 4, 3), np.float32)
    sentence = r"layer 1 \(Untracked\) stands between recurrent layers and can't be followed"
    refused(sentence, untracked, features, np.zeros((9, 4, 2), np.float32), mse)
    for tolerance in (0, 1, -0.1, 2, np.nan):
        with pytest.raises(ValueError, match=r"tolerance is .*expected a number in \(0, 1\)"):
            flow.recommend_window(tolerance)
    with pytest.raises(ValueError, match=r"length is 0 .*expected an integer >= 1"):
        flow.window(0)
    with pytest.raises(ValueError, match=r"length is 10, expected at most max_lag \+ 1 = 9"):
        flow.window(10)
    with pytest.raises(TypeError, match="model is a int, expected a Layer"):
        bptt.gradient_flow(3, x, target, mse)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loss is a int, expected a Callable"):
        bptt.gradient_flow(model, x, target, 3)  # type: ignore[arg-type]
    gru = character_model(recurrent=bptt.GRU)
    refused("by_way is true, and model has no LSTM", gru, x, target, mse, by_way=True)
    sentence = r"by_way is true, expected per_lag=True with it"
    refused(sentence, model, x, target, mse, by_way=True, per_lag=False)
    for layer in (1, -2):
        with pytest.raises(ValueError, match=f"layer is {layer}, expected one of 1 layers"):
            flow.plot("flow.png", layer=layer)


@pytest.mark.parametrize(
    ("returned", "error", "sentence"),
    [
        (1.0, TypeError, r"loss returned a float, expected the pair \(value, dprediction\)"),
        ((1.0, 2.0), TypeError, "loss's dprediction is a float, expected an array"),
        ((1.0, np.zeros((20, 1, 2))), ValueError, r"loss's dprediction has shape \(20, 1, 2\)"),
        ((1.0, np.zeros((20, 1, 1), np.float32)), TypeError, "dprediction has dtype float32"),
    ],
)
def test_a_loss_that_returns_something_else_is_refused(
    returned: Any, error: Any, sentence: str
) -> None:
    with pytest.raises(error, match=f"gradient_flow: .*{sentence}"):
        bptt.gradient_flow(*scalar(0.5, 20), lambda *_: returned)


def test_an_untracked_layer_above_all_recurrences_is_fine(rng: np.random.Generator) -> None:
    model = bptt.Sequential(bptt.RNN(3, 2, dtype=np.float64, seed=1), Untracked())
    x, target = rng.standard_normal((6, 2, 3)), rng.standard_normal((6, 2, 2))
    flow = bptt.gradient_flow(model, x, target, mse, full=True)
    y, _, tape = model.forward(x)
    whole = model.backward(tape, mse(y, target)[1]).parameters["0.weight_hh_l0"]
    assert_close(flow.weight_hh_by_lag.sum(axis=0), whole, 1e-12)
