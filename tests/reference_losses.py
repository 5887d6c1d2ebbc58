"""The losses once more, in plain NumPy: what bptt.losses is held against.

Each returns (value, dL/dprediction). mask: True where an element counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _reduced(
    terms: Array, slopes: Array, mask: Array, reduction: str, total: float | None = None
) -> tuple[float, Array]:
    """mask has terms' shape; slopes have the prediction's. total: what "mean" divides by."""
    count = 1.0
    if reduction == "mean":
        count = float(mask.sum()) if total is None else total
    elif reduction == "mean_sequences":
        sequences = mask if slopes.ndim == 2 else np.moveaxis(mask, 1, 0)
        count = float(sum(bool(sequence.any()) for sequence in sequences))
    factor = 1 / count if count else 0.0
    wide = mask.reshape(mask.shape + (1,) * (slopes.ndim - mask.ndim))
    value = float(np.where(mask, terms, 0).sum(dtype=np.float64)) * factor
    return value, (np.where(wide, slopes, 0) * factor).astype(slopes.dtype)


def _mask_of_elements(mask: Array | None, prediction: Array) -> Array:
    """A mask of rows (the prediction's shape without its last dimension) speaks of whole rows."""
    if mask is None:
        return np.ones(prediction.shape, bool)
    if mask.ndim < prediction.ndim:
        mask = mask[..., None]
    return np.broadcast_to(mask, prediction.shape)


def mse(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """(prediction - target)^2."""
    difference = prediction - target
    return _reduced(difference**2, 2 * difference, _mask_of_elements(mask, prediction), reduction)


def binary_cross_entropy_with_logits(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean"
) -> tuple[float, Array]:
    """-target*log(s) - (1-target)*log(1-s) with s = sigmoid(prediction)."""
    terms = np.logaddexp(0, prediction) - target * prediction
    slopes = np.exp(-np.logaddexp(0, -prediction)) - target
    return _reduced(terms, slopes, _mask_of_elements(mask, prediction), reduction)


def huber(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean",
    *, delta: float = 1.0,
) -> tuple[float, Array]:  # fmt: skip
    """Huber 1964."""
    d = prediction - target
    near = np.abs(d) <= delta
    terms = np.where(near, d**2 / 2, delta * (np.abs(d) - delta / 2))
    slopes = np.where(near, d, delta * np.sign(d))
    return _reduced(terms, slopes, _mask_of_elements(mask, prediction), reduction)


def gaussian_nll(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean",
    *, full: bool = False,
) -> tuple[float, Array]:  # fmt: skip
    """-log of the normal density; prediction: means and then logarithms of variances."""
    mean, s = np.split(prediction, 2, axis=-1)
    variance = np.exp(s)
    terms = np.log(variance) / 2 + (target - mean) ** 2 / (2 * variance)
    if full:
        terms = terms + np.log(2 * np.pi) / 2
    mask = _mask_of_elements(mask, target)
    slopes = (mean - target) / variance, 0.5 - (target - mean) ** 2 / (2 * variance)
    halves = [_reduced(terms, slope, mask, reduction) for slope in slopes]
    return halves[0][0], np.concatenate([gradient for _, gradient in halves], axis=-1)


def softmax_cross_entropy(
    prediction: Array, target: Array, mask: Array | None = None, reduction: str = "mean",
    *, class_weights: Array | None = None, label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> tuple[float, Array]:  # fmt: skip
    """-sum of q * log softmax(prediction (..., V)), q being the smoothed, weighted target (...).

    A target that is masked out is not read.
    """
    V = prediction.shape[-1]
    mask = np.ones(target.shape, bool) if mask is None else mask
    if ignore_index is not None:
        mask = mask & (target != ignore_index)
    weights = np.ones(V) if class_weights is None else class_weights.astype(np.float64)
    at = np.where(mask, target, 0)
    q = weights * ((1 - label_smoothing) * np.eye(V)[at] + label_smoothing / V)
    shifted = prediction - prediction.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    slopes = q.sum(axis=-1, keepdims=True) * np.exp(log_p) - q
    total = float(weights[at[mask]].sum())
    return _reduced(-(q * log_p).sum(axis=-1), slopes, mask, reduction, total)
