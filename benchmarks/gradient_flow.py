"""What a look at the gradient costs: ratios to the pass that it is compared with, on one machine.

    python benchmarks/gradient_flow.py [threads] [--tiny]

Both sides of a ratio run in turns; a line has the median ratio and the medians of both sides. One
thread is measured by its own CPU time, which other programs hardly disturb, more by the wall clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import bptt
from bptt import _core

CELLS = {"rnn_tanh": 1, "lstm": 4, "gru": 3, "gru_reset_before": 3}  # and their gates
LAYERS = {
    "rnn_tanh": bptt.RNN,
    "lstm": bptt.LSTM,
    "gru": bptt.GRU,
    "gru_reset_before": partial(bptt.GRU, reset_after=False),
}
BY_STEP = [  # T, N, D, H
    (64, 32, 64, 256),
    (128, 1, 64, 256),
    (64, 128, 128, 128),
    (256, 16, 64, 64),
    (200, 8, 10, 20),
    (100, 3, 1, 100),
    (100, 128, 32, 32),
    (1000, 1, 64, 128),
]
BY_LAG = [  # T, N, D, H, max_lag, groups
    (64, 8, 64, 256, 31, 4),
    (128, 4, 64, 128, 63, 4),
    (64, 4, 128, 128, 31, 1),
    (64, 2, 256, 256, 63, 2),
]


def compare(ours: Callable[[], object], plain: Callable[[], object], turns: int) -> str:
    clock = time.thread_time if bptt.get_num_threads() == 1 else time.perf_counter
    seconds = np.empty((turns + 1, 2))
    for turn in range(turns + 1):
        for side, run in enumerate((ours, plain)):
            start = clock()
            run()
            seconds[turn, side] = clock() - start
    seconds = seconds[1:]
    ratio = np.median(seconds[:, 0] / seconds[:, 1])
    a, b = 1e3 * np.median(seconds, axis=0)
    return f"{ratio:5.2f}   {a:8.2f} ms against {b:8.2f} ms"


def network(cell: str, T: int, N: int, D: int, H: int) -> tuple[Any, Any, Any]:
    """x, weights and dy."""
    rng = np.random.default_rng(0)
    G = CELLS[cell]

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    weights = [draw(*shape) / H**0.5 for shape in ((G * H, D), (G * H, H), (G * H,), (G * H,))]
    return draw(T, N, D), [w.astype(np.float32) for w in weights], draw(T, N, H) / 1000


def run(cell: str, x: Any, weights: Any) -> Any:
    return _core.forward(cell, x, *weights, None, None, None, None, True)[3]


def by_step(cell: str, T: int, N: int, D: int, H: int) -> str:
    """Forward and backward that notes norms by step and the parts of dh, against without."""
    x, weights, dy = network(cell, T, N, D, H)
    family = cell.split("_")[0]

    def traced() -> object:
        return _core.backward_traced(run(cell, x, weights), dy, None, None, False)

    def plain() -> object:
        return _core.backward(run(cell, x, weights), family, dy, None, None, "sum", False)

    return compare(traced, plain, 15)


def whole_step(cell: str, T: int, N: int, D: int, H: int) -> str:
    """`gradient_flow` by step of a model with a head, against a training step of it."""
    classes = 100
    model = bptt.Sequential(LAYERS[cell](D, H, seed=0), bptt.Linear(H, classes, seed=1))
    rng, loss = np.random.default_rng(0), bptt.losses.softmax_cross_entropy
    x, target = rng.standard_normal((T, N, D), np.float32), rng.integers(0, classes, (T, N))
    optimizer = bptt.optim.Adam()

    def traced() -> object:
        return bptt.gradient_flow(model, x, target, loss, per_lag=False)

    def plain() -> None:
        y, _, tape = model.forward(x)
        found = model.backward(tape, loss(y, target)[1])
        optimizer.step(model.parameters, found.parameters)

    return compare(traced, plain, 15)


def by_lag(cell: str, T: int, N: int, D: int, H: int, max_lag: int, groups: int) -> str:
    """The ledger of N sequences against a backward pass of N(max_lag+1)."""
    x, weights, dy = network(cell, T, N, D, H)
    tape = run(cell, x, weights)
    wide = run(cell, np.tile(x, (1, max_lag + 1, 1)), weights)
    wide_dy = np.tile(dy, (1, max_lag + 1, 1))
    steps = max(1, min(T, -(-128 * groups // N)))

    def ledger() -> object:
        its = _core.Ledger(tape, max_lag, groups, False)
        for last in range(T, 0, -steps):
            its.back(max(0, last - steps), dy, False, False)
        return its.weight_hh

    def plain() -> object:
        return _core.backward(wide, cell.split("_")[0], wide_dy, None, None, "sum", True)

    return compare(ledger, plain, 5)


def by_flow(
    cell: str,
    T: int,
    N: int,
    D: int,
    H: int,
    max_lag: int,
    by_way: bool = False,
    directions: int = 1,
) -> str:
    """`gradient_flow` of a stack of two layers, its forward and its pass by step included, against
    a backward pass of N(max_lag+1) sequences; with `by_way`, whose second ledger is a pass of its
    own, against two of them."""
    model = LAYERS[cell](D, H, num_layers=2, bidirectional=directions == 2, seed=0)
    x, _, dy = network(cell, T, N, D, H)
    dy = np.tile(dy, (1, 1, directions))
    _, _, tape = model.forward(np.tile(x, (1, max_lag + 1, 1)))
    wide_dy = np.tile(dy, (1, max_lag + 1, 1))

    def ours() -> object:
        return bptt.gradient_flow(model, x, dy, lambda y, dy: (y.sum(), dy), max_lag, by_way=by_way)

    def plain() -> None:
        for _ in range(1 + by_way):
            model.backward(tape, wide_dy, retain=True)

    return compare(ours, plain, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("threads", type=int, nargs="?")
    parser.add_argument("--tiny", action="store_true", help="small shapes: that it runs")
    options = parser.parse_args()
    if options.threads is not None:
        bptt.set_num_threads(options.threads)
    steps, lags = ([(5, 2, 3, 4)], [(5, 2, 3, 4, 2, 1)]) if options.tiny else (BY_STEP, BY_LAG)
    print(f"float32, {bptt.get_num_threads()} threads, {bptt.runtime.instruction_set()}")
    for title, letters, measure, rows in (
        (
            "gradient_flow by step, against a training step of the model (target 1.15)",
            "T, N, D, H",
            whole_step,
            steps,
        ),
        (
            "a training step of the layer with its parts by step, against without",
            "T, N, D, H",
            by_step,
            steps,
        ),
        (
            "a ledger of K lags, against a backward pass over N(K+1) sequences (target 1.3)",
            "T, N, D, H, K, groups",
            by_lag,
            lags,
        ),
        (
            "gradient_flow of K lags, two layers, against a backward pass of them over N(K+1) "
            "sequences (target 1.3)",
            "T, N, D, H, K",
            by_flow,
            [row[:-1] for row in lags],
        ),
        (
            "the same by way, whose lags through c are a second pass, against two such passes "
            "(target 1.3)",
            "T, N, D, H, K, by way",
            by_flow,
            [(*row[:-1], True) for row in lags],
        ),
        (
            "gradient_flow of K lags, two layers of two directions, against a backward pass of "
            "them over N(K+1) sequences (target 1.3)",
            "T, N, D, H, K, by way, directions",
            by_flow,
            [(*row[:-1], False, 2) for row in lags],
        ),
    ):
        print(f"\n{title}")
        for cell in ("lstm",) if letters.endswith("by way") else CELLS:
            for row in rows:
                print(f"{cell:16s} {letters} = {row!s:26s} {measure(cell, *row)}", flush=True)


if __name__ == "__main__":
    main()
