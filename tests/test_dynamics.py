"""What one step, and many, make of a small difference: against differences and closed forms."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import bptt
from bptt import dynamics
from models import V, character_model
from networks import assert_close

Array = NDArray[Any]

LAYERS: dict[str, Any] = {
    "rnn": bptt.RNN,
    "lstm": bptt.LSTM,
    "gru": bptt.GRU,
    "gru_reset_before": lambda *a, **k: bptt.GRU(*a, reset_after=False, **k),
}
cells = pytest.mark.parametrize("cell", LAYERS)


def vector(state: Any) -> Array:
    """(N, S): h and then c."""
    parts = state if isinstance(state, tuple) else (state,)
    return np.concatenate([part[0] for part in parts], axis=1)


def linear(weight: Array) -> bptt.RNN:
    n = len(weight)
    rnn = bptt.RNN(1, n, bias=False, dtype=np.float64, nonlinearity="identity")
    rnn.load_parameters({"weight_ih_l0": np.zeros((n, 1)), "weight_hh_l0": weight})
    return rnn


@cells
@settings(max_examples=10)
@given(
    T=st.integers(1, 5),
    N=st.integers(1, 3),
    D=st.integers(1, 3),
    H=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_jacobians_equal_central_differences(cell, T, N, D, H, seed):
    rng = np.random.default_rng(seed)
    layer = LAYERS[cell](D, H, dtype=np.float64, seed=seed)
    x = rng.standard_normal((T, N, D))
    shape = (2, 1, N, H) if cell == "lstm" else (1, N, H)
    given = rng.standard_normal(shape)
    state = tuple(given) if cell == "lstm" else given
    found = dynamics.jacobians(layer, x, state)
    S = 2 * H if cell == "lstm" else H
    assert found.shape == (T, N, S, S)
    eps = 1e-6
    for t in range(T):
        for b in range(S):
            moved = []
            for sign in (eps, -eps):
                parts = [p.copy() for p in (state if isinstance(state, tuple) else (state,))]
                parts[b // H][0, :, b % H] += sign
                its = tuple(parts) if cell == "lstm" else parts[0]
                moved.append(vector(layer.step(x[t], its)[1]))
            assert_close(found[t, :, :, b], (moved[0] - moved[1]) / (2 * eps), 1e-8)
        _, state = layer.step(x[t], state)


def test_chosen_steps_of_a_whole_model_are_those_of_its_recurrent_layer(rng):
    model = character_model()
    x = rng.integers(0, V, (9, 3))
    embedded, _ = model.layers[0].predict(x)
    steps = [7, 0, 3]
    found = dynamics.jacobians(model, x, steps=steps)
    every = dynamics.jacobians(model.layers[1], embedded)
    assert np.array_equal(found, every[steps])
    assert dynamics.jacobians(model, x, steps=[]).shape == (0, 3, 10, 10)


def test_two_layers_in_a_chain_are_one_state(rng):
    """The second's state depends on the first's, not the other way round."""
    model = bptt.Sequential(
        bptt.GRU(2, 3, dtype=np.float64, seed=0), bptt.LSTM(3, 2, dtype=np.float64, seed=1)
    )
    found = dynamics.jacobians(model, rng.standard_normal((4, 2, 2)))
    assert found.shape == (4, 2, 7, 7)
    assert not found[:, :, :3, 3:].any()
    assert found[:, :, 3:, :3].any()


def test_a_stack_begins_with_the_state_it_learned(rng):
    layer = bptt.LSTM(
        2, 3, num_layers=2, learn_initial_state=True, dropout=0.5, dtype=np.float64, seed=0
    )
    for name in ("initial_h", "initial_c"):
        layer.parameters[name][...] = rng.standard_normal((2, 3))
    x = rng.standard_normal((3, 2, 2))
    _, state = layer.predict(x[:0])
    assert state[0].any()
    found = dynamics.jacobians(layer, x)
    assert found.shape == (3, 2, 12, 12)
    assert np.array_equal(found, dynamics.jacobians(layer, x, state))


@cells
def test_products_of_jacobians_are_what_backward_hands_back(cell, rng):
    layer = LAYERS[cell](2, 4, dtype=np.float64, seed=0)
    x = rng.standard_normal((6, 1, 2))
    _, _, tape = layer.forward(x)
    S = 8 if cell == "lstm" else 4
    given = rng.standard_normal(S)
    dstate = given[:4][None, None], given[4:][None, None]
    grads = layer.backward(tape, None, dstate if cell == "lstm" else dstate[0])
    product = given
    for J in dynamics.jacobians(layer, x)[::-1, 0]:
        product = product @ J
    assert_close(vector(grads.state)[0], product, 1e-12)


def test_singular_values_of_a_linear_network_are_its_matrix_s(rng):
    W = rng.standard_normal((5, 5))
    found = dynamics.singular_values(linear(W), np.zeros((3, 2, 1)))
    expected = np.linalg.svd(W, compute_uv=False)
    assert_close(found, np.broadcast_to(expected, (3, 2, 5)), 1e-12)


@settings(max_examples=15)
@given(n=st.integers(1, 6), N=st.integers(1, 3), seed=st.integers(0, 999))
def test_lyapunov_exponents_of_a_linear_network_are_the_logarithms_of_the_eigenvalues(n, N, seed):
    """Moduli are at least a factor of 1.6 apart, so directions settle to rounding in 80 steps."""
    rng = np.random.default_rng(seed)
    moduli = 1.6 ** -np.arange(n) * rng.uniform(0.7, 1.4)
    basis = np.eye(n) + 0.3 * rng.standard_normal((n, n)) / np.sqrt(n)
    W = basis @ np.diag(moduli * rng.choice([-1, 1], n)) @ np.linalg.inv(basis)
    found = dynamics.lyapunov(linear(W), np.zeros((120, N, 1)), skip=90, seed=seed)
    expected = np.log(np.sort(np.abs(np.linalg.eigvals(W)))[::-1])
    assert_close(found.exponents, np.broadcast_to(expected, (N, n)), 1e-9)


def test_complex_eigenvalues_settle_as_the_mean_over_their_turns():
    """A rotation by 1 radian, stretched: the mean over T steps is off by at most a constant / T."""
    turn = 0.9 * np.array([[np.cos(1), -2 * np.sin(1)], [np.sin(1) / 2, np.cos(1)]])
    found = dynamics.lyapunov(linear(turn), np.zeros((2000, 1, 1)))
    assert_close(found.exponents, np.full((1, 2), np.log(0.9)), 2e-3)


@cells
def test_exponents_sum_to_the_mean_logarithm_of_the_determinant(cell, rng):
    layer = LAYERS[cell](2, 3, dtype=np.float64, seed=0)
    x = rng.standard_normal((40, 2, 2))
    found = dynamics.lyapunov(layer, x)
    _, logarithms = np.linalg.slogdet(dynamics.jacobians(layer, x))
    assert_close(found.exponents.sum(axis=1), logarithms.mean(axis=0), 1e-9)
    assert (np.diff(found.exponents) <= 0).all()


def test_a_few_exponents_are_the_largest_of_all(rng):
    model = character_model()
    x = rng.integers(0, V, (400, 1))
    every = dynamics.lyapunov(model, x, skip=50).exponents
    few = dynamics.lyapunov(model, x, count=2, skip=50).exponents
    assert few.shape == (1, 2)
    assert_close(few, every[:, :2], 0.02)


def test_float32_stays_close_to_float64(rng):
    x = rng.standard_normal((60, 2, 3))
    found = [
        dynamics.lyapunov(bptt.LSTM(3, 6, dtype=dtype, seed=0), x.astype(dtype), count=3).exponents
        for dtype in (np.float32, np.float64)
    ]
    assert_close(found[0], found[1], 1e-4)


# ---- warnings in words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("w", "sentences"),
    [
        (
            0.5,
            [
                "gradients vanish: handed back from step 50, they are 1e+06 times smaller at step "
                "30, 20 steps earlier (sequence 0; largest Lyapunov exponent -0.693 per step)"
            ],
        ),
        (
            2.0,
            [
                "gradients explode: handed back from step 50, they are 1e+06 times larger at step "
                "30, 20 steps earlier (sequence 0; largest Lyapunov exponent +0.693 per step)"
            ],
        ),
        (1.0, []),
    ],
)
def test_vanishing_and_exploding_are_said_in_words_with_the_step(w, sentences):
    found = dynamics.lyapunov(linear(np.array([[w]])), np.zeros((50, 1, 1)))
    assert_close(found.growth[:, 0], np.arange(51) * np.log(w), 1e-12)
    assert found.warnings() == sentences


def test_a_factor_of_one_s_own_and_what_is_forgotten_whole():
    found = dynamics.lyapunov(linear(np.zeros((2, 2))), np.zeros((5, 1, 1)))
    assert (found.exponents == -np.inf).all()
    (sentence,) = found.warnings(10)
    assert sentence.startswith(
        "gradients vanish: handed back from step 5, they are 10 times smaller at step 4, 1 steps"
    )


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda m, x: dynamics.jacobians(m, x, steps=[4]),
            ValueError,
            "dynamics.jacobians: a step is 4, expected 0..T-1 with T = 4",
        ),
        (
            lambda m, x: dynamics.jacobians(m, x, steps=[1.0]),
            TypeError,
            "dynamics.jacobians: a step is 1.0 (float), expected an integer >= 0",
        ),
        (
            lambda m, x: dynamics.jacobians(m, x[:, 0, 0]),
            ValueError,
            "dynamics.jacobians: x has shape (4,), expected (T, N, ...)",
        ),
        (
            lambda _, x: dynamics.jacobians("m", x),
            TypeError,
            "dynamics.jacobians: model is a str, expected a Layer",
        ),
        (
            lambda _, x: dynamics.jacobians(bptt.Linear(1, 1), x),
            ValueError,
            "dynamics.jacobians: Linear(1, 1, bias=True) has no state, "
            "expected a recurrent layer in it",
        ),
        (
            lambda m, x: dynamics.lyapunov(m, x[:0]),
            ValueError,
            "dynamics.lyapunov: x has shape (0, 2, 1), expected T >= 1 steps",
        ),
        (
            lambda m, x: dynamics.lyapunov(m, x, skip=4),
            ValueError,
            "dynamics.lyapunov: skip is 4, expected less than T = 4",
        ),
        (
            lambda m, x: dynamics.lyapunov(m, x, count=7),
            ValueError,
            "dynamics.lyapunov: count is 7, expected at most S = 6 numbers of a state",
        ),
        (
            lambda m, x: dynamics.lyapunov(m, x, count=0),
            ValueError,
            "dynamics.lyapunov: count is 0 (int), expected an integer >= 1",
        ),
        (
            lambda m, x: dynamics.lyapunov(m, x, seed=None),
            TypeError,
            "dynamics.lyapunov: seed is None (NoneType), expected an integer >= 0",
        ),
        (
            lambda m, x: dynamics.lyapunov(m, x).warnings(1),
            ValueError,
            "Lyapunov.warnings: factor is 1 (int), expected a number in (1, inf)",
        ),
    ],
)
def test_calls_that_make_no_sense_are_refused(call, error, sentence):
    model = bptt.LSTM(1, 3, dtype=np.float64, seed=0)
    with pytest.raises(error) as caught:
        call(model, np.zeros((4, 2, 1)))
    assert str(caught.value) == sentence


def test_what_is_not_finite_is_told_with_its_step() -> None:
    model = bptt.RNN(1, 3, dtype=np.float64, seed=0)
    x = np.zeros((5, 2, 1))
    x[3, 1] = np.nan
    assert np.isfinite(dynamics.singular_values(model, x, steps=[2, 0])).all()
    calls: list[tuple[Any, str]] = [
        (lambda: dynamics.singular_values(model, x), "singular_values: the Jacobian at step 3"),
        (
            lambda: dynamics.singular_values(model, x, steps=[1, 4, 3]),
            "singular_values: the Jacobian at step 4",
        ),
        (  # which goes from the last step back
            lambda: dynamics.lyapunov(model, x),
            "lyapunov: the gradient handed back at step 4",
        ),
    ]
    for call, sentence in calls:
        with pytest.raises(ValueError, match="of sequence 1 is not finite") as caught:
            call()
        assert str(caught.value) == (
            f"dynamics.{sentence} of sequence 1 is not finite, expected finite weights, x and state"
        )
