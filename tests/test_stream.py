"""Streams: the steps of a layer one by one, as it gives them all at once."""

import re
from typing import Any

import numpy as np
import pytest

import bptt
from networks import assert_same_bits

KINDS: dict[str, Any] = {
    "rnn": bptt.RNN,
    "rnn_relu": lambda *a, **k: bptt.RNN(*a, nonlinearity="relu", **k),
    "rnn_identity": lambda *a, **k: bptt.RNN(*a, nonlinearity="identity", **k),
    "lstm": bptt.LSTM,
    "gru": bptt.GRU,
    "gru_reset_before": lambda *a, **k: bptt.GRU(*a, reset_after=False, **k),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def drawn_state(layer: Any, rng: np.random.Generator) -> Any:
    h, c = rng.standard_normal((2, 1, 1, layer.hidden_size)).astype(layer.dtype)
    return (h, c) if isinstance(layer, bptt.LSTM) else h


def assert_same_state(actual: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        assert isinstance(actual, tuple)
        for a, e in zip(actual, expected, strict=True):
            assert_same_bits(a, e)
    else:
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 64), (3, 17), (40, 100), (65, 33)], ids=str)
@kinds
def test_steps_equal_one_predict_to_the_bit(
    kind: str, sizes: tuple[int, int], dtype: Any, bias: bool, rng: np.random.Generator
) -> None:
    T, (D, H) = 60, sizes
    layer = KINDS[kind](D, H, bias=bias, dtype=dtype, seed=1)
    x = rng.standard_normal((T, 1, D)).astype(dtype)
    state = drawn_state(layer, rng)
    y, final = layer.predict(x, state)
    stream = bptt.Stream(layer, state)
    assert_same_state(stream.state, state)
    its_y = np.array([stream.step(x_t) for x_t in x[:, 0]])
    assert_same_bits(its_y[:, None], y)
    assert_same_state(stream.state, final)


@kinds
def test_reset_begins_anew_or_where_it_is_told(kind: str, rng: np.random.Generator) -> None:
    layer = KINDS[kind](3, 20, seed=1)
    x = rng.standard_normal((3, 3)).astype(np.float32)
    stream = bptt.Stream(layer)
    first = [stream.step(x_t) for x_t in x]
    after_three = stream.state
    fourth = stream.step(x[0])
    stream.reset()
    assert_same_bits(np.array([stream.step(x_t) for x_t in x]), np.array(first))
    stream.reset(after_three)
    assert_same_bits(stream.step(x[0]), fourth)


def test_half_a_state_of_an_lstm_is_zero(rng: np.random.Generator) -> None:
    layer = bptt.LSTM(2, 5, seed=1)
    h, c = drawn_state(layer, rng)
    zero = np.zeros_like(h)
    assert_same_state(bptt.Stream(layer, (h, None)).state, (h, zero))
    assert_same_state(bptt.Stream(layer, (None, c)).state, (zero, c))


@kinds
def test_a_learned_initial_state_is_where_it_starts(kind: str, rng: np.random.Generator) -> None:
    layer = KINDS[kind](3, 20, seed=1, learn_initial_state=True)
    for name in layer.parameters.keys() & {"initial_h", "initial_c"}:
        layer.parameters[name][...] = rng.standard_normal((1, 20))
    x = rng.standard_normal((5, 1, 3)).astype(np.float32)
    y, _ = layer.predict(x)
    stream = bptt.Stream(layer)
    layer.parameters["initial_h"][...] = 7  # which does not reach the stream
    for _ in range(2):
        assert_same_bits(np.array([stream.step(x_t) for x_t in x[:, 0]])[:, None], y)
        stream.reset()


@kinds
def test_a_stream_keeps_its_own_copies(kind: str, rng: np.random.Generator) -> None:
    layer = KINDS[kind](3, 20, seed=1)
    state = drawn_state(layer, rng)
    x = rng.standard_normal((4, 3)).astype(np.float32)
    expected = [bptt.Stream(layer, state).step(x_t) for x_t in x[:1]]
    stream = bptt.Stream(layer, state)
    for array in [*layer.parameters.values(), *(state if isinstance(state, tuple) else [state])]:
        array[...] = 7
    y = stream.step(x[0])
    assert_same_bits(y, expected[0])
    handed_out = stream.state
    for array in handed_out if isinstance(handed_out, tuple) else [handed_out]:
        array[...] = 7
    y[...] = 7  # what a step returned is the caller's
    again = bptt.Stream(KINDS[kind](3, 20, seed=1), None)
    again.reset(stream.state)
    assert_same_bits(again.step(x[1]), stream.step(x[1]))


def test_two_streams_of_a_layer_do_not_know_each_other(rng: np.random.Generator) -> None:
    layer = bptt.GRU(3, 20, seed=1)
    x = rng.standard_normal((10, 2, 3)).astype(np.float32)
    streams = [bptt.Stream(layer), bptt.Stream(layer)]
    y = [[stream.step(x_t) for stream, x_t in zip(streams, both, strict=True)] for both in x]
    for n in range(2):
        alone, _ = layer.predict(np.ascontiguousarray(x[:, [n]]))
        assert_same_bits(np.array(y)[:, [n]], alone)


def test_a_strided_input_is_read_as_it_is(rng: np.random.Generator) -> None:
    layer = bptt.LSTM(3, 4, seed=1)
    x = rng.standard_normal((3, 8)).astype(np.float32)
    expected = bptt.Stream(layer).step(np.ascontiguousarray(x[:, 5]))
    assert_same_bits(bptt.Stream(layer).step(x[:, 5]), expected)


# ---- bad input -----------------------------------------------------------------------------------


def refuse(error: type[Exception], sentence: str, call: Any) -> None:
    with pytest.raises(error, match=re.escape(sentence)) as caught:
        call()
    assert caught.type is error


def test_bad_layers() -> None:
    refuse(
        TypeError,
        "Stream: layer is a Linear, expected an RNN, LSTM or GRU",
        lambda: bptt.Stream(bptt.Linear(2, 3)),  # type: ignore[arg-type]
    )

    refuse(
        ValueError,
        "Stream: layer has num_layers=2, bidirectional=False, expected one layer and one direction",
        lambda: bptt.Stream(bptt.LSTM(2, 3, num_layers=2)),
    )
    refuse(
        ValueError,
        "Stream: layer has num_layers=1, bidirectional=True, expected one layer and one direction",
        lambda: bptt.Stream(bptt.GRU(2, 3, bidirectional=True)),
    )


def test_bad_states() -> None:
    def zero(*shape: int) -> Any:
        return np.zeros(shape, np.float32)

    lstm, gru = bptt.LSTM(2, 3), bptt.GRU(2, 3)
    for where, call in (
        ("Stream", lambda layer, state: bptt.Stream(layer, state)),
        ("Stream.reset", lambda layer, state: bptt.Stream(layer).reset(state)),
    ):
        for error, sentence, layer, state in (
            (ValueError, "state has shape (1, 3), expected (1, 1, 3)", gru, zero(1, 3)),
            (ValueError, "state has shape (1, 2, 3), expected (1, 1, 3)", gru, zero(1, 2, 3)),
            (TypeError, "state is a list, expected an array", gru, [[[0.0] * 3]]),
            (TypeError, "expected a pair (h, c)", lstm, zero(1, 1, 3)),
            (ValueError, "state has 3 entries, expected a pair (h, c)", lstm, (zero(1, 1, 3),) * 3),
            (
                ValueError,
                "state[1] has shape (1, 1, 4), expected (1, 1, 3)",
                lstm,
                (zero(1, 1, 3), zero(1, 1, 4)),
            ),
            (TypeError, "h has dtype float64, expected float32", gru, np.zeros((1, 1, 3))),
        ):
            with pytest.raises(error, match=f"^{where}: .*{re.escape(sentence)}"):
                call(layer, state)


def test_bad_inputs_leave_the_state_alone(rng: np.random.Generator) -> None:
    layer = bptt.LSTM(2, 3, seed=1)
    stream = bptt.Stream(layer, drawn_state(layer, rng))
    before = stream.state
    for error, sentence, x in (
        (ValueError, "Stream.step: x has shape (3,), expected (D,) = (2,)", np.zeros(3, "f")),
        (ValueError, "Stream.step: x has shape (1, 2), expected (D,)", np.zeros((1, 2), "f")),
        (TypeError, "Stream.step: x has dtype float64, expected float32", np.zeros(2)),
        (TypeError, "Stream.step: x is a list", [0.0, 0.0]),
        (TypeError, "Stream.step: x has dtype int64", np.zeros(2, np.int64)),
    ):
        refuse(error, sentence, lambda x=x: stream.step(x))
    assert_same_state(stream.state, before)
