"""Trains in Python what tests/cpp/truncation.cpp trains: every bit must be the same.

python tests/cpp/same_bits.py THE_BUILT_PROGRAM
"""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np

import bptt

T, N, V = 11, 3, 7
LAYERS = {"rnn_tanh": bptt.RNN, "lstm": bptt.LSTM, "gru": bptt.GRU}


def model(cell: str) -> bptt.Sequential:
    its = bptt.Sequential(
        bptt.Embedding(V, 4),
        LAYERS[cell](4, 5, num_layers=2, learn_initial_state=True),
        bptt.Activation("elu"),
        bptt.Linear(5, 6),
        bptt.Activation("softmax"),
        bptt.Linear(6, V),
    )
    seed = 1
    for parameter in its.parameters.values():
        for i in range(parameter.size):
            seed = (seed * 1664525 + 1013904223) % 2**32
            parameter.flat[i] = np.float32(seed >> 8) / np.float32(2**24) - np.float32(0.5)
    return its


def trained(cell: str) -> Iterator[float]:
    """The losses, then the parameters after one pass."""
    i = np.arange(T * N).reshape(T, N)
    trainer = bptt.Trainer(
        model(cell),
        bptt.losses.softmax_cross_entropy,
        bptt.optim.SGD(0.1),
        schedule=bptt.TruncatedBPTT(3, 5),
    )
    history = trainer.fit(i * i % V, (i * i + i) % V, epochs=1)
    yield from history.loss
    for parameter in trainer.model.parameters.values():
        yield from parameter.ravel().tolist()


def main() -> None:
    for cell in LAYERS:
        found = subprocess.run([sys.argv[1], cell], capture_output=True, text=True, check=True)
        its = [float.fromhex(line) for line in found.stdout.split()]
        mine = [float(value) for value in trained(cell)]
        if its != mine:
            apart = sum(a != b for a, b in zip(its, mine, strict=True))
            sys.exit(f"{cell}: {apart} of {len(mine)} numbers differ between C++ and Python")
        print(f"{cell}: {len(mine)} numbers are the same from C++ and Python, to the bit")


if __name__ == "__main__":
    main()
