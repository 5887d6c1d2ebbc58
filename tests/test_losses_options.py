"""What single losses have of their own, lengths, and the reduction by sequences."""

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
cross_entropy = bptt.losses.softmax_cross_entropy


def slopes(loss: Any, prediction: Array, epsilon: float = 1e-5) -> Array:
    """The gradient of `loss(prediction)[0]` by central differences."""
    found = np.empty_like(prediction)
    for at in np.ndindex(prediction.shape):
        moved = prediction.copy()
        moved[at] += epsilon
        above = loss(moved)[0]
        moved[at] -= 2 * epsilon
        found[at] = (above - loss(moved)[0]) / (2 * epsilon)
    return found


# ---- cross-entropy -----------------------------------------------------------------------------

entropy_options = st.fixed_dictionaries(
    {},
    optional={
        "class_weights": st.integers(0, 99),  # a seed
        "label_smoothing": st.sampled_from([0.0, 0.1, 0.7, 1.0]),
        "ignore_index": st.sampled_from([-100, 0, 2]),
    },
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(3, 70)),
    options=entropy_options,
    reduction=st.sampled_from(["mean", "sum", "mean_sequences"]),
    masked=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_combination_equals_the_reference(dtype, shape, options, reduction, masked, seed):
    rng = np.random.default_rng(seed)
    V = shape[-1]
    prediction = (3 * rng.standard_normal(shape)).astype(dtype)
    target = rng.integers(0, V, shape[:-1])
    if "class_weights" in options:
        weights = np.random.default_rng(options["class_weights"]).random(V)
        weights[1] = 0
        options = options | {"class_weights": weights.astype(dtype)}
    if options.get("ignore_index") == -100:
        target[::2] = -100
    mask = rng.random(target.shape) < 0.7 if masked else None
    value, gradient = cross_entropy(prediction, target, mask, reduction, **options)
    expected, expected_gradient = reference_losses.softmax_cross_entropy(
        prediction.astype(np.float64), target, mask, reduction, **options
    )
    tolerance = 3e-5 if dtype == np.float32 else 1e-12
    assert value == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert gradient.dtype == dtype
    assert_close(gradient, expected_gradient, tolerance)


def test_gradients_with_all_options_equal_central_differences(rng):
    prediction, target = rng.standard_normal((3, 2, 4)), rng.integers(0, 4, (3, 2))
    options = {"class_weights": rng.random(4), "label_smoothing": 0.2, "ignore_index": 1}

    def loss(p: Array) -> tuple[float, Array]:
        return cross_entropy(p, target, None, "mean_sequences", **options)

    assert_close(loss(prediction)[1], slopes(loss, prediction), 1e-8)


def test_equal_weights_change_no_mean(rng):
    prediction, target = rng.standard_normal((6, 5)), rng.integers(0, 5, 6)
    value, gradient = cross_entropy(prediction, target)
    weighted = cross_entropy(prediction, target, class_weights=np.full(5, 3.0))
    assert weighted[0] == pytest.approx(value, rel=1e-14)
    assert_close(weighted[1], gradient, 1e-14)


def test_a_whole_weight_is_as_many_copies(rng):
    prediction, target = rng.standard_normal((6, 3)), np.array([0, 1, 2, 2, 1, 0])
    copies = np.array([1.0, 3.0, 2.0])
    times = copies[target].astype(int)
    expected, _ = cross_entropy(np.repeat(prediction, times, 0), np.repeat(target, times))
    assert cross_entropy(prediction, target, class_weights=copies)[0] == pytest.approx(expected)


def test_closed_forms_of_smoothing():
    # Even logits cost log V whatever the target is; all smoothing makes every target the same.
    value, gradient = cross_entropy(np.zeros((1, 8)), np.array([3]), label_smoothing=1.0)
    assert value == pytest.approx(math.log(8))
    assert gradient == pytest.approx(0, abs=1e-17)
    _, gradient = cross_entropy(np.zeros((1, 4)), np.array([0]), label_smoothing=0.4)
    assert gradient[0] == pytest.approx([0.25 - 0.7, 0.15, 0.15, 0.15])


def test_an_ignored_target_is_a_masked_one_and_is_not_read(rng):
    prediction, target = rng.standard_normal((4, 3, 5)), rng.integers(0, 5, (4, 3))
    target[1:3, 1] = -1
    for reduction in ("mean", "sum", "mean_sequences"):
        value, gradient = cross_entropy(prediction, target, None, reduction, ignore_index=-1)
        masked = cross_entropy(prediction, target, target != -1, reduction)
        assert value == masked[0]
        assert np.array_equal(gradient, masked[1])
    value, gradient = cross_entropy(prediction, np.full((4, 3), -1), ignore_index=-1)
    assert value == 0
    assert not gradient.any()


# ---- Huber, Gaussian ---------------------------------------------------------------------------


def test_closed_forms_of_huber():
    difference = np.array([[0.0, 0.5, -0.5, 3.0, -3.0]])
    value, gradient = bptt.losses.huber(difference, np.zeros((1, 5)), reduction="sum", delta=2.0)
    assert value == 0.125 + 0.125 + 2 * 2 * (3 - 1)
    assert gradient.tolist() == [[0, 0.5, -0.5, 2, -2]]


def test_a_wide_hubers_double_is_mse(rng):
    prediction, target = rng.standard_normal((2, 4, 3, 7))
    value, gradient = bptt.losses.huber(prediction, target, delta=1e6)
    expected, expected_gradient = bptt.losses.mse(prediction, target)
    assert 2 * value == pytest.approx(expected, rel=1e-14)
    assert_close(2 * gradient, expected_gradient, 1e-14)


@pytest.mark.parametrize("F", [1, 3, 8, 17])
def test_gaussian_nll_is_least_at_the_samples_mean_and_variance(F, rng):
    target = 3 + 2 * rng.standard_normal((1000, F))
    best = np.concatenate([target.mean(0), np.log(target.var(0))])
    prediction = np.broadcast_to(best, (1000, 2 * F))
    value, gradient = bptt.losses.gaussian_nll(prediction, target, full=True)
    assert gradient.sum(axis=0) == pytest.approx(0, abs=1e-13)
    expected = 0.5 * (1 + math.log(2 * math.pi) + best[F:].mean())
    assert value == pytest.approx(expected)


def test_full_adds_a_constant_for_each_valid_element(rng):
    prediction, target = rng.standard_normal((5, 4, 6)), rng.standard_normal((5, 4, 3))
    mask = rng.random((5, 4)) < 0.5
    short, gradient = bptt.losses.gaussian_nll(prediction, target, mask, "sum")
    long, same = bptt.losses.gaussian_nll(prediction, target, mask, "sum", full=True)
    assert long - short == pytest.approx(3 * mask.sum() * math.log(2 * math.pi) / 2)
    assert np.array_equal(gradient, same)


# ---- lengths and sequences ---------------------------------------------------------------------


def test_length_mask():
    mask = bptt.losses.length_mask(np.array([2, 0, 3]), 3)
    assert mask.T.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert bptt.losses.length_mask(np.array([], int), 4).shape == (4, 0)


def test_mean_sequences_is_the_mean_of_each_sequences_own_sum(rng):
    lengths = np.array([5, 2, 0, 1])
    mask = bptt.losses.length_mask(lengths, 5)
    prediction, target = rng.standard_normal((2, 5, 4, 3))
    value, gradient = bptt.losses.mse(prediction, target, mask, "mean_sequences")
    alone = [
        bptt.losses.mse(prediction[:k, n], target[:k, n], reduction="sum")[0]
        for n, k in enumerate(lengths)
        if k > 0  # a sequence without a valid element is none
    ]
    assert value == pytest.approx(sum(alone) / 3)
    _, total = bptt.losses.mse(prediction, target, mask, "sum")
    assert_close(3 * gradient, total, 1e-14)


def test_the_rows_of_a_matrix_are_sequences(rng):
    prediction, target = rng.standard_normal((2, 4, 3))
    value, _ = bptt.losses.mse(prediction, target, reduction="mean_sequences")
    total, _ = bptt.losses.mse(prediction, target, reduction="sum")
    assert value == pytest.approx(total / 4)
    labels = np.array([0, 2, 2, 1])
    rows = cross_entropy(prediction, labels, None, "mean_sequences")[0]
    assert rows == cross_entropy(prediction, labels, None, "mean")[0]


# ---- bad input ---------------------------------------------------------------------------------

P, T = np.zeros((4, 2, 5)), np.zeros((4, 2), int)

REFUSED = [
    (
        lambda: cross_entropy(P, T, class_weights=np.ones(4)),
        ValueError,
        r"class_weights has shape (4,), expected (V,) = (5,)",
    ),
    (
        lambda: cross_entropy(P, T, class_weights=np.array([1, 1, -1, 1, 1.0])),
        ValueError,
        "class_weights[2] is -1.000000, expected a finite number >= 0",
    ),
    (
        lambda: cross_entropy(P, T, class_weights=np.array([1, 1, 1, math.nan, 1.0])),
        ValueError,
        "class_weights[3] is nan, expected a finite number >= 0",
    ),
    (
        lambda: cross_entropy(P, T, class_weights=np.ones(5, np.float32)),
        TypeError,
        "class_weights has dtype float32, expected float64",
    ),
    (
        lambda: cross_entropy(P, T, label_smoothing=1.5),
        ValueError,
        "label_smoothing is 1.5 (float), expected a number in [0, 1]",
    ),
    (
        lambda: cross_entropy(P, T, label_smoothing="0.1"),
        TypeError,
        "label_smoothing is '0.1' (str), expected a number in [0, 1]",
    ),
    (lambda: cross_entropy(P, T, ignore_index=1.0), TypeError, "ignore_index is 1.0 (float),"),
    (
        lambda: cross_entropy(P, T, ignore_index=2**63),
        ValueError,
        "ignore_index is 9223372036854775808 (int), expected an integer < 2**63",
    ),
    (
        lambda: cross_entropy(P, T - 1, ignore_index=-2),
        ValueError,
        "target[0, 0] is -1, expected 0 <= index < V = 5",
    ),
    (
        lambda: cross_entropy(P[0, 0], np.array(0), None, "mean_sequences"),
        ValueError,
        'prediction has shape (5,) and reduction is "mean_sequences", '
        "expected (T, N, ..., V) or (N, V)",
    ),
    (
        lambda: bptt.losses.huber(P, P, delta=0.0),
        ValueError,
        "delta is 0.0 (float), expected a number in (0, inf)",
    ),
    (lambda: bptt.losses.huber(P, P, delta=math.nan), ValueError, "delta is nan (float),"),
    (
        lambda: bptt.losses.gaussian_nll(P, P),
        ValueError,
        "prediction has shape (4, 2, 5), expected (..., 2*F)",
    ),
    (
        lambda: bptt.losses.gaussian_nll(P[..., :4], P[..., :3]),
        ValueError,
        "target has shape (4, 2, 3), expected prediction's (..., F) = (4, 2, 2)",
    ),
    (
        lambda: bptt.losses.gaussian_nll(P[..., :4], P[..., :2], np.ones((4, 2, 4), bool)),
        ValueError,
        "mask has shape (4, 2, 4), expected target's (..., F) = (4, 2, 2) or (...) = (4, 2)",
    ),
    (
        lambda: bptt.losses.gaussian_nll(P[..., :4], P[..., :2], full=1),
        TypeError,
        "full is 1 (int), expected True or False",
    ),
    (
        lambda: bptt.losses.length_mask(np.array([1, 4]), 3),
        ValueError,
        "lengths[1] is 4, expected 0 <= length <= T = 3",
    ),
    (
        lambda: bptt.losses.length_mask(np.array([-1, 2]), 3),
        ValueError,
        "lengths[0] is -1, expected 0 <= length <= T = 3",
    ),
    (
        lambda: bptt.losses.length_mask(np.array([1.0]), 3),
        TypeError,
        "lengths has dtype float64, expected integers",
    ),
    (lambda: bptt.losses.length_mask([1], 3), TypeError, "lengths is a list, expected an array"),
    (
        lambda: bptt.losses.length_mask(np.ones((1, 1), int), 3),
        ValueError,
        "lengths has shape (1, 1), expected (N,)",
    ),
]


@pytest.mark.parametrize(("call", "error", "sentence"), REFUSED)
def test_what_does_not_fit_is_refused_with_a_sentence(call, error, sentence):
    with pytest.raises(error) as caught:
        call()
    _, _, text = str(caught.value).partition(": ")
    assert text.startswith(sentence)
