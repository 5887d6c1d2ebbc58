"""Losses beside PyTorch's."""

import numpy as np
import pytest

import bptt
from networks import assert_close

torch = pytest.importorskip("torch")

PAIRS = {
    "mse": "mse_loss",
    "softmax_cross_entropy": "cross_entropy",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", PAIRS)
def test_losses_equal_pytorchs(name, reduction, rng):
    T, N, V = 5, 4, 7
    prediction = 3 * rng.standard_normal((T, N, V))
    if name == "softmax_cross_entropy":
        target = rng.integers(0, V, (T, N))
    else:
        target = rng.random((T, N, V))
    value, gradient = getattr(bptt.losses, name)(prediction, target, reduction=reduction)

    leaf = torch.tensor(prediction, requires_grad=True)
    theirs = torch.tensor(target)
    if name == "softmax_cross_entropy":
        value_t = torch.nn.functional.cross_entropy(
            leaf.reshape(-1, V), theirs.reshape(-1), reduction=reduction
        )
    else:
        value_t = getattr(torch.nn.functional, PAIRS[name])(leaf, theirs, reduction=reduction)
    value_t.backward()
    assert value == pytest.approx(value_t.item(), rel=1e-12)
    assert_close(gradient, leaf.grad.numpy(), 1e-12)


def test_a_masked_target_is_pytorchs_ignore_index(rng):
    prediction, target = rng.standard_normal((20, 7)), rng.integers(0, 7, 20)
    target[::3] = -100
    value, gradient = bptt.losses.softmax_cross_entropy(prediction, target, target != -100)
    leaf = torch.tensor(prediction, requires_grad=True)
    value_t = torch.nn.functional.cross_entropy(leaf, torch.tensor(target))
    value_t.backward()
    assert value == pytest.approx(value_t.item(), rel=1e-12)
    assert_close(gradient, leaf.grad.numpy(), 1e-12)
    assert np.isfinite(gradient).all()
