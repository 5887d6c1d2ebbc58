"""The gradient's way through layers of two directions, taken apart: against the reference, which
counts how often each part was handed on, and against single layers over turned sequences."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bptt
import reference
import reference_flow
import reference_layers
from bptt.losses import mse
from networks import assert_close, assert_same_bits
from stacks import KINDS, arrays_of, draw

Array = np.ndarray[Any, Any]

kinds = pytest.mark.parametrize("name", KINDS)


def sent(y: Array, dy: Array) -> tuple[float, Array]:
    """A loss whose gradient is given."""
    return float(np.sum(y * dy)), dy


def flow_of(case: Any, **options: Any) -> Any:
    given_ones = {"lengths": case.lengths, "reset": case.reset, "state": case.state}
    return bptt.gradient_flow(case.layer, case.x, case.dy, sent, **given_ones, **options)


def reference_stack(case: Any) -> reference_layers.Stack:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    endings = [n.removeprefix(names[0]) for n in case.layer.parameters if n.startswith(names[0])]
    flat = [reference.Weights(*(case.layer.parameters[n + e] for n in names)) for e in endings]
    d = case.layer.directions
    rows = [flat[i : i + d] for i in range(0, len(flat), d)]
    return reference_layers.Stack(KINDS[case.name][2], rows)


@kinds
@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    seed=st.integers(0, 10**6),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
)
@example((5, 3, 2, 3), 3, 3, True)
def test_lags_are_what_was_handed_on_so_often(
    name: str, shape: Any, seed: int, num_layers: int, bidirectional: bool
) -> None:
    case = draw(
        name,
        shape,
        seed,
        state=False,
        dstate=False,
        lengths=bool(seed % 2),
        reset=bool(seed // 2 % 2),
        num_layers=num_layers,
        bidirectional=bidirectional,
    )
    assert case.dy is not None
    K = shape[0] - 1
    flow = flow_of(case, full=True)
    stack = reference_stack(case)
    parts = reference_flow.lags(stack, case.x, case.dy, case.lengths, case.reset)
    assert len(flow.layers) == len(parts) == num_layers * case.layer.directions
    for layer, its in zip(flow.layers, parts, strict=True):
        whole = its.sum(axis=0)
        assert_close(layer.weight_hh, whole, 1e-12)
        assert_close(layer.weight_hh_by_lag, its[: K + 1], 1e-12)
        assert_close(layer.norm_by_lag, np.linalg.norm(its[: K + 1], axis=(1, 2)), 1e-12)
        size = np.linalg.norm(whole)
        for w, bias in zip(layer.windows, layer.bias_by_window, strict=True):
            left = np.linalg.norm(its[w:].sum(axis=0))
            assert bias * size == pytest.approx(left, abs=1e-12 * max(1.0, size))


@kinds
@pytest.mark.parametrize("ragged", [False, True])
def test_steps_sum_to_the_gradient_in_either_direction(name: str, ragged: bool) -> None:
    options = {"num_layers": 2, "bidirectional": True}
    case = draw(name, (7, 4, 3, 5), 11, lengths=ragged, reset=ragged, dstate=False, **options)
    flow = flow_of(case, per_lag=False, full=True)
    *_, tape = case.layer.forward(*case.inputs)
    whole = case.layer.backward(tape, case.dy).parameters
    names = ["l0", "l0_reverse", "l1", "l1_reverse"]
    assert [layer.name for layer in flow.layers] == names
    assert [layer.reverse for layer in flow.layers] == [False, True, False, True]
    lengths = np.full(4, 7) if case.lengths is None else case.lengths
    ended = np.arange(7)[:, None] >= lengths
    for layer, ending in zip(flow.layers, names, strict=True):
        shares = {
            "weight_ih": layer.weight_ih_by_step,
            "weight_hh": layer.weight_hh_by_step,
            "bias_ih": layer.bias_ih_by_step,
            "bias_hh": layer.bias_hh_by_step,
        }
        for i, (kind, share) in enumerate(shares.items()):
            assert_close(share.sum(axis=0), whole[f"{kind}_{ending}"], 1e-12)
            norms = np.linalg.norm(share.reshape(7, -1), axis=1)
            np.testing.assert_allclose(layer.norms_by_step[:, i], norms, rtol=1e-10, atol=1e-14)
        # A step is one of the caller's time, also where sequences end at different ones.
        assert_close(layer.bias_hh_by_step, layer.delta.sum(axis=1), 1e-12)
        for a in (layer.direct, layer.recurrent, layer.delta, layer.dc):
            assert a is None or not a[ended].any()


@kinds
def test_a_reverse_direction_is_a_layer_over_the_turned_sequences(name: str) -> None:
    """Every number of it: nothing but the direction differs."""
    T, H = 6, 5
    case = draw(name, (T, 3, 2, H), 5, dstate=False, bidirectional=True, reset=True)
    assert case.dy is not None
    assert case.reset is not None
    reverse = flow_of(case, full=True).layers[1]
    kind, variant, _ = KINDS[name]
    alone = kind(2, H, dtype=np.float64, **variant)
    ending = "_reverse"
    alone.load_parameters(
        {n.removesuffix(ending): v for n, v in case.layer.parameters.items() if n.endswith(ending)}
    )
    state = [a[1:].copy() for a in arrays_of(case.state)]
    (forward,) = bptt.gradient_flow(
        alone,
        case.x[::-1].copy(),
        case.dy[::-1, :, H:].copy(),
        sent,
        state=(state[0], state[1]) if len(state) > 1 else state[0],
        reset=np.concatenate([np.zeros((1, 3), bool), case.reset[:0:-1]]),
        full=True,
    ).layers
    by_step = "direct recurrent dc h delta norms_by_step weight_hh_by_step bias_ih_by_step"
    for found in by_step.split():
        its, wanted = getattr(reverse, found), getattr(forward, found)
        assert (its is None) == (wanted is None)
        if its is not None:
            assert_close(its, wanted[::-1], 1e-13)
    np.testing.assert_allclose(reverse.lag_map, forward.lag_map[:, ::-1], rtol=1e-12)
    for found in ("weight_hh_by_lag", "norm_by_lag", "bias_by_window", "cosine_by_window", "decay"):
        assert_close(getattr(reverse, found), getattr(forward, found), 1e-12)
    assert np.isnan(reverse.lag_map[1, 0])
    assert not np.isnan(reverse.lag_map[1, -1])


def test_ways_of_an_lstm_in_both_directions() -> None:
    """Lags through c alone are those of the reference whose W_hh is nothing on the way back."""
    case = draw("LSTM", (5, 3, 2, 4), 8, state=False, dstate=False, bidirectional=True)
    assert case.dy is not None
    *_, (tapes, _) = reference_stack(case).forward(case.x)
    for layer, its in zip(flow_of(case, by_way=True, full=True).layers, tapes, strict=True):
        its.tape.weights = reference.Weights(*vars(its.tape.weights).values())
        its.tape.weights.weight_hh = np.zeros_like(its.tape.weights.weight_hh)
        dy = case.dy[..., 4:] if layer.reverse else case.dy[..., :4]
        only_c = reference_layers.backward(its, dy, None, None).weight_hh
        assert_close(layer.weight_hh_by_lag_through_c.sum(axis=0), only_c, 1e-12)


def model_of_both() -> bptt.Sequential:
    dtype: Any = np.float64
    return bptt.Sequential(
        bptt.LSTM(3, 4, bidirectional=True, dtype=dtype, seed=1),
        bptt.Linear(8, 5, dtype=dtype, seed=2),
        bptt.GRU(5, 4, num_layers=2, bidirectional=True, dropout=0.3, dtype=dtype, seed=3),
        bptt.RNN(8, 3, dtype=dtype, seed=4),
    )


def test_many_calls_are_one_and_threads_change_no_bit(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, target = rng.standard_normal((11, 5, 3)), rng.standard_normal((11, 5, 3))

    def flow() -> Any:
        return bptt.gradient_flow(model_of_both(), x, target, mse, 6, full=True, by_way=True)

    found = []
    for threads in (1, 3):
        with bptt.num_threads(threads):
            found.append(flow())
    monkeypatch.setattr("bptt.flow.lags.WORK_BYTES", 1)
    found.append(flow())
    names = "weight_hh_by_lag norm_by_lag bias_by_window bias_error_by_window cosine_by_window"
    for one, more, step_by_step in zip(*(f.layers for f in found), strict=True):
        for name in (*names.split(), "norms_by_step", "recurrent"):
            assert_same_bits(getattr(more, name), getattr(one, name))
            assert_close(getattr(step_by_step, name), getattr(one, name), 1e-11)
        np.testing.assert_allclose(step_by_step.lag_map, one.lag_map, rtol=1e-10)


def test_what_lies_below_two_directions_is_reached_from_both_sides(
    rng: np.random.Generator,
) -> None:
    x, target = rng.standard_normal((6, 2, 3)), rng.standard_normal((6, 2, 3))
    flow = bptt.gradient_flow(model_of_both(), x, target, mse)
    unreached = {layer.name: int(np.isnan(layer.lag_map).sum()) for layer in flow.layers}
    assert unreached == {
        "0.l0": 0,
        "0.l0_reverse": 0,
        "2.l0": 0,
        "2.l0_reverse": 0,
        "2.l1": 15,  # only the RNN is above it, which goes the same way
        "2.l1_reverse": 0,
        "3": 15,
    }
    assert any("lags beyond 5 are in the full gradient" in note for note in flow.notes)
    dtype: Any = np.float64
    one = bptt.Sequential(
        bptt.GRU(3, 4, bidirectional=True, dtype=dtype, seed=1),
        bptt.Linear(8, 3, dtype=dtype, seed=0),
    )
    assert bptt.gradient_flow(one, x, target, mse).notes == []


def test_words_name_the_direction() -> None:
    case = draw("RNN relu", (40, 2, 2, 3), 1, state=False, dstate=False, bidirectional=True)
    for name, parameter in case.layer.parameters.items():
        if name.startswith("weight_hh"):
            parameter[:] = (3.0 if name.endswith("_reverse") else 0.2) * np.eye(3)
    flow = flow_of(case)
    (grown,) = (s for s in flow.warnings if "explode" in s)
    assert grown.startswith("layer l0_reverse: gradients explode")
    assert any("layer l0: gradients vanish" in s for s in flow.warnings)
    assert "layer l0_reverse (rnn_relu)" in flow.report()
    (said,) = (s for s in flow_of(case, per_lag=False).warnings if "explode" in s)
    assert "as large at step 39 as at step 0" in said
