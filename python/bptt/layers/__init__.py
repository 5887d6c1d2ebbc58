"""Layers: parameters with a forward and a backward, and chains of them.

Every layer has the same methods (`Layer` documents them); where there is no state it is None.
"""

from bptt.layers.base import Layer, LayerGradients, LayerTape
from bptt.layers.dense import Activation, Embedding, Linear
from bptt.layers.recurrent import GRU, LSTM, RNN
from bptt.layers.sequential import Sequential

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Embedding",
    "Layer",
    "LayerGradients",
    "LayerTape",
    "Linear",
    "Sequential",
]
