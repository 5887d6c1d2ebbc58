"""Analytic gradients equal central differences of the core's own forward pass."""

import numpy as np
import pytest

from networks import CELLS, Network, backward, draw, forward

# Small enough that even in a ReLU no kink lies between the two points, as the seeds stand.
E = 1e-6


def loss(network: Network) -> float:
    run = forward(network)
    value = np.vdot(run.y, network.dy) + np.vdot(run.h, network.dh)
    return float(value + (0 if run.c is None else np.vdot(run.c, network.dc)))


@pytest.mark.parametrize("steps", ["all", "lengths", "reset"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (6, 3, 2, 5), (3, 2, 4, 9), (12, 1, 1, 3)], ids=str
)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_equal_central_differences(
    cell: str, shape: tuple[int, int, int, int], steps: str, rng: np.random.Generator
) -> None:
    network = draw(cell, shape, rng, lengths=steps == "lengths", reset=steps == "reset")
    grads = backward(network, forward(network).tape)
    arguments = {"x": network.x, "h": network.h, **vars(network.weights)}
    if network.c is not None:
        arguments["c"] = network.c
    for name, argument in arguments.items():
        gradient = getattr(grads, name)
        assert gradient.shape == argument.shape
        for i in np.ndindex(argument.shape):
            kept = argument[i]
            argument[i] = kept + E
            above = loss(network)
            argument[i] = kept - E
            below = loss(network)
            argument[i] = kept
            difference = (above - below) / (2 * E)
            assert gradient[i] == pytest.approx(difference, rel=1e-6, abs=1e-6), (name, i)
