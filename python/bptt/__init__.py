"""Backpropagation through time on CPUs: three cells, their exact gradients, and what trains them.

Letters: T time steps, N sequences, D input features, H hidden units. Arrays are C-contiguous and
time-major, (T, N, D), float32 or float64.
"""

from bptt import convert, init, io, losses, optim, runtime
from bptt._core import __version__
from bptt.functions import (
    Gradients,
    Tape,
    Weights,
    gru_backward,
    gru_forward,
    lstm_backward,
    lstm_forward,
    rnn_backward,
    rnn_forward,
)
from bptt.layers import GRU, LSTM, RNN, Embedding, Layer, Linear, Sequential
from bptt.runtime import get_num_threads, num_threads, set_num_threads
from bptt.schedule import TruncatedBPTT
from bptt.stream import Stream
from bptt.trainer import DivergenceError, Trainer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "DivergenceError",
    "Embedding",
    "Gradients",
    "Layer",
    "Linear",
    "Sequential",
    "Stream",
    "Tape",
    "Trainer",
    "TruncatedBPTT",
    "Weights",
    "__version__",
    "convert",
    "get_num_threads",
    "gru_backward",
    "gru_forward",
    "init",
    "io",
    "losses",
    "lstm_backward",
    "lstm_forward",
    "num_threads",
    "optim",
    "rnn_backward",
    "rnn_forward",
    "runtime",
    "set_num_threads",
]
