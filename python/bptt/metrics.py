"""What a trained model is measured by. A metric is called as a loss and returns a number."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["accuracy", "mean_absolute_error"]

Array: TypeAlias = NDArray[Any]


def accuracy(prediction: Array, target: Array, mask: Array | None = None) -> float:
    """The share of valid targets whose logit is the largest; 0 where nothing is valid.

    Args:
        prediction: (..., V) logits.
        target: (...) integers.
        mask: (...), True where an element is valid; None: everywhere.
    """
    return _mean(prediction.argmax(axis=-1) == target, mask)


def mean_absolute_error(prediction: Array, target: Array, mask: Array | None = None) -> float:
    """The mean of |prediction - target| over valid elements; 0 where nothing is valid.

    Args:
        prediction, target: (..., V).
        mask: (..., V) or (...): the latter speaks of whole rows.
    """
    return _mean(np.abs(prediction - target), mask)


def _mean(values: Array, mask: Array | None) -> float:
    chosen = values if mask is None else values[mask]
    return float(chosen.mean(dtype=np.float64)) if chosen.size else 0.0
