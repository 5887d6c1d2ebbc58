"""Layers of a stack side by side: the bits of one after the other, for any number of threads.

Which sizes run side by side is tested in tests/cpp/beside.cpp; the examples here are of these.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bptt
from networks import assert_same_bits
from stacks import KINDS, Case, arrays_of, draw

EVERYTHING = dict.fromkeys(("state", "lengths", "reset", "dy", "dstate", "bias"), True)


def one_by_one(case: Case, masks: list[Any]) -> list[Any]:
    """What the layers of a stack of one direction give, each alone in a call of its own: y, final
    states, gradients of x, of the initial states and of the parameters."""
    layer, H = case.layer, case.layer.hidden_size
    kind, variant, _ = KINDS[case.name]
    parameters = list(layer.parameters.values())
    each = len(parameters) // layer.num_layers
    scale = case.x.dtype.type(1 / (1 - layer.dropout))

    def entry(stacked: Any, k: int) -> Any:
        parts = tuple(a[k : k + 1].copy() for a in arrays_of(stacked))
        return None if not parts else parts if case.name == "LSTM" else parts[0]

    def drop(k: int, a: Any) -> Any:
        return np.where(masks[k], a * scale, case.x.dtype.type(0)) if masks else a

    alone, tapes, states = [], [], []
    y = case.x
    for k in range(layer.num_layers):
        one = kind(y.shape[2], H, dtype=case.x.dtype, bias=layer.bias, **variant)
        for own, its in zip(one.parameters.values(), parameters[k * each :], strict=False):
            own[...] = its
        x = drop(k - 1, y) if k > 0 else y
        y, state, tape = one.forward(x, entry(case.state, k), case.lengths, case.reset)
        alone.append(one)
        tapes.append(tape)
        states.append(state)
    grads, dy = [], case.dy
    for k in reversed(range(layer.num_layers)):
        grads.insert(0, alone[k].backward(tapes[k], dy, entry(case.dstate, k)))
        dy = drop(k - 1, grads[0].x) if k > 0 else grads[0].x
    stacked = [
        [np.concatenate(parts) for parts in zip(*map(arrays_of, its), strict=True)]
        for its in (states, [g.state for g in grads])
    ]
    found = [a for g in grads for a in g.parameters.values()]
    return [y, *stacked[0], dy, *stacked[1], *found]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.usefixtures("threads")
@settings(max_examples=25)
@given(
    shape=st.tuples(
        st.integers(0, 200), st.integers(1, 4), st.integers(1, 40), st.sampled_from([1, 5, 32, 65])
    ),
    seed=st.integers(0, 2**32 - 1),
    flags=st.fixed_dictionaries({flag: st.booleans() for flag in EVERYTHING}),
    num_layers=st.integers(2, 5),
    dropout=st.sampled_from([0.0, 0.4]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@example((0, 1, 3, 4), 0, EVERYTHING, 3, 0.4, np.float64)
@example((1, 1, 3, 32), 0, EVERYTHING, 3, 0.4, np.float32)
# More steps than a chunk of the weights' gradients has, and than the longest sequence.
@example((600, 1, 8, 64), 1, dict.fromkeys(EVERYTHING, False) | {"dy": True}, 2, 0.0, np.float32)
@example((1100, 2, 8, 32), 2, EVERYTHING, 3, 0.4, np.float32)
def test_a_stack_has_the_bits_of_its_layers_one_by_one(
    name, shape, seed, flags, num_layers, dropout, dtype
):
    case = draw(name, shape, seed, dtype=dtype, num_layers=num_layers, dropout=dropout, **flags)
    before = case.layer.random_state
    for training in {False, dropout > 0}:
        for threads in (1, 2, 4):
            bptt.set_num_threads(threads)
            case.layer.random_state = before
            y, state, grads, masks = case.run(training)
            if threads == 1:
                expected = one_by_one(case, masks)
            found = [y, *arrays_of(state), grads.x, *arrays_of(grads.state)]
            for a, e in zip([*found, *grads.parameters.values()], expected, strict=True):
                assert_same_bits(a, e)
            if not training:
                predicted, its_state = case.layer.predict(*case.inputs)
                for a, e in zip([predicted, *arrays_of(its_state)], expected, strict=False):
                    assert_same_bits(a, e)
