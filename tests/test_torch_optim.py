"""Optimizers beside PyTorch's."""

import numpy as np
import pytest

import bptt

torch = pytest.importorskip("torch")

PAIRS = {
    "SGD": (lambda: bptt.optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "SGD momentum": (
        lambda: bptt.optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    ),
    "SGD nesterov": (
        lambda: bptt.optim.SGD(0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "RMSprop": (
        lambda: bptt.optim.RMSprop(weight_decay=0.01),
        lambda p: torch.optim.RMSprop(p, weight_decay=0.01),
    ),
    "Adagrad": (
        lambda: bptt.optim.Adagrad(weight_decay=0.01),
        lambda p: torch.optim.Adagrad(p, weight_decay=0.01),
    ),
    "Adam": (
        lambda: bptt.optim.Adam(weight_decay=0.01),
        lambda p: torch.optim.Adam(p, weight_decay=0.01),
    ),
    "AdamW": (lambda: bptt.optim.AdamW(), lambda p: torch.optim.AdamW(p)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_optimizers_equal_pytorchs_with_the_same_defaults(name, rng):
    make, make_torch = PAIRS[name]
    parameters = {"a": rng.standard_normal((4, 5)), "b": rng.standard_normal(3)}
    leaves = {n: torch.tensor(p, requires_grad=True) for n, p in parameters.items()}
    ours, theirs = make(), make_torch(list(leaves.values()))
    for _ in range(10):
        gradients = {n: rng.standard_normal(p.shape) for n, p in parameters.items()}
        ours.step(parameters, gradients)
        for n, leaf in leaves.items():
            leaf.grad = torch.tensor(gradients[n])
        theirs.step()
    for n, leaf in leaves.items():
        np.testing.assert_allclose(parameters[n], leaf.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_clipping_by_value_equals_pytorchs(rng):
    gradient = rng.standard_normal((4, 5))
    leaf = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    leaf.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_value_([leaf], 0.5)
    bptt.optim.clip_by_value({"a": gradient}, 0.5)
    np.testing.assert_array_equal(gradient, leaf.grad.numpy())
