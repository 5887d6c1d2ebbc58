"""The reference against itself, so that a wrong one cannot hide: finite differences, small sums
written out, closed forms. None of this needs bptt."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import reference
import reference_losses
from reference import CELLS

Array = NDArray[Any]

SHAPES = [(1, 1, 1, 1), (4, 2, 3, 2), (3, 3, 1, 4)]


def slope(f: Callable[[], float], argument: Array, e: float = 1e-6) -> Array:
    """df/d(argument) by central differences; f reads the argument, which is changed in place."""
    result = np.empty_like(argument)
    for i in np.ndindex(argument.shape):
        kept = argument[i]
        argument[i] = kept + e
        above = f()
        argument[i] = kept - e
        below = f()
        argument[i] = kept
        result[i] = (above - below) / (2 * e)
    return result


@pytest.mark.parametrize("steps", ["all", "lengths", "reset", "both"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", CELLS)
def test_backward_is_the_slope_of_forward(
    cell: str, shape: tuple[int, int, int, int], steps: str, rng: np.random.Generator
) -> None:
    T, N, D, H = shape
    G, has_c = CELLS[cell].gates, CELLS[cell].has_c
    x, dy = rng.standard_normal((T, N, D)), rng.standard_normal((T, N, H))
    weights = reference.Weights(
        *(rng.standard_normal(s) for s in ((G * H, D), (G * H, H), (G * H,), (G * H,)))
    )
    h, c, dh, dc = (rng.standard_normal((N, H)) for _ in range(4))
    lengths = rng.integers(0, T, N, endpoint=True) if steps in ("lengths", "both") else None
    reset = rng.random((T, N)) < 0.4 if steps in ("reset", "both") else None

    def run() -> tuple[Array, Array, Array | None, reference.Tape]:
        return reference.forward(cell, x, weights, h, c if has_c else None, lengths, reset)

    def loss() -> float:
        y, last_h, last_c, _ = run()
        value = np.sum(y * dy) + np.sum(last_h * dh)
        return float(value + (np.sum(last_c * dc) if last_c is not None else 0))

    grads = reference.backward(run()[3], dy, dh, dc if has_c else None)
    arguments = {"x": x, "h": h, **vars(weights), **({"c": c} if has_c else {})}
    for name, argument in arguments.items():
        actual = getattr(grads, name)
        assert actual.shape == argument.shape
        np.testing.assert_allclose(actual, slope(loss, argument), rtol=1e-6, atol=1e-7)


def test_what_is_none_is_zero(rng: np.random.Generator) -> None:
    weights = reference.Weights(rng.standard_normal((8, 3)), rng.standard_normal((8, 2)))
    zeros = np.zeros(8)
    with_zeros = reference.Weights(weights.weight_ih, weights.weight_hh, zeros, zeros)
    x, none = rng.standard_normal((4, 2, 3)), np.zeros((2, 2))
    full = (np.full(2, 4), np.zeros((4, 2), bool))
    *a, tape_a = reference.forward("lstm", x, weights)
    *b, tape_b = reference.forward("lstm", x, with_zeros, none, none, *full)
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)
    grads_a = reference.backward(tape_a, None, none)
    grads_b = reference.backward(tape_b, np.zeros((4, 2, 2)), none, none)
    assert grads_a.bias_ih is None
    np.testing.assert_array_equal(grads_a.weight_hh, grads_b.weight_hh)


def test_lstm_and_grus_by_hand() -> None:
    # One unit, one step, numbers small enough to be written out.
    def s(a: float) -> float:
        return 1 / (1 + np.exp(-a))

    x, h, c = 0.5, -0.3, 0.7
    four = reference.Weights(*(np.array([[0.1], [0.2], [0.3], [0.4]]) * k for k in (1, -2)))
    y, _, last_c, _ = reference.forward(
        "lstm", np.full((1, 1, 1), x), four, np.full((1, 1), h), np.full((1, 1), c)
    )
    a = [w * x - 2 * w * h for w in (0.1, 0.2, 0.3, 0.4)]
    expected_c = s(a[1]) * c + s(a[0]) * np.tanh(a[2])
    assert last_c is not None
    np.testing.assert_allclose(last_c.item(), expected_c, rtol=1e-15)
    np.testing.assert_allclose(y.item(), s(a[3]) * np.tanh(expected_c), rtol=1e-15)

    three = reference.Weights(
        np.array([[0.1], [0.2], [0.3]]),
        np.array([[-0.4], [0.5], [0.6]]),
        np.array([0.7, -0.8, 0.9]),
        np.array([0.15, 0.25, 0.35]),
    )
    r, z = s(0.1 * x + 0.7 - 0.4 * h + 0.15), s(0.2 * x - 0.8 + 0.5 * h + 0.25)
    candidate = {
        "gru": np.tanh(0.3 * x + 0.9 + r * (0.6 * h + 0.35)),
        "gru_reset_before": np.tanh(0.3 * x + 0.9 + 0.6 * (r * h) + 0.35),
    }
    for cell, n in candidate.items():
        y, *_ = reference.forward(cell, np.full((1, 1, 1), x), three, np.full((1, 1), h))
        np.testing.assert_allclose(y.item(), (1 - z) * n + z * h, rtol=1e-15)


@pytest.mark.parametrize("cell", CELLS)
def test_truncated_bptt_with_whole_windows_is_backward(cell: str, rng: np.random.Generator) -> None:
    T, N, D, H, G = 7, 2, 3, 2, CELLS[cell].gates
    x, dy = rng.standard_normal((T, N, D)), rng.standard_normal((T, N, H))
    weights = reference.Weights(*(rng.standard_normal(s) for s in ((G * H, D), (G * H, H))))
    full = reference.backward(reference.forward(cell, x, weights)[3], dy)
    # Whatever k1: with k2 = T no path is cut, and no loss is counted twice.
    for k1 in (1, 2, 3, 7, 9):
        truncated = reference.truncated_bptt(cell, x, weights, dy, k1, k2=max(k1, T))
        for name in ("x", "h", "weight_ih", "weight_hh"):
            np.testing.assert_allclose(getattr(truncated, name), getattr(full, name), atol=1e-12)


def test_truncated_bptt_of_the_identity_keeps_the_short_paths() -> None:
    # h_t = w*h_{t-1} + x_t with h_0 = 0: dL/dw = sum over lags j of dy_t * w^j * h_{t-1-j}.
    T, w = 9, 0.8
    x, dy = np.arange(1.0, T + 1).reshape(T, 1, 1), np.ones((T, 1, 1))
    weights = reference.Weights(np.ones((1, 1)), np.full((1, 1), w))
    h = reference.forward("rnn_identity", x, weights)[3].h[:, 0, 0]
    for k1, k2 in ((1, 1), (1, 4), (2, 3), (3, 3), (4, 7)):
        total = 0.0
        for t in range(T):
            end = min(T, (t // k1 + 1) * k1)
            for step in range(max(0, end - k2), t + 1):  # the steps that the loss at t reaches
                total += w ** (t - step) * h[step]
        grads = reference.truncated_bptt("rnn_identity", x, weights, dy, k1, k2)
        np.testing.assert_allclose(grads.weight_hh.item(), total, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("mask", [None, "elements", "rows", "nothing"])
@pytest.mark.parametrize("name", ["mse", "binary_cross_entropy_with_logits"])
def test_element_wise_losses(
    name: str, mask: str | None, reduction: str, rng: np.random.Generator
) -> None:
    loss = getattr(reference_losses, name)
    prediction, target = rng.standard_normal((3, 2, 4)), rng.random((3, 2, 4))
    valid = {
        None: None,
        "elements": rng.random((3, 2, 4)) < 0.5,
        "rows": rng.random((3, 2)) < 0.5,
        "nothing": np.zeros((3, 2), bool),
    }[mask]
    value, gradient = loss(prediction, target, valid, reduction)
    by_hand, count = 0.0, 0
    for i in np.ndindex(prediction.shape):
        if valid is None or valid[i[: valid.ndim]]:
            p, y = prediction[i], target[i]
            s = 1 / (1 + np.exp(-p))
            by_hand += (p - y) ** 2 if name == "mse" else -y * np.log(s) - (1 - y) * np.log(1 - s)
            count += 1
    by_hand /= max(1, count) if reduction == "mean" else 1
    np.testing.assert_allclose(value, by_hand, rtol=1e-12)
    differences = slope(lambda: float(loss(prediction, target, valid, reduction)[0]), prediction)
    np.testing.assert_allclose(gradient, differences, atol=1e-8)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_softmax_cross_entropy(reduction: str, rng: np.random.Generator) -> None:
    prediction, target = rng.standard_normal((3, 2, 4)), rng.integers(0, 4, (3, 2))
    mask = np.array([[True, False], [True, True], [False, True]])
    target[~mask] = -100
    value, gradient = reference_losses.softmax_cross_entropy(prediction, target, mask, reduction)
    p = np.exp(prediction) / np.exp(prediction).sum(axis=-1, keepdims=True)
    by_hand = -sum(np.log(p[i][target[i]]) for i in np.ndindex(3, 2) if mask[i])
    np.testing.assert_allclose(value, by_hand / (4 if reduction == "mean" else 1), rtol=1e-12)

    def again() -> float:
        return reference_losses.softmax_cross_entropy(prediction, target, mask, reduction)[0]

    np.testing.assert_allclose(gradient, slope(again, prediction), atol=1e-8)
    huge = reference_losses.softmax_cross_entropy(1e4 * prediction, target, mask)
    assert np.isfinite(huge[0])
    assert np.isfinite(huge[1]).all()


def test_linear_and_embedding_are_the_slopes_of_their_forwards(rng: np.random.Generator) -> None:
    x, weight, bias = (rng.standard_normal(s) for s in ((3, 2, 4), (5, 4), (5,)))
    dy = rng.standard_normal((3, 2, 5))

    def linear() -> float:
        return float(np.sum(reference.linear_forward(x, weight, bias) * dy))

    actual = reference.linear_backward(x, weight, dy)
    for gradient, argument in zip(actual, (x, weight, bias), strict=True):
        np.testing.assert_allclose(gradient, slope(linear, argument), atol=1e-8)

    index, table = np.array([[0, 2], [2, 2], [3, 0]]), rng.standard_normal((5, 4))
    de = rng.standard_normal((3, 2, 4))

    def embedding() -> float:
        return float(np.sum(reference.embedding_forward(index, table) * de))

    gradient = reference.embedding_backward(index, de, 5)
    np.testing.assert_allclose(gradient, slope(embedding, table), atol=1e-8)


def test_optimizers_by_hand() -> None:
    # Two steps on one number with g = 2 then 1, written out.
    p, lr = np.array([1.0]), 0.1

    q, v = reference.sgd(p, np.array([2.0]), np.zeros(1), lr, 0.5, False, 0.0)
    np.testing.assert_allclose([q[0], v[0]], [0.8, 2.0])
    q, v = reference.sgd(q, np.array([1.0]), v, lr, 0.5, False, 0.0)
    np.testing.assert_allclose([q[0], v[0]], [0.6, 2.0])
    q, v = reference.sgd(p, np.array([2.0]), np.zeros(1), lr, 0.5, True, 0.0)
    np.testing.assert_allclose(q, 1 - 0.1 * (2 + 0.5 * 2))

    q, s = reference.rmsprop(p, np.array([2.0]), np.zeros(1), lr, 0.9, 0.0, 0.0)
    np.testing.assert_allclose([q[0], s[0]], [1 - 0.1 * 2 / np.sqrt(0.4), 0.4])
    q, s = reference.adagrad(p, np.array([2.0]), np.full(1, 5.0), lr, 1.0, 0.0)
    np.testing.assert_allclose([q[0], s[0]], [1 - 0.1 * 2 / (3 + 1), 9])

    # Adam's first step is lr against the sign of g, whatever its size; AdamW also shrinks p.
    for g in (2.0, -1e-3):
        rest = (np.zeros(1), np.zeros(1), 1, lr, (0.9, 0.999), 0.0)
        q, m, v = reference.adam(p, np.array([g]), *rest, 0.0, False)
        np.testing.assert_allclose([q[0], m[0], v[0]], [1 - lr * np.sign(g), 0.1 * g, 1e-3 * g * g])
        q, *_ = reference.adam(p, np.array([g]), *rest, 0.5, True)
        np.testing.assert_allclose(q, 1 - 0.1 * 0.5 - lr * np.sign(g))
    # Decay within the gradient turns its sign here, so it turns the step.
    q, *_ = reference.adam(p, np.array([-0.3]), *rest, 0.5, False)
    np.testing.assert_allclose(q, 1 - lr)


def test_global_norm() -> None:
    np.testing.assert_allclose(reference.global_norm([np.array([3.0]), np.array([[4.0]])]), 5.0)
    assert reference.global_norm([]) == 0.0
