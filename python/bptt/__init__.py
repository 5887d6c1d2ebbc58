"""Backpropagation through time on CPUs: three cells, their exact gradients, and what trains them.

Letters: T time steps, N sequences, D input features, H hidden units. Arrays are C-contiguous and
time-major, (T, N, D), float32 or float64.
"""

from bptt import callbacks, convert, data, dynamics, init, io, losses, lr, metrics, optim, runtime
from bptt._core import __version__
from bptt.average import WeightAverage
from bptt.data import Sequences
from bptt.flow import Flow, gradient_flow
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
from bptt.layers import GRU, LSTM, RNN, Activation, Embedding, Layer, Linear, Sequential
from bptt.longsequence import FullBPTT
from bptt.models import load_model, save_model
from bptt.paths import get_cmake_dir, get_include
from bptt.plan import CheckpointPlan
from bptt.runtime import get_num_threads, num_threads, set_num_threads
from bptt.schedule import Schedule, TruncatedBPTT
from bptt.stream import Stream
from bptt.trainer import DivergenceError, Trainer
from bptt.truncation import AdaptiveTruncation, RandomTruncation

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "AdaptiveTruncation",
    "CheckpointPlan",
    "DivergenceError",
    "Embedding",
    "Flow",
    "FullBPTT",
    "Gradients",
    "Layer",
    "Linear",
    "RandomTruncation",
    "Schedule",
    "Sequences",
    "Sequential",
    "Stream",
    "Tape",
    "Trainer",
    "TruncatedBPTT",
    "WeightAverage",
    "Weights",
    "__version__",
    "callbacks",
    "convert",
    "data",
    "dynamics",
    "get_cmake_dir",
    "get_include",
    "get_num_threads",
    "gradient_flow",
    "gru_backward",
    "gru_forward",
    "init",
    "io",
    "load_model",
    "losses",
    "lr",
    "lstm_backward",
    "lstm_forward",
    "metrics",
    "num_threads",
    "optim",
    "rnn_backward",
    "rnn_forward",
    "runtime",
    "save_model",
    "set_num_threads",
]
