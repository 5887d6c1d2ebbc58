"""The memory that calls take, whichever way they go."""

from typing import Any

import numpy as np
import pytest

import bptt
from bptt import _core

# Layers that are split, and such as may run side by side: stacks, and both directions.
ways = pytest.mark.parametrize(
    "layer",
    [
        bptt.LSTM(3, 70),
        bptt.GRU(3, 24, reset_after=False),
        bptt.LSTM(3, 24, num_layers=3),
        bptt.GRU(3, 70, num_layers=2),
        bptt.LSTM(3, 24, num_layers=2, bidirectional=True),
    ],
    ids=repr,
)


def peak(layer: Any, N: int, steps: int, most: bool = False) -> int:
    x = np.ones((steps, N, 3), np.float32)
    before = _core.used_memory()
    _core.reset_peak_memory()
    _core.spend_most_memory(most)
    try:
        y, _, tape = layer.forward(x)
        layer.backward(tape, y)
    finally:
        _core.spend_most_memory(False)
    return _core.peak_memory() - before


@ways
@pytest.mark.parametrize("N", [1, 2, 40])
def test_the_most_memory_holds_whatever_the_way(layer: Any, N: int) -> None:
    with bptt.num_threads(4):
        most = peak(layer, N, 300, most=True)
        assert peak(layer, N, 1) < peak(layer, N, 1, most=True)  # one step is worth one thread
    for threads in (1, 2, 4):
        with bptt.num_threads(threads):
            assert peak(layer, N, 300) <= most


@ways
@pytest.mark.parametrize("N", [1, 2])
def test_the_most_memory_of_short_calls_tells_that_of_long_ones(layer: Any, N: int) -> None:
    """Which go another way, where that is worth it. Large blocks are rounded by a sixteenth."""
    with bptt.num_threads(2):
        of_8, of_16 = peak(layer, N, 8, most=True), peak(layer, N, 16, most=True)
        assert peak(layer, N, 300) <= (of_16 + (of_16 - of_8) / 8 * (300 - 16)) * 17 / 16
