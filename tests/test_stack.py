"""Stacks, directions, dropout: the whole layer equals the reference, and the laws that it keeps."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bptt
from networks import CELLS, assert_close, assert_same_bits
from networks import draw as draw_network
from networks import forward as forward_network
from stacks import KINDS, Case, arrays_of, draw

kinds = pytest.mark.parametrize("name", KINDS)
both = pytest.mark.parametrize("bidirectional", [False, True])

GIVEN = ("state", "lengths", "reset", "dy", "dstate")
EVERYTHING = dict.fromkeys(GIVEN, True)


def check(case: Case, tolerance: float, training: bool = False) -> None:
    y, state, grads, masks = case.run(training)
    its_y, its_state, its_dx, its_dstate, its_parameters = case.expected(masks)
    assert y.dtype == case.layer.dtype
    assert_close(y, its_y, tolerance)
    assert_close(grads.x, its_dx, tolerance)
    for actual, expected in ((state, its_state), (grads.state, its_dstate)):
        for a, e in zip(arrays_of(actual), expected, strict=True):
            assert_close(a, e, tolerance)
    assert list(grads.parameters) == list(case.layer.parameters)
    for name, gradient in its_parameters.items():
        assert_close(grads.parameters[name], gradient, tolerance)


@kinds
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)], ids=["float64", "float32"]
)
@settings(max_examples=60)
@given(
    shape=st.tuples(*(st.integers(low, 12) for low in (0, 0, 1, 1))),
    seed=st.integers(0, 2**32 - 1),
    given=st.fixed_dictionaries(
        {flag: st.booleans() for flag in (*GIVEN, "bias", "bidirectional")}
    ),
    num_layers=st.integers(1, 3),
    training=st.booleans(),
)
@example((0, 3, 2, 4), 0, EVERYTHING | {"bidirectional": True}, 2, False)
@example((5, 0, 2, 4), 0, EVERYTHING | {"bidirectional": True}, 2, True)
def test_equals_the_reference(name, dtype, tolerance, shape, seed, given, num_layers, training):
    dropout = 0.4 if num_layers > 1 else 0.0
    case = draw(name, shape, seed, dtype=dtype, num_layers=num_layers, dropout=dropout, **given)
    check(case, tolerance, training)


@kinds
def test_equals_the_reference_where_there_is_work_for_threads(name):
    for flags in ({}, {"lengths": True, "reset": True}):
        check(draw(name, (30, 17, 20, 33), 3, num_layers=2, bidirectional=True, **flags), 1e-12)


# ---- one direction -------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_reverse_is_forward_over_the_sequence_turned_round(cell, dtype, rng):
    network = draw_network(cell, (9, 4, 3, 5), rng, dtype=dtype, reverse=True)
    turned = network.but(reverse=False, x=network.x[::-1].copy(), dy=network.dy[::-1].copy())
    run, its_run = forward_network(network), forward_network(turned)
    assert_same_bits(run.y, its_run.y[::-1].copy())
    assert_same_bits(run.h, its_run.h)
    assert_same_bits(run.tape.h, its_run.tape.h[::-1].copy())
    backward = {"rnn": bptt.rnn_backward, "lstm": bptt.lstm_backward, "gru": bptt.gru_backward}
    backward = backward[cell.partition("_")[0]]
    dstate = (network.dh, network.dc) if cell == "lstm" else network.dh
    grads = backward(run.tape, network.dy, dstate)
    its_grads = backward(its_run.tape, turned.dy, dstate)
    assert_same_bits(grads.x, its_grads.x[::-1].copy())
    for a, e in zip(grads[2:], its_grads[2:], strict=True):
        assert_same_bits(a, e)


@kinds
@pytest.mark.usefixtures("threads")
def test_both_directions_have_the_bits_of_two_calls(name):
    forward = {"RNN": bptt.rnn_forward, "LSTM": bptt.lstm_forward, "GRU": bptt.gru_forward}
    backward = {"RNN": bptt.rnn_backward, "LSTM": bptt.lstm_backward, "GRU": bptt.gru_backward}
    family = name.partition(" ")[0]
    kind, variant, _ = KINDS[name]
    for shape in ((0, 2, 3, 4), (60, 1, 16, 48), (25, 9, 20, 30)):
        case = draw(name, shape, 3, bidirectional=True, lengths=True, reset=True, state=False)
        case.dstate = None
        assert isinstance(case.layer, kind)
        weights = list(case.layer.parameters.values())
        H = shape[3]
        calls = []
        for i, dy in enumerate((case.dy[..., :H], case.dy[..., H:])):
            y, state, tape = forward[family](
                case.x,
                bptt.Weights(*weights[4 * i : 4 * i + 4]),
                None,
                case.lengths,
                case.reset,
                reverse=bool(i),
                **variant,
            )
            calls.append((y, arrays_of(state), backward[family](tape, dy)))
        for threads in (1, 2, 4):
            bptt.set_num_threads(threads)
            y, state, grads, _ = case.run()
            assert_same_bits(y, np.concatenate([calls[0][0], calls[1][0]], axis=2))
            for i, stacked in enumerate(arrays_of(state)):
                assert_same_bits(stacked, np.stack([calls[0][1][i], calls[1][1][i]]))
            assert_same_bits(grads.x, calls[0][2].x + calls[1][2].x)
            for a, e in zip(
                grads.parameters.values(), [*calls[0][2][2:], *calls[1][2][2:]], strict=True
            ):
                assert_same_bits(a, e)


def test_reverse_is_true_or_false(rng):
    x = rng.standard_normal((2, 3, 4))
    weights = bptt.Weights(*bptt.GRU(4, 5, dtype=np.float64).parameters.values())
    with pytest.raises(TypeError, match=r"^gru_forward: reverse is 1 \(int\), expected True or"):
        bptt.gru_forward(x, weights, reverse=1)


# ---- laws ----------------------------------------------------------------------------------------


@kinds
@both
def test_a_batch_equals_its_sequences_alone(name, bidirectional):
    case = draw(
        name, (9, 5, 3, 4), 7, num_layers=2, bidirectional=bidirectional, lengths=True, reset=True
    )
    case.lengths = np.array([4, 0, 9, 1, 6])
    y, state, grads, _ = case.run()
    total = dict.fromkeys(grads.parameters, 0.0)
    for n, length in enumerate(case.lengths):
        one = slice(n, n + 1)

        def cut(stacked, one=one):
            parts = tuple(a[:, one].copy() for a in arrays_of(stacked))
            return parts if name == "LSTM" else parts[0]

        alone = Case(
            name,
            case.layer,
            case.x[:length, one],
            cut(case.state),
            None,
            case.reset[:length, one],
            case.dy[:length, one],
            cut(case.dstate),
        )
        its_y, its_state, its_grads, _ = alone.run()
        assert_close(y[:length, one], its_y, 1e-13)
        assert not y[length:, n].any()
        assert_close(grads.x[:length, one], its_grads.x, 1e-13)
        assert not grads.x[length:, n].any()
        for a, e in zip(arrays_of(state), arrays_of(its_state), strict=True):
            assert_close(a[:, one], e, 1e-13)
        for a, e in zip(arrays_of(grads.state), arrays_of(its_grads.state), strict=True):
            assert_close(a[:, one], e, 1e-13)
        for parameter, gradient in its_grads.parameters.items():
            total[parameter] = total[parameter] + gradient
    for parameter, gradient in grads.parameters.items():
        assert_close(gradient, total[parameter], 1e-12)


@kinds
@both
def test_documents_end_to_end_in_one_stream_are_as_good_as_alone(name, bidirectional):
    # Nothing crosses a reset, in whichever direction.
    case = draw(
        name, (12, 1, 3, 4), 8, num_layers=2, bidirectional=bidirectional, state=False, dstate=False
    )
    cuts = (0, 1, 6, 12)
    case.reset = np.zeros((12, 1), bool)
    case.reset[list(cuts[:-1])] = True
    y, _, grads, _ = case.run()
    total = dict.fromkeys(grads.parameters, 0.0)
    for a, b in pairwise(cuts):
        alone = Case(name, case.layer, case.x[a:b], dy=case.dy[a:b])
        its_y, _, its_grads, _ = alone.run()
        assert_close(y[a:b], its_y, 1e-13)
        assert_close(grads.x[a:b], its_grads.x, 1e-13)
        for parameter, gradient in its_grads.parameters.items():
            total[parameter] = total[parameter] + gradient
    for parameter, gradient in grads.parameters.items():
        assert_close(gradient, total[parameter], 1e-12)


@kinds
@both
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.usefixtures("threads")
def test_any_number_of_threads_gives_the_same_bits(name, bidirectional, lengths):
    for shape in ((40, 1, 64, 96), (24, 19, 33, 70)):
        case = draw(
            name,
            shape,
            9,
            dtype=np.float32,
            num_layers=2,
            bidirectional=bidirectional,
            lengths=lengths,
            reset=lengths,
        )
        runs = []
        for threads in (1, 2, 3, 5):
            bptt.set_num_threads(threads)
            y, state, grads, _ = case.run()
            predicted, its_state = case.layer.predict(*case.inputs)
            runs.append([y, *arrays_of(state), grads.x, *arrays_of(grads.state)])
            runs[-1] += [*grads.parameters.values(), predicted, *arrays_of(its_state)]
        for run in runs[1:]:
            for a, e in zip(run, runs[0], strict=True):
                assert_same_bits(a, e)


@kinds
@both
def test_predict_gives_what_forward_gives(name, bidirectional):
    case = draw(
        name, (7, 4, 3, 5), 2, num_layers=3, bidirectional=bidirectional, lengths=True, reset=True
    )
    y, state, _, _ = case.run()
    predicted, its_state = case.layer.predict(*case.inputs)
    assert_same_bits(predicted, y)
    for a, e in zip(arrays_of(its_state), arrays_of(state), strict=True):
        assert_same_bits(a, e)


@kinds
@pytest.mark.parametrize("shape", [(9, 2, 3, 7), (4, 1, 19, 33), (4, 6, 20, 17)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_many_steps_in_a_row_equal_one_predict(name, shape, dtype, tolerance):
    case = draw(name, shape, 4, dtype=dtype, num_layers=3, dropout=0.5, bias=shape[1] > 1)
    y, state = case.layer.predict(case.x, case.state)
    streamed = case.state
    for t in range(len(case.x)):
        y_t, streamed = case.layer.step(case.x[t], streamed)
        assert y_t.dtype == dtype
        assert_close(y_t, y[t], tolerance)
    for a, e in zip(arrays_of(streamed), arrays_of(state), strict=True):
        assert_close(a, e, tolerance)


@kinds
def test_a_step_sees_the_parameters_as_they_are(name):
    case = draw(name, (3, 1, 4, 5), 6)
    case.layer.step(case.x[0], case.state)
    for parameter in case.layer.parameters.values():
        parameter *= 0.5
    y, _ = case.layer.step(case.x[0], case.state)
    assert_close(y, case.layer.predict(case.x[:1], case.state)[0][0], 1e-13)


@kinds
def test_two_windows_with_the_state_handed_on_and_back_equal_one_pass(name):
    case = draw(name, (9, 3, 4, 5), 5, num_layers=2)
    layer, x, dy = case.layer, case.x, case.dy
    y, _, whole, _ = case.run()
    y1, state1, tape1 = layer.forward(x[:4], case.state)
    y2, _, tape2 = layer.forward(x[4:], state1)
    late = layer.backward(tape2, dy[4:], case.dstate)
    early = layer.backward(tape1, dy[:4], late.state)
    assert_close(np.concatenate([y1, y2]), y, 1e-12)
    for a, e in zip(arrays_of(early.state), arrays_of(whole.state), strict=True):
        assert_close(a, e, 1e-12)
    for parameter, gradient in whole.parameters.items():
        assert_close(early.parameters[parameter] + late.parameters[parameter], gradient, 1e-12)


@kinds
def test_a_retained_tape_gives_the_same_gradients_again(name):
    case = draw(name, (6, 3, 2, 4), 6, num_layers=2, bidirectional=True, dropout=0.3)
    _, _, tape = case.layer.forward(*case.inputs)
    first = case.layer.backward(tape, case.dy, case.dstate, retain=True)
    second = case.layer.backward(tape, case.dy, case.dstate)
    assert_same_bits(second.x, first.x)
    for a, e in zip(second.parameters.values(), first.parameters.values(), strict=True):
        assert_same_bits(a, e)


# ---- dropout -------------------------------------------------------------------------------------


def test_dropout_zeroes_its_share_and_scales_the_rest():
    layer = bptt.LSTM(3, 64, num_layers=3, dropout=0.25, dtype=np.float64, seed=1)
    x = np.random.default_rng(0).standard_normal((50, 8, 3))
    _, _, tape = layer.forward(x)
    masks = tape.kept.masks
    assert [m.shape for m in masks] == [(50, 8, 64)] * 2
    assert not np.array_equal(*masks)
    for mask in masks:
        assert mask.mean() == pytest.approx(0.75, abs=0.01)
        assert mask.mean(axis=(0, 1)) == pytest.approx(0.75, abs=0.08)


def test_dropout_is_seeded_and_its_draws_can_be_repeated(rng):
    def make(seed: int) -> Any:
        return bptt.GRU(3, 8, num_layers=2, dropout=0.5, seed=seed)

    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    one, other = make(1), make(1)
    first = one.forward(x)[0]
    assert_same_bits(other.forward(x)[0], first)
    before = one.random_state
    second = one.forward(x)[0]
    assert not np.array_equal(first, second)
    one.random_state = before
    assert_same_bits(one.forward(x)[0], second)
    plain, _ = one.predict(x)
    after = one.random_state
    assert_same_bits(one.forward(x, training=False)[0], plain)
    assert one.random_state == after  # predict and training=False draw nothing


def test_a_chain_has_the_random_state_of_its_layers(rng):
    x = rng.standard_normal((6, 4, 3)).astype(np.float32)
    model = bptt.Sequential(
        bptt.LSTM(3, 8, num_layers=2, dropout=0.5, seed=1), bptt.Linear(8, 2, seed=2)
    )
    before = model.random_state
    assert before[1] is None
    first = model.forward(x)[0]
    model.random_state = before
    assert_same_bits(model.forward(x)[0], first)
    with pytest.raises(ValueError, match="Sequential: random_state is None, expected one entry"):
        model.random_state = None
    with pytest.raises(ValueError, match="Linear: random_state is a int, expected None"):
        model.random_state = [before[0], 1]
    with pytest.raises(ValueError, match="LSTM: random_state is 'x', expected what"):
        model.random_state = ["x", None]
    before = model.random_state
    with pytest.raises(ValueError, match=r"Linear.forward: state is a int, expected None"):
        model.forward(x, (None, 1))
    assert model.random_state == before  # what a layer above refuses has drawn nothing below


# ---- learned initial states ----------------------------------------------------------------------


@kinds
@both
def test_a_learned_initial_state_is_the_state_where_none_is_given(name, bidirectional, rng):
    case = draw(
        name,
        (6, 4, 3, 5),
        1,
        state=False,
        num_layers=2,
        bidirectional=bidirectional,
        learn_initial_state=True,
    )
    layer = case.layer
    names = ["initial_h", "initial_c"][: 2 if name == "LSTM" else 1]
    assert list(layer.parameters)[-len(names) :] == names
    for parameter in names:
        assert not layer.parameters[parameter].any()
        layer.parameters[parameter][...] = rng.standard_normal(layer.parameters[parameter].shape)
    wide = [np.repeat(layer.parameters[n][:, None], 4, axis=1) for n in names]
    given = tuple(wide) if name == "LSTM" else wide[0]

    y, _, grads, _ = case.run()
    assert_same_bits(layer.predict(case.x)[0], y)
    case.state = given
    its_y, _, its_grads, _ = case.run()
    assert_same_bits(y, its_y)
    for parameter, initial in zip(names, arrays_of(its_grads.state), strict=True):
        assert_close(grads.parameters[parameter], initial.sum(axis=1), 1e-13)
        assert not its_grads.parameters[parameter].any()  # the given state had no part of it
        assert its_grads.parameters[parameter].shape == layer.parameters[parameter].shape
    if not bidirectional:
        assert_same_bits(layer.step(case.x[0])[0], layer.step(case.x[0], given)[0])
    if name == "LSTM":
        assert_same_bits(layer.predict(case.x, (None, given[1]))[0], y)


def test_a_learned_initial_state_is_learned(rng):
    # The first answer depends on nothing but the initial state.
    layer = bptt.GRU(2, 4, learn_initial_state=True, dtype=np.float64, seed=0)
    x, target = np.zeros((1, 3, 2)), np.broadcast_to(rng.uniform(-0.5, 0.5, 4), (1, 3, 4)).copy()
    optimizer = bptt.optim.Adam(lr=0.05)
    first = None
    for _ in range(200):
        y, _, tape = layer.forward(x)
        value, dy = bptt.losses.mse(y, target)
        first = value if first is None else first
        optimizer.step(layer.parameters, layer.backward(tape, dy).parameters)
    assert value < 1e-3 * first
    assert np.abs(layer.parameters["initial_h"]).max() > 0.01


# ---- names ---------------------------------------------------------------------------------------


def test_parameters_have_pytorchs_names_in_pytorchs_order():
    layer = bptt.GRU(3, 5, num_layers=2, bidirectional=True)
    shapes = {n: p.shape for n, p in layer.parameters.items()}
    assert shapes == {
        f"{kind}_l{k}{ending}": (15, {"weight_ih": (3, 10)[k], "weight_hh": 5}[kind])
        if kind.startswith("weight")
        else (15,)
        for k in range(2)
        for ending in ("", "_reverse")
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    assert list(shapes)[:5] == [
        "weight_ih_l0",
        "weight_hh_l0",
        "bias_ih_l0",
        "bias_hh_l0",
        "weight_ih_l0_reverse",
    ]


def test_layers_say_what_they_are():
    layer = bptt.LSTM(3, 5, num_layers=2, bidirectional=True, dropout=0.5, bias=False)
    assert repr(layer) == "LSTM(3, 5, num_layers=2, bidirectional=True, dropout=0.5, bias=False)"
