"""Losses: equal to the reference, and the laws of masks and reductions."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import bptt
import reference_losses
from networks import assert_close

Array = NDArray[Any]

NAMES = (
    "mse",
    "huber",
    "gaussian_nll",
    "softmax_cross_entropy",
    "binary_cross_entropy_with_logits",
)
each = pytest.mark.parametrize("name", NAMES)
reductions = ("mean", "sum", "mean_sequences")
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])

shapes = st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(1, 40))


def draw(
    name: str, shape: tuple[int, ...], rng: np.random.Generator, dtype: Any = np.float64
) -> tuple[Array, Array]:
    """A prediction and a target."""
    prediction = (3 * rng.standard_normal(shape)).astype(dtype)
    if name == "softmax_cross_entropy":
        return prediction, rng.integers(0, shape[-1], shape[:-1])
    if name == "gaussian_nll":  # two predictions a target
        log_variance = rng.standard_normal(shape).astype(dtype)
        prediction = np.concatenate([prediction, log_variance], axis=-1)
    if name != "binary_cross_entropy_with_logits":
        return prediction, rng.standard_normal(shape).astype(dtype)
    return prediction, rng.random(shape).astype(dtype)


def ours(name: str, *arguments: Any, **options: Any) -> tuple[float, Array]:
    return getattr(bptt.losses, name)(*arguments, **options)


@each
@both
@given(
    shape=shapes,
    reduction=st.sampled_from(reductions),
    masked=st.sampled_from(["no", "rows", "elements"]),
    seed=st.integers(0, 1000),
)
def test_losses_equal_the_reference(name, dtype, shape, reduction, masked, seed):
    rng = np.random.default_rng(seed)
    prediction, target = draw(name, shape, rng, dtype)
    mask = None
    if masked == "rows" or (masked == "elements" and name == "softmax_cross_entropy"):
        mask = rng.random(shape[:-1]) < 0.7
    elif masked == "elements":
        mask = rng.random(shape) < 0.7
    value, gradient = ours(name, prediction, target, mask, reduction)
    wide = (a.astype(np.float64) if a.dtype.kind == "f" else a for a in (prediction, target))
    expected, expected_gradient = getattr(reference_losses, name)(*wide, mask, reduction)
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    assert isinstance(value, float)
    assert value == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert gradient.dtype == dtype
    assert_close(gradient, expected_gradient, tolerance)


@each
@pytest.mark.parametrize("reduction", reductions)
def test_gradients_equal_central_differences(name, reduction, rng):
    prediction, target = draw(name, (3, 2, 4), rng)
    mask = rng.random((3, 2)) < 0.7
    _, gradient = ours(name, prediction, target, mask, reduction)
    epsilon = 1e-5
    for at in np.ndindex(prediction.shape):
        above, below = prediction.copy(), prediction.copy()
        above[at] += epsilon
        below[at] -= epsilon
        slope = ours(name, above, target, mask, reduction)[0]
        slope -= ours(name, below, target, mask, reduction)[0]
        assert gradient[at] == pytest.approx(slope / (2 * epsilon), rel=1e-6, abs=1e-8)


@each
def test_what_is_masked_out_might_as_well_not_be_there(name, rng):
    prediction, target = draw(name, (5, 4, 3), rng)
    mask = rng.random((5, 4)) < 0.5
    for reduction in ("mean", "sum"):  # without its mask, a row no longer says whose it is
        value, gradient = ours(name, prediction, target, mask, reduction)
        alone, its_gradient = ours(name, prediction[mask], target[mask], reduction=reduction)
        assert value == pytest.approx(alone, rel=1e-13)
        assert_close(gradient[mask], its_gradient, 1e-13)
        assert not gradient[~mask].any()


@each
def test_the_mean_is_the_sum_over_the_number_of_elements(name, rng):
    prediction, target = draw(name, (5, 4, 3), rng)
    mean, dmean = ours(name, prediction, target)
    total, dtotal = ours(name, prediction, target, reduction="sum")
    assert mean == pytest.approx(total / target.size, rel=1e-13)
    assert_close(dmean * target.size, dtotal, 1e-13)


@each
def test_where_nothing_counts_all_is_zero(name, rng):
    prediction, target = draw(name, (2, 3, 4), rng)
    value, gradient = ours(name, prediction, target, np.zeros((2, 3), bool))
    assert value == 0
    assert not gradient.any()
    value, gradient = ours(name, prediction[:0], target[:0])
    assert value == 0
    assert gradient.shape == prediction[:0].shape


def test_closed_forms():
    cross_entropy = bptt.losses.softmax_cross_entropy
    assert cross_entropy(np.zeros((1, 8)), np.array([3]))[0] == pytest.approx(math.log(8))
    bce = bptt.losses.binary_cross_entropy_with_logits
    assert bce(np.zeros((2, 3)), np.ones((2, 3)))[0] == pytest.approx(math.log(2))
    value, gradient = bptt.losses.mse(np.array([[3.0, 1.0]]), np.array([[1.0, 1.0]]))
    assert value == 2
    assert gradient.tolist() == [[2, 0]]


@both
def test_large_logits_do_not_overflow(dtype):
    logits = np.array([[1e4, -1e4, 0]], dtype)
    value, gradient = bptt.losses.softmax_cross_entropy(logits, np.array([1]))
    assert value == pytest.approx(2e4)
    assert gradient.tolist() == [[1, -1, 0]]
    value, gradient = bptt.losses.binary_cross_entropy_with_logits(
        logits, np.array([[0, 1, 0]], dtype), reduction="sum"
    )
    assert value == pytest.approx(2e4 + math.log(2))
    assert gradient.tolist() == [[1, -1, 0.5]]


@both
@pytest.mark.parametrize("V", [3, 7, 40])
def test_a_class_of_minus_infinity_is_as_good_as_not_there(dtype, V, rng):
    prediction, target = draw("softmax_cross_entropy", (6, V), rng, dtype)
    there = np.arange(V) % 3 != 1
    target = np.flatnonzero(there)[target % there.sum()]
    prediction[:, ~there] = -np.inf
    value, gradient = bptt.losses.softmax_cross_entropy(prediction, target)
    fewer = np.ascontiguousarray(prediction[:, there])
    expected, its = bptt.losses.softmax_cross_entropy(fewer, np.cumsum(there)[target] - 1)
    assert value == pytest.approx(expected, rel=1e-6 if dtype == np.float32 else 1e-14)
    assert_close(gradient[:, there], its, 1e-6 if dtype == np.float32 else 1e-14)
    assert not gradient[:, ~there].any()
    value, gradient = bptt.losses.softmax_cross_entropy(prediction, np.ones(6, int))
    assert value == math.inf
    prediction[:, 0] = math.nan  # as before: nothing hides it
    assert math.isnan(bptt.losses.softmax_cross_entropy(prediction, target)[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
def test_any_integers_are_targets(dtype, rng):
    prediction, target = draw("softmax_cross_entropy", (4, 3, 5), rng)
    expected = bptt.losses.softmax_cross_entropy(prediction, target)
    actual = bptt.losses.softmax_cross_entropy(prediction, target.astype(dtype))
    assert actual[0] == expected[0]
    assert np.array_equal(actual[1], expected[1])


def test_a_target_that_is_masked_out_is_not_read():
    prediction = np.zeros((2, 3))
    mask = np.array([True, False])
    value, _ = bptt.losses.softmax_cross_entropy(prediction, np.array([2, -100]), mask)
    assert value == pytest.approx(math.log(3))


@each
def test_nothing_that_came_in_is_changed_and_views_are_welcome(name, rng):
    prediction, target = draw(name, (4, 6, 5), rng)
    views = (prediction[:, ::2], target[:, ::2])
    copies = tuple(np.ascontiguousarray(a) for a in views)
    value, gradient = ours(name, *views)
    expected, expected_gradient = ours(name, *copies)
    assert value == expected
    assert np.array_equal(gradient, expected_gradient)
    assert all(np.array_equal(v, c) for v, c in zip(views, copies, strict=True))


# ---- bad input ---------------------------------------------------------------------------------


@each
def test_shapes_dtypes_and_choices_that_do_not_fit_are_refused(name, rng):
    prediction, target = draw(name, (4, 3, 5), rng)
    with pytest.raises(ValueError, match=rf"{name}: target"):
        ours(name, prediction, target[:2])
    with pytest.raises(ValueError, match=rf"{name}: mask"):
        ours(name, prediction, target, np.ones((4, 2), bool))
    with pytest.raises(TypeError, match=rf"{name}: mask"):
        ours(name, prediction, target, np.ones((4, 3)))
    with pytest.raises(TypeError, match=rf"{name}: prediction"):
        ours(name, prediction.astype(np.int64), target)
    with pytest.raises(TypeError, match=rf"{name}: prediction"):
        ours(name, prediction.tolist(), target)
    with pytest.raises(TypeError, match=rf"{name}: target"):
        ours(name, prediction, target.astype(np.float16))
    with pytest.raises(TypeError, match=rf"{name}: target"):
        ours(name, prediction, target.tolist())
    wanted = 'reduction is "median", expected "mean", "sum" or "mean_sequences"'
    with pytest.raises(ValueError, match=f"^{name}: {wanted}$"):
        ours(name, prediction, target, reduction="median")


@pytest.mark.parametrize("bad", [-1, 5])
def test_a_target_outside_the_vocabulary_is_refused(bad):
    target = np.array([[0, 1], [bad, 4]])
    with pytest.raises(ValueError, match=rf"softmax_cross_entropy: target.*{bad}"):
        bptt.losses.softmax_cross_entropy(np.zeros((2, 2, 5)), target)


def test_a_target_that_wraps_round_is_refused():
    most = np.array([0, 2**64 - 1], np.uint64)  # as -1 it would be ignored
    with pytest.raises(ValueError, match=r"target\[1\] is at least 9223372036854775807, expected"):
        bptt.losses.softmax_cross_entropy(np.zeros((2, 5)), most, ignore_index=-1)


@both
@pytest.mark.parametrize("bad", [-0.25, 1.5, math.nan, math.inf])
def test_targets_of_the_binary_loss_are_probabilities(dtype, bad):
    bce = bptt.losses.binary_cross_entropy_with_logits
    prediction, target = np.zeros((2, 3, 4), dtype), np.ones((2, 3, 4), dtype)
    target[1, 2, 0] = bad
    text = rf"target\[1, 2, 0\] is -?{bad:f}, expected 0 <= target <= 1$"
    with pytest.raises(ValueError, match=rf"^binary_cross_entropy_with_logits: {text}"):
        bce(prediction, target)
    for shape in ((2, 3), (2, 3, 4)):  # what is masked out is not read
        mask = np.ones(shape, bool)
        mask[(1, 2, 0)[: len(shape)]] = False
        assert bce(prediction, target, mask)[0] == pytest.approx(math.log(2))
        mask = ~mask
        with pytest.raises(ValueError, match=text):
            bce(prediction, target, mask)


@pytest.mark.parametrize("kind", [bool, np.float64])
def test_targets_of_cross_entropy_are_integers(kind):
    with pytest.raises(TypeError, match="softmax_cross_entropy: target"):
        bptt.losses.softmax_cross_entropy(np.zeros((2, 5)), np.zeros(2, kind))
