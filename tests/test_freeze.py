"""Frozen layers: the bits of the layers that they are copies of, and parameters that stay."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bptt
from networks import assert_close
from stacks import KINDS, arrays_of, draw

kinds = pytest.mark.parametrize("name", KINDS)


def same(actual: Any, expected: Any) -> None:
    for a, e in zip(arrays_of(actual), arrays_of(expected), strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (e.dtype, e.shape, e.tobytes())


@kinds
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(
        st.integers(0, 5), st.integers(1, 7), st.integers(1, 9), st.sampled_from([1, 7, 16, 33])
    ),
    given=st.sampled_from([{}, {"lengths": True}, {"reset": True}]),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
)
def test_a_frozen_layer_has_the_bits_of_the_layer(
    name: str, dtype: Any, shape: Any, given: Any, layers: int, bidirectional: bool
) -> None:
    options = {"num_layers": layers, "bidirectional": bidirectional}
    case = draw(name, shape, 3, dtype=dtype, **given, **options)
    frozen = case.layer.freeze()
    y, state = case.layer.predict(*case.inputs)
    its_y, its_state = frozen.predict(*case.inputs)
    same(its_y, y)
    same(its_state, state)
    found = []
    for layer in (case.layer, frozen):
        y, state, tape = layer.forward(*case.inputs)
        found.append((y, state, layer.backward(tape, case.dy, case.dstate)))
    (y, state, grads), (its_y, its_state, its_grads) = found
    same(its_y, y)
    same(its_state, state)
    same(its_grads.x, grads.x)
    for parameter, gradient in grads.parameters.items():
        same(its_grads.parameters[parameter], gradient)


@kinds
@pytest.mark.parametrize("N", [1, 2, 4, 5, 11])
def test_its_steps_are_those_of_the_layer_to_rounding(name: str, N: int) -> None:
    case = draw(name, (6, N, 3, 20), 0, dtype=np.float64)
    frozen, state, its_state = case.layer.freeze(), case.state, case.state
    for x_t in case.x:
        y, state = case.layer.step(x_t, state)
        its_y, its_state = frozen.step(x_t, its_state)
        assert_close(its_y, y, 1e-12)


@kinds
def test_any_number_of_threads_gives_the_same_bits(name: str) -> None:
    """Units are split in as many parts as there are threads, and each number is laid out anew."""
    layer = KINDS[name][0](40, 300, seed=0, **KINDS[name][1])
    frozen = layer.freeze()
    x = np.random.default_rng(0).standard_normal((100, 1, 40)).astype(np.float32)
    with bptt.num_threads(1):
        y, _ = layer.predict(x)
    for threads in (3, 1, 2, 4, 2):
        with bptt.num_threads(threads):
            same(frozen.predict(x)[0], y)


def test_many_threads_may_make_the_first_call() -> None:
    layer = bptt.LSTM(5, 200, seed=0)
    x = np.random.default_rng(0).standard_normal((3, 2, 5)).astype(np.float32)
    y, _ = layer.predict(x)
    for _ in range(20):
        frozen = layer.freeze()
        with ThreadPoolExecutor(8) as pool:
            for its_y, _ in pool.map(lambda _, layer=frozen: layer.predict(x), range(16)):
                same(its_y, y)


def model() -> bptt.Sequential:
    return bptt.Sequential(
        bptt.Embedding(7, 5, seed=0),
        bptt.LSTM(5, 9, num_layers=2, dropout=0.5, seed=0, learn_initial_state=True),
        bptt.Linear(9, 7, seed=0),
    )


def test_a_whole_model_freezes() -> None:
    its, x = model(), np.random.default_rng(0).integers(0, 7, (4, 3))
    frozen = its.freeze()
    assert list(frozen.parameters) == list(its.parameters)
    same(frozen.predict(x)[0], its.predict(x)[0])
    for name, parameter in frozen.parameters.items():
        assert not parameter.flags.writeable
        assert not np.shares_memory(parameter, its.parameters[name])


def test_later_changes_do_not_reach_it() -> None:
    its, x = model(), np.random.default_rng(0).integers(0, 7, (4, 3))
    frozen, (y, _) = its.freeze(), its.predict(x)
    for parameter in its.parameters.values():
        parameter[...] = 0
    same(frozen.predict(x)[0], y)
    assert not its.predict(x)[0].any()


def test_its_parameters_cannot_be_changed() -> None:
    frozen = model().freeze()
    before = {name: value.copy() for name, value in frozen.parameters.items()}
    with pytest.raises(ValueError, match="read-only"):
        frozen.parameters["2.bias"][0] = 1
    with pytest.raises(
        ValueError, match=r"Sequential.load_parameters: 0.weight is read-only, as parameters of a"
    ):
        frozen.load_parameters(model().parameters)
    with pytest.raises(ValueError, match=r"parameters\[0\] is read-only"):
        bptt.optim.SGD(lr=0.1).step(frozen.parameters, before)
    for name, value in frozen.parameters.items():
        same(value, before[name])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda its: pickle.loads(pickle.dumps(its))])
def test_a_copy_of_it_is_an_ordinary_layer(again: Any) -> None:
    its, x = bptt.GRU(3, 40, seed=0), np.ones((2, 1, 3), np.float32)
    layer, other = again(its.freeze()), bptt.GRU(3, 40, seed=1)
    same(layer.predict(x)[0], its.predict(x)[0])
    layer.load_parameters(other.parameters)
    same(layer.predict(x)[0], other.predict(x)[0])
