"""The activations by themselves, seen through networks of which they are all that is left.

Run as a program this file prints its errors: that is how other instruction sets are looked at.
"""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import bptt

PRECISIONS = {"float32": np.float32, "float64": np.float64}


def tanh(x: Any) -> Any:
    """An RNN of weight one and without memory; all its units are alike."""
    H = 33
    weights = bptt.Weights(np.ones((H, 1), x.dtype), np.zeros((H, H), x.dtype))
    return bptt.rnn_forward(x.reshape(1, -1, 1), weights)[0][0]


def lstm_gate(x: Any) -> Any:
    """i, where f is closed by c_0 = 0 and g = tanh(60) = 1: c = i."""
    H = 33
    W = np.zeros((4, H, 1), x.dtype)
    W[0] = 1
    b = np.zeros((4, H), x.dtype)
    b[2] = 60
    hidden = np.zeros((4 * H, H), x.dtype)
    weights = bptt.Weights(W.reshape(-1, 1), hidden, b.ravel(), np.zeros_like(b).ravel())
    return bptt.lstm_forward(x.reshape(1, -1, 1), weights)[1][1]


def gru_gate(x: Any) -> Any:
    """z, where n = 0 and h_0 = 1: h = z."""
    H = 33
    W = np.zeros((3, H, 1), x.dtype)
    W[1] = 1
    weights = bptt.Weights(W.reshape(-1, 1), np.zeros((3 * H, H), x.dtype))
    return bptt.gru_forward(x.reshape(1, -1, 1), weights, np.ones((x.size, H), x.dtype))[1]


def true_tanh(x: Any) -> Any:
    return np.tanh(x.astype(np.longdouble))


def true_sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x.astype(np.longdouble)))


FUNCTIONS = {
    "tanh": (tanh, true_tanh),
    "lstm_gate": (lstm_gate, true_sigmoid),
    "gru_gate": (gru_gate, true_sigmoid),
}


def arguments(dtype: Any) -> Any:
    """Of all magnitudes, both signs; and where the functions turn."""
    random = np.random.default_rng(0)
    top = 120 if dtype is np.float32 else 800
    tiny = float(np.finfo(dtype).tiny)
    spread = np.exp(random.uniform(np.log(tiny), np.log(top), 6000))
    turns = random.uniform(-25, 25, 6000)
    even = [np.linspace(-end, end, 2001) for end in (1, top)]
    return np.concatenate([spread, -spread, turns, *even]).astype(dtype)


def errors() -> dict[str, float]:
    """The largest error of each function: in units of the last place for float32, relative for
    float64. What is no normal number may become zero."""
    found = {}
    for precision, dtype in PRECISIONS.items():
        x, tiny = arguments(dtype), np.finfo(dtype).tiny
        for name, (function, true) in FUNCTIONS.items():
            with np.errstate(over="ignore", under="ignore"):
                expected = true(x)
                y = function(x)
                assert (y == y[:, :1]).all(), "units that are alike differ"
                difference = np.abs(y[:, 0].astype(np.longdouble) - expected)
                rounded = np.abs(expected).astype(dtype)
                unit = np.spacing(rounded) if dtype is np.float32 else rounded
                normal = rounded >= 4 * tiny
                assert (difference[~normal] <= 4 * tiny).all()
            found[f"{name} {precision}"] = float((difference[normal] / unit[normal]).max())
    return found


@pytest.mark.parametrize("instruction_set", bptt.runtime.supported_instruction_sets())
def test_activations_are_exact_to_some_units_of_the_last_place(instruction_set: str) -> None:
    if instruction_set == bptt.runtime.instruction_set():
        found = errors()
    else:
        environ = {**os.environ, "BPTT_INSTRUCTION_SET": instruction_set}
        command = [sys.executable, __file__]
        run = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, timeout=120)
        found = json.loads(run.stdout)
    for name, error in found.items():
        assert error <= (4 if "float32" in name else 1e-14), name


@pytest.mark.parametrize("dtype", PRECISIONS.values())
@pytest.mark.parametrize("gate", [0, 1, 3], ids=["input", "forget", "output"])
def test_gates_at_the_ends(gate: int, dtype: Any) -> None:
    # Each unit has its own bias: as an input the infinities would meet the zeros of other gates.
    ends = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 0.0], dtype)
    H = len(ends)
    b = np.full((4, H), 60, dtype)
    b[gate] = ends
    weights = bptt.Weights(
        *(np.zeros(shape, dtype) for shape in ((4 * H, 1), (4 * H, H))),
        *(b.ravel(), np.zeros(4 * H, dtype)),
    )
    x, one = np.zeros((1, 1, 1), dtype), np.ones((1, H), dtype)
    _, (h, c), _ = bptt.lstm_forward(x, weights, (one, one))  # g = 1, c_0 = 1
    value = np.array([1, 0, np.nan, 1, 0, 0.5], dtype)
    tiny = np.finfo(dtype).tiny  # what a sigmoid that should be zero may be at most
    expected_c = np.full_like(value, 2) if gate == 3 else value + 1
    expected_h = (value if gate == 3 else 1) * np.tanh(expected_c)
    np.testing.assert_allclose(c[0], expected_c, rtol=0, atol=2 * tiny)
    np.testing.assert_allclose(h[0], expected_h, rtol=0, atol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", PRECISIONS.values())
def test_tanh_at_the_ends(dtype: Any) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 0.0], dtype)
    np.testing.assert_array_equal(tanh(x)[:, 0], np.array([1, -1, np.nan, 1, -1, 0], dtype))


@pytest.mark.parametrize("dtype", PRECISIONS.values())
@pytest.mark.parametrize("nonlinearity", ["relu", "identity"])
def test_what_is_not_finite_passes_the_linear_ones(nonlinearity: str, dtype: Any) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 3, -3, 0], dtype).reshape(1, -1, 1)
    weights = bptt.Weights(np.ones((1, 1), dtype), np.zeros((1, 1), dtype))
    y, _, _ = bptt.rnn_forward(x, weights, nonlinearity=nonlinearity)
    expected = x if nonlinearity == "identity" else np.maximum(x, 0)
    np.testing.assert_array_equal(y, expected)


if __name__ == "__main__":
    print(json.dumps(errors()))
