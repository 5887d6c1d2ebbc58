"""The activations once more, in plain NumPy: what bptt.Activation is held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NONLINEARITIES = ("tanh", "relu", "sigmoid", "elu", "softmax")


def forward(nonlinearity: str, x: Array) -> Array:
    """x (..., V); the softmax is that of the last dimension."""
    if nonlinearity == "tanh":
        return np.tanh(x)
    if nonlinearity == "relu":
        return np.maximum(x, 0)
    if nonlinearity == "sigmoid":
        return 0.5 * (1 + np.tanh(x / 2))
    if nonlinearity == "elu":
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    e = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=-1, keepdims=True)


def backward(nonlinearity: str, x: Array, dy: Array) -> Array:
    """dL/dx."""
    y = forward(nonlinearity, x)
    if nonlinearity == "tanh":
        return dy * (1 - y**2)
    if nonlinearity == "relu":
        return np.where(x > 0, dy, 0)
    if nonlinearity == "sigmoid":
        return dy * y * (1 - y)
    if nonlinearity == "elu":
        return dy * np.where(x > 0, 1, np.exp(np.minimum(x, 0)))
    return y * (dy - (y * dy).sum(axis=-1, keepdims=True))
