"""Huber, Gaussian likelihood, class weights, smoothing and ignored targets beside PyTorch's."""

import itertools

import pytest

import bptt
from networks import assert_close

torch = pytest.importorskip("torch")
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def check(ours, leaf, theirs):
    theirs.backward()
    assert ours[0] == pytest.approx(theirs.item(), rel=1e-12)
    assert_close(ours[1], leaf.grad.numpy(), 1e-12)


@reductions
@pytest.mark.parametrize("delta", [0.3, 1.0, 5.0])
def test_huber(delta, reduction, rng):
    prediction, target = 2 * rng.standard_normal((2, 5, 4, 7))
    leaf = torch.tensor(prediction, requires_grad=True)
    theirs = torch.nn.functional.huber_loss(leaf, torch.tensor(target), reduction, delta)
    check(bptt.losses.huber(prediction, target, None, reduction, delta=delta), leaf, theirs)


@reductions
@pytest.mark.parametrize("full", [False, True])
def test_gaussian_nll_with_its_variance_as_a_logarithm(full, reduction, rng):
    prediction, target = rng.standard_normal((5, 4, 6)), rng.standard_normal((5, 4, 3))
    leaf = torch.tensor(prediction, requires_grad=True)
    theirs = torch.nn.functional.gaussian_nll_loss(
        leaf[..., :3], torch.tensor(target), leaf[..., 3:].exp(), full, 1e-300, reduction
    )
    check(bptt.losses.gaussian_nll(prediction, target, None, reduction, full=full), leaf, theirs)


@reductions
@pytest.mark.parametrize(
    ("weighted", "smoothing", "ignored"),
    list(itertools.product([False, True], [0.0, 0.1, 1.0], [None, -100, 2])),
)
def test_cross_entropys_options(weighted, smoothing, ignored, reduction, rng):
    V = 7
    prediction, target = 2 * rng.standard_normal((20, V)), rng.integers(0, V, 20)
    if ignored is not None:
        target[::3] = ignored
    weights = rng.random(V) if weighted else None
    leaf = torch.tensor(prediction, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(
        leaf,
        torch.tensor(target),
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=-100 if ignored is None else ignored,
        reduction=reduction,
        label_smoothing=smoothing,
    )
    ours = bptt.losses.softmax_cross_entropy(
        prediction,
        target,
        None,
        reduction,
        class_weights=weights,
        label_smoothing=smoothing,
        ignore_index=ignored,
    )
    check(ours, leaf, theirs)
