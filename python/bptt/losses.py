"""Losses: the value and its gradient with respect to the prediction, in one fused pass.

A loss is a function `(prediction, target) -> (value, dprediction)`. `mask` (bool) marks the
elements that count by True. reduction "mean" divides by the number of elements that count, "sum"
does not; where none counts, value and gradient are zero. Shapes and values that do not fit raise
`ValueError`, dtypes `TypeError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from numpy.typing import NDArray

from bptt import _core

__all__ = ["Loss", "binary_cross_entropy_with_logits", "mse", "softmax_cross_entropy"]

Array: TypeAlias = NDArray[Any]
Loss: TypeAlias = Callable[[Array, Array], tuple[float, Array]]


def mse(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """`(prediction - target)^2`.

    Args:
        prediction, target: (..., V), of the same shape and dtype.
        mask: (..., V) or (...): the latter speaks of whole rows.
        reduction: "mean" over elements, as PyTorch's, or "sum".

    Returns:
        The value and dprediction (..., V).
    """
    return _core.mse(prediction, target, mask, reduction)


def softmax_cross_entropy(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """`-log softmax(prediction)[target]`, in nats.

    Args:
        prediction: (..., V) logits.
        target: (...) integers in 0..V-1; what is masked out is not read.
        mask: (...).
        reduction: "mean" over targets or "sum".

    Returns:
        The value and dprediction (..., V).
    """
    return _core.softmax_cross_entropy(prediction, target, mask, reduction)


def binary_cross_entropy_with_logits(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """`-(target*log p + (1-target)*log(1-p))` with p = sigmoid(prediction), in nats.

    Args:
        prediction: (..., V) logits.
        target: (..., V) probabilities, of the prediction's dtype; that they are within [0, 1] is
            not checked.
        mask: (..., V) or (...): the latter speaks of whole rows.
        reduction: "mean" over elements, as PyTorch's, or "sum".

    Returns:
        The value and dprediction (..., V).
    """
    return _core.binary_cross_entropy_with_logits(prediction, target, mask, reduction)
