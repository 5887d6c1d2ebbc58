"""Losses: the value and its gradient with respect to the prediction, in one fused pass.

A loss is a function `(prediction, target) -> (value, dprediction)`. `mask` (bool) marks the
elements that count, the valid ones, by True; `length_mask` makes it from lengths. The reductions
mean the same in all of them:

- "sum": the sum of the losses of all valid elements.
- "mean": that sum divided by the number of valid elements.
- "mean_sequences": that sum divided by the number of sequences that have a valid element: the mean
  over sequences of each sequence's own sum. Sequences are dimension 1 of a prediction (T, N, ...,
  V) and dimension 0 of a prediction (N, V).

Where no element is valid, value and gradient are zero. Shapes and values that do not fit raise
`ValueError`, dtypes `TypeError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _core, _validate

__all__ = [
    "Loss",
    "binary_cross_entropy_with_logits",
    "gaussian_nll",
    "huber",
    "length_mask",
    "mse",
    "softmax_cross_entropy",
]

Array: TypeAlias = NDArray[Any]
Loss: TypeAlias = Callable[..., tuple[float, Array]]  # of (prediction, target) or also a mask


def mse(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """`(prediction - target)^2`.

    Args:
        prediction, target: (..., V), of the same shape and dtype.
        mask: (..., V) or (...): the latter speaks of whole rows.
        reduction: "mean" over elements, as PyTorch's, "sum" or "mean_sequences".

    Returns:
        The value and dprediction (..., V).
    """
    return _core.mse(prediction, target, mask, reduction)


def huber(
    prediction: Array,
    target: Array,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    delta: float = 1.0,
) -> tuple[float, Array]:
    """`d^2 / 2` where `|d| <= delta`, else `delta * (|d| - delta/2)`, with d = prediction - target:
    outliers pull with the force delta and no more (Huber 1964).

    Args:
        prediction, target: (..., V), of the same shape and dtype.
        mask: (..., V) or (...): the latter speaks of whole rows.
        reduction: "mean" over elements, as PyTorch's, "sum" or "mean_sequences".
        delta: > 0, in the target's units.

    Returns:
        The value and dprediction (..., V).
    """
    delta = _validate.number("huber", "delta", delta, 0.0, bounds="()")
    return _core.huber(prediction, target, mask, reduction, delta)


def gaussian_nll(
    prediction: Array,
    target: Array,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    full: bool = False,
) -> tuple[float, Array]:
    """`(s + (target - mean)^2 / exp(s)) / 2` in nats, s being the logarithm of the variance: the
    negative log-likelihood of a normal distribution that the model predicts (Nix & Weigend 1994).

    The logarithm may be any number, so that a linear layer can predict it; there is no variance to
    keep positive.

    Args:
        prediction: (..., 2F): F means and then F logarithms of variances.
        target: (..., F), of the prediction's dtype.
        mask: (..., F) or (...): the latter speaks of whole rows.
        reduction: "mean" over the target's elements, as PyTorch's, "sum" or "mean_sequences".
        full: whether `log(2 pi) / 2` an element, which does not depend on the model, is added.

    Returns:
        The value and dprediction (..., 2F).
    """
    full = _validate.flag("gaussian_nll", "full", full)
    return _core.gaussian_nll(prediction, target, mask, reduction, full)


def softmax_cross_entropy(
    prediction: Array,
    target: Array,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> tuple[float, Array]:
    """`-log softmax(prediction)[target]`, in nats.

    Args:
        prediction: (..., V) logits; -inf is a class with no probability and no gradient.
        target: (...) integers in 0..V-1; what is masked out is not read.
        mask: (...).
        reduction: "mean" over targets, "sum" or "mean_sequences".
        class_weights: (V,) numbers >= 0 of the prediction's dtype: an element counts as often as
            its target's weight says. "mean" then divides by the sum of the valid targets' weights,
            as PyTorch's; "mean_sequences" by the number of sequences, as ever.
        label_smoothing: in [0, 1]: so much of each target is spread evenly over all V classes
            (Szegedy et al. 2016).
        ignore_index: an integer; elements with this target are not valid, as if masked out.

    Returns:
        The value and dprediction (..., V).
    """
    where = "softmax_cross_entropy"
    smoothing = _validate.number(where, "label_smoothing", label_smoothing, 0.0, 1.0, "[]")
    if ignore_index is not None:
        ignore_index = _validate.size(where, "ignore_index", ignore_index, minimum=-(2**63))
        if ignore_index >= 2**63:
            wanted = "an integer < 2**63"
            raise ValueError(_validate.expected(where, "ignore_index", wanted, ignore_index))
    return _core.softmax_cross_entropy(
        prediction, target, mask, reduction, class_weights, smoothing, ignore_index
    )


def binary_cross_entropy_with_logits(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """`-(target*log p + (1-target)*log(1-p))` with p = sigmoid(prediction), in nats.

    Args:
        prediction: (..., V) logits.
        target: (..., V) probabilities in [0, 1], of the prediction's dtype; what is masked out is
            not read.
        mask: (..., V) or (...): the latter speaks of whole rows.
        reduction: "mean" over elements, as PyTorch's, "sum" or "mean_sequences".

    Returns:
        The value and dprediction (..., V).
    """
    return _core.binary_cross_entropy_with_logits(prediction, target, mask, reduction)


def length_mask(lengths: Array, T: int) -> Array:
    """The mask (T, N) of sequences of these lengths: True at [t, n] where t < lengths[n].

    Args:
        lengths: (N,) integers, 0 <= lengths[n] <= T.
        T: steps >= 0.
    """
    T = _validate.size("length_mask", "T", T, minimum=0)
    _validate.lengths("length_mask", lengths, T)
    mask: Array = np.arange(T)[:, None] < lengths
    return mask
