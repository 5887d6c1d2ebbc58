"""A small model that several tests train, run and take apart."""

from typing import Any

import numpy as np

import bptt

V = 11


def character_model(dtype: Any = np.float64, recurrent: Any = bptt.LSTM) -> bptt.Sequential:
    """The same parameters every time."""
    return bptt.Sequential(
        bptt.Embedding(V, 4, dtype=dtype, seed=1),
        recurrent(4, 5, dtype=dtype, seed=2),
        bptt.Linear(5, V, dtype=dtype, seed=3),
    )
