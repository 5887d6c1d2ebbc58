"""Optimizers and clipping: equal to the reference, step by step, and what they refuse."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import bptt
import reference
from bptt import optim

Array = NDArray[Any]
NAN, INF = float("nan"), float("inf")


def adam(decoupled: bool) -> Any:
    def step(p, g, m, v, k):
        return reference.adam(p, g, m, v, k, 0.01, (0.8, 0.99), 1e-7, 0.1, decoupled)

    return step


# name: our optimizer, how many arrays it keeps, and a step of the reference (its number is last)
OPTIMIZERS: dict[str, tuple[Any, int, Any]] = {
    "SGD": (
        lambda: optim.SGD(0.1),
        1,
        lambda p, g, v, _: reference.sgd(p, g, v, 0.1, 0.0, False, 0.0),
    ),
    "SGD momentum": (
        lambda: optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
        1,
        lambda p, g, v, _: reference.sgd(p, g, v, 0.1, 0.9, False, 0.01),
    ),
    "SGD nesterov": (
        lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        1,
        lambda p, g, v, _: reference.sgd(p, g, v, 0.1, 0.9, True, 0.01),
    ),
    "RMSprop": (
        lambda: optim.RMSprop(0.01, alpha=0.9, eps=1e-6, weight_decay=0.01),
        1,
        lambda p, g, s, _: reference.rmsprop(p, g, s, 0.01, 0.9, 1e-6, 0.01),
    ),
    "Adagrad": (
        lambda: optim.Adagrad(0.1, eps=1e-6, weight_decay=0.01),
        1,
        lambda p, g, s, _: reference.adagrad(p, g, s, 0.1, 1e-6, 0.01),
    ),
    "Adam": (lambda: optim.Adam(0.01, 0.8, 0.99, 1e-7, 0.1), 2, adam(decoupled=False)),
    "AdamW": (lambda: optim.AdamW(0.01, 0.8, 0.99, 1e-7, 0.1), 2, adam(decoupled=True)),
}
each = pytest.mark.parametrize("name", OPTIMIZERS)


def draw(rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, Array]:
    shapes = {"weight": (5, 7), "bias": (7,), "one": (1,), "none": (0, 3)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def bits(arrays: Any) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_equal_the_references(name, dtype, rng):
    make, kept, step = OPTIMIZERS[name]
    optimizer, parameters = make(), draw(rng, dtype)
    expected = {n: p.astype(np.float64) for n, p in parameters.items()}
    slots = {n: [np.zeros_like(p) for _ in range(kept)] for n, p in expected.items()}
    for k in range(1, 6):
        gradients = draw(rng, dtype)
        before = bits(gradients)
        optimizer.step(parameters, gradients)
        assert bits(gradients) == before
        for n, g in gradients.items():
            expected[n], *slots[n] = step(expected[n], g.astype(np.float64), *slots[n], k)
    for n, p in parameters.items():
        assert p.dtype == dtype
        np.testing.assert_allclose(
            p, expected[n], *((2e-5,) * 2 if dtype == np.float32 else (1e-12,))
        )


@each
def test_a_loaded_state_steps_on_as_the_saved_one(name, rng):
    make, *_ = OPTIMIZERS[name]
    optimizer, parameters = make(), draw(rng)
    assert optimizer.state_dict()["arrays"] == {}
    for _ in range(3):
        optimizer.step(parameters, draw(rng))
    optimizer.lr = 0.123
    state = optimizer.state_dict()
    other = type(optimizer)(lr=1.0)
    other.load_state_dict(state)
    assert other.lr == 0.123
    copies = {n: p.copy() for n, p in parameters.items()}
    for _ in range(3):
        gradients = draw(rng)
        optimizer.step(parameters, gradients)
        other.step(copies, gradients)
    assert bits(copies) == bits(parameters)
    assert state["steps"] == 3  # the state was a copy, and stayed what it was
    fresh = type(optimizer)(lr=1.0)
    fresh.load_state_dict(make().state_dict())
    assert fresh.state_dict() == make().state_dict()


@each
def test_the_order_of_names_changes_nothing(name, rng):
    make, *_ = OPTIMIZERS[name]
    one, parameters, gradients = make(), draw(rng), draw(rng)
    other, copies = make(), {n: p.copy() for n, p in reversed(parameters.items())}
    for k in range(3):
        one.step(parameters, gradients)
        if k == 1:
            copies = dict(reversed(copies.items()))
        other.step(copies, gradients)
    assert bits(dict(sorted(copies.items()))) == bits(dict(sorted(parameters.items())))


@each
def test_a_learning_rate_of_zero_moves_nothing_and_may_be_changed(name, rng):
    optimizer, parameters = OPTIMIZERS[name][0](), draw(rng)
    before = bits(parameters)
    optimizer.lr = 0
    optimizer.step(parameters, draw(rng))
    assert bits(parameters) == before
    optimizer.lr = 0.1
    optimizer.step(parameters, draw(rng))
    assert bits(parameters) != before
    assert optimizer.lr == 0.1


@each
def test_a_parabola_is_descended(name):
    optimizer = OPTIMIZERS[name][0]()
    optimizer.weight_decay = 0.0
    parameters = {"p": np.array([1.0, -2.0])}
    for _ in range(500):
        optimizer.step(parameters, {"p": 2 * parameters["p"]})
    assert np.abs(parameters["p"]).max() < 0.2


@each
def test_nothing_is_written_where_something_does_not_fit(name, rng):
    make, *_ = OPTIMIZERS[name]
    optimizer, parameters = make(), draw(rng)
    optimizer.step(parameters, draw(rng))
    good, before = draw(rng), bits(parameters)
    state = {n: bits(a) for n, a in optimizer.state_dict()["arrays"].items()}
    kind = type(optimizer).__name__
    readonly = {n: p.copy() for n, p in parameters.items()}
    readonly["one"].flags.writeable = False
    strided = parameters | {"bias": np.zeros(14)[::2]}
    for p, g, error, sentence in [
        (parameters, {}, ValueError, rf"{kind}.step: gradients lacks \['bias', 'none', 'one',"),
        (parameters, good | {"x": good["one"]}, ValueError, r"gradients has unknown \['x'\]"),
        (parameters, good | {"one": np.zeros(2)}, ValueError, r"\(2,\).*\(1,\)"),
        (parameters, good | {"one": np.zeros(1, np.float32)}, TypeError, r"float32.*float64"),
        (parameters, good | {"one": [0.0]}, TypeError, r"gradients"),
        (parameters, None, TypeError, r"gradients is a NoneType, expected a Mapping"),
        ([], good, TypeError, r"parameters is a list, expected a Mapping"),
        (good | {"one": np.zeros(2)}, good | {"one": np.zeros(2)}, ValueError, r"\(1,\).*\(2,\)"),
        ({"one": good["one"]}, {"one": good["one"]}, ValueError, r"parameters lacks"),
        (readonly, good, (TypeError, ValueError), "parameters"),
        (strided, good, (TypeError, ValueError), "parameters"),
    ]:
        with pytest.raises(error, match=sentence):
            optimizer.step(p, g)
    assert bits(parameters) == before
    assert {n: bits(a) for n, a in optimizer.state_dict()["arrays"].items()} == state
    assert optimizer.state_dict()["steps"] == 1


def test_a_first_step_that_was_refused_fixes_nothing(rng):
    adam = optim.Adam()
    with pytest.raises(ValueError, match=r"\(2,\)"):
        adam.step({"p": np.zeros(1)}, {"p": np.zeros(2)})
    with pytest.raises(TypeError, match=r"Adam.step: parameters\['p'\] is a list"):
        adam.step({"p": [1.0]}, {"p": [1.0]})
    adam.step(draw(rng), draw(rng))


@pytest.mark.parametrize("bad", [-1e-3, NAN, INF, -INF])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind, names in {
            optim.SGD: ("lr", "momentum", "weight_decay"),
            optim.RMSprop: ("lr", "alpha", "eps", "weight_decay"),
            optim.Adagrad: ("lr", "eps", "weight_decay"),
            optim.Adam: ("lr", "beta1", "beta2", "eps", "weight_decay"),
            optim.AdamW: ("lr", "beta1", "beta2", "eps", "weight_decay"),
        }.items()
        for name in names
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(kind, name, bad):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} is {bad}"):
        kind(**{"lr": 0.1, name: bad})
    optimizer = kind(lr=0.1)
    before = getattr(optimizer, name)
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} is {bad}"):
        setattr(optimizer, name, bad)
    with pytest.raises(TypeError, match=rf"^{kind.__name__}: {name} is '1'"):
        setattr(optimizer, name, "1")
    assert getattr(optimizer, name) == before


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: optim.SGD(0.1, momentum=1), ValueError, r"momentum is 1 .* in \[0, 1\)"),
        (lambda: optim.SGD(0.1, nesterov=True), ValueError, "nesterov is True and momentum 0.0"),
        (lambda: optim.SGD(0.1, nesterov=1), TypeError, "nesterov is 1"),
        (lambda: optim.SGD(True), TypeError, "lr is True"),
        (lambda: optim.Adam(beta2=1.0), ValueError, r"beta2 is 1.0"),
        (lambda: optim.Adam(eps=0), ValueError, r"eps is 0 .* in \(0, inf\)"),
        (lambda: optim.RMSprop(alpha=1.0), ValueError, r"alpha is 1.0"),
    ],
)
def test_optimizers_refuse(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


def test_states_that_do_not_fit_are_refused(rng):
    adam, parameters = optim.Adam(), draw(rng)
    adam.step(parameters, draw(rng))
    good = adam.state_dict()
    arrays = good["arrays"]
    wide = {"first_moment": arrays["first_moment"] | {"one": np.zeros(2)}}
    for change, error, sentence in [
        ({"optimizer": "SGD"}, ValueError, "state is of 'SGD', expected 'Adam'"),
        ({"steps": -1}, ValueError, r"state\['steps'\] is -1"),
        ({"steps": "3"}, TypeError, r"state\['steps'\] is '3'"),
        ({"arrays": {}}, ValueError, r"state\['arrays'\] lacks \['first_moment'"),
        ({"arrays": None}, TypeError, r"state\['arrays'\] is a NoneType"),
        ({"arrays": arrays | wide}, ValueError, r"\['second_moment'\]\['one'\] has shape"),
        ({"hyperparameters": {}}, ValueError, r"state\['hyperparameters'\] lacks \['beta1'"),
        (
            {"hyperparameters": good["hyperparameters"] | {"lr": NAN}},
            ValueError,
            "Adam: lr is nan",
        ),
        ({"more": 1}, ValueError, r"state has unknown \['more'\]"),
    ]:
        with pytest.raises(error, match=sentence):
            adam.load_state_dict(good | change)
    with pytest.raises(TypeError, match="state is a list"):
        adam.load_state_dict([])
    assert adam.lr == 1e-3
    assert adam.state_dict()["steps"] == 1


# ---- clipping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(limit=st.floats(1e-3, 100), seed=st.integers(0, 100))
def test_clipping_by_norm_keeps_the_direction(dtype, limit, seed):
    gradients = draw(np.random.default_rng(seed), dtype)
    before = {n: g.copy() for n, g in gradients.items()}
    norm = optim.clip_by_global_norm(gradients, limit)
    assert norm == pytest.approx(reference.global_norm(before.values()), rel=1e-12)
    if norm <= limit:
        assert bits(gradients) == bits(before)
    else:
        assert optim.global_norm(gradients) == pytest.approx(limit, rel=1e-6)
    for n, g in gradients.items():
        np.testing.assert_allclose(g, before[n] * min(1, limit / norm), rtol=1e-6)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_norm_that_is_not_finite_scales_nothing(bad):
    gradients = {"a": np.array([bad, 1.0]), "b": np.array([3.0])}
    norm = optim.clip_by_global_norm(gradients, 1.0)
    assert not math.isfinite(norm)
    assert gradients["b"] == 3.0
    assert gradients["a"][1] == 1.0


def test_the_norm_of_large_numbers_in_float32_does_not_overflow():
    gradients = {"a": np.full(4, 1e30, np.float32)}
    assert optim.clip_by_global_norm(gradients, 1.0) == pytest.approx(2e30)
    np.testing.assert_allclose(gradients["a"], 0.5, rtol=1e-6)


def test_the_norm_of_nothing_is_zero():
    assert optim.clip_by_global_norm({}, 1.0) == 0
    assert optim.global_norm({}) == 0


def test_clipping_by_value():
    gradients = {"a": np.array([-3.0, 0.5, NAN]), "b": np.array([[2.0]])}
    optim.clip_by_value(gradients, 1.0)
    np.testing.assert_array_equal(gradients["a"], [-1.0, 0.5, NAN])
    assert gradients["b"] == 1.0


@pytest.mark.parametrize("clip", [optim.clip_by_global_norm, optim.clip_by_value])
@pytest.mark.parametrize("bad", [0, -1.0, NAN, INF])
def test_limits_that_make_no_sense_are_refused(clip, bad):
    gradients = {"a": np.ones(2)}
    with pytest.raises(ValueError, match=rf"{clip.__name__}: .* is {bad} "):
        clip(gradients, bad)
    with pytest.raises(TypeError, match=rf"{clip.__name__}: .* is None"):
        clip(gradients, None)
    assert (gradients["a"] == 1).all()


@pytest.mark.parametrize("clip", [optim.clip_by_global_norm, optim.clip_by_value])
def test_gradients_that_can_not_be_clipped_are_refused(clip):
    ones = np.ones(3)
    frozen = np.ones(3)
    frozen.flags.writeable = False
    for bad in (np.ones(3, np.int64), [1.0], ones.astype(np.float32), np.ones(6)[::2], frozen):
        with pytest.raises((TypeError, ValueError)):
            clip({"a": ones, "b": bad}, 0.1)
    assert (ones == 1).all()
    with pytest.raises(TypeError, match=rf"{clip.__name__}: gradients is a list"):
        clip([ones], 0.1)


def test_a_model_is_trained_in_place(rng):
    linear = bptt.Linear(3, 1, dtype=np.float64, seed=0)
    x = rng.standard_normal((50, 2, 3))
    target = x @ np.array([[1.0], [-2.0], [0.5]]) + 0.25
    adam = optim.Adam(lr=0.05)
    for _ in range(400):
        y, _, tape = linear.forward(x)
        _, dy = bptt.losses.mse(y, target)
        adam.step(linear.parameters, linear.backward(tape, dy).parameters)
    np.testing.assert_allclose(linear.parameters["weight"], [[1.0, -2.0, 0.5]], atol=1e-4)
    np.testing.assert_allclose(linear.parameters["bias"], [0.25], atol=1e-4)
