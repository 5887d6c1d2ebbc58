"""What all benchmarks share: how long they take, how a row is measured, and what a row says.

A row is a dictionary: its benchmark's name, its sizes, `times` (each contestant's median, quartiles
and number of samples, in seconds a call), what was measured in the same turns to compare with
(`sgemm`, `copy`, `sgemv`), and what follows from them (`ratio`, `shares`).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from bptt import bench

Row: TypeAlias = dict[str, Any]
# A benchmark gives its rows one after another.
Benchmark: TypeAlias = Callable[["Run"], Iterator[Row]]

SIZES = ("tiny", "quick", "full")
SECONDS = {"tiny": 0.01, "quick": 0.1, "full": 1.0}  # that a row takes, about
TURNS = {"tiny": 1, "quick": 3, "full": 5}
GOALS = {"training": 1.2, "inference": 1.2, "update": 2.0}  # that no ratio should be below
ALL_PEERS = {"PyTorch": "torch", "JAX": "jax", "ONNX Runtime": "onnxruntime"}


@dataclass
class Run:
    """How much is measured, with how many threads."""

    threads: int
    size: str
    first: bool = True  # whether what does not depend on the number of threads is measured, too
    yardsticks: dict[str, Any] = field(default_factory=dict)

    def choose(self, tiny: Any, quick: Any, full: Any) -> Any:
        return {"tiny": tiny, "quick": quick, "full": full}[self.size]

    def row(
        self,
        benchmark: str,
        contestants: Mapping[str, bench.Contestant],
        *,
        flop: int = 0,
        traffic: int = 0,
        tolerance: float | None = 1e-2,
        turns: int = 0,
        per_turn: Mapping[str, Callable[[Mapping[str, float]], float]] | None = None,
        work: Mapping[str, float] | None = None,
        **facts: Any,
    ) -> Row:
        """Measures one row.

        `flop` and `traffic` (bytes) are what bptt's call needs at least. Contestants whose names
        begin with "bptt" are ours; the first of them is the one that ratios and shares are of.
        Where `tolerance` is given, every contestant's result must equal the first one's to it,
        relative to the largest number: they did the same work. `turns` is the least number of turns
        where it is more than usual. `per_turn` is what to make of the seconds of each turn by
        themselves: contestants that stand beside each other ran one after the other. `work` is how
        many times the row's FLOP a contestant does, where it is not once.
        """
        sticks = yardsticks(self, facts.get("N") == 1) if flop else {}
        names = list(contestants)
        if tolerance is not None:
            agree(contestants, tolerance)
        samples = bench.samples_in_turns(
            {**contestants, **{name: call for name, (call, _) in sticks.items()}},
            SECONDS[self.size],
            max(turns, TURNS[self.size]),
        )
        timings = {name: bench.timing(taken) for name, taken in samples.items()}
        own = timings[names[0]].median
        peers = [name for name in names if not name.startswith("bptt")]
        row: Row = {"benchmark": benchmark, "threads": self.threads, **facts}
        row["times"] = {name: timings[name]._asdict() for name in names}
        by_turn = [
            dict(zip(samples, turn, strict=True)) for turn in zip(*samples.values(), strict=True)
        ]
        for name, of_turn in (per_turn or {}).items():
            row[name] = bench.timing([of_turn(turn) for turn in by_turn])._asdict()
        if peers:
            row["best_peer"] = min(peers, key=lambda name: timings[name].median)
            row["ratio"] = timings[row["best_peer"]].median / own
        if flop:
            row |= {"flop": flop, "traffic": traffic, "work": dict(work or {})}
            rates = {name: work / timings[name].median for name, (_, work) in sticks.items()}
            row["rates"] = rates  # FLOP/s of sgemm and sgemv, bytes/s of copy
            row["shares"] = {
                name: (traffic if name == "copy" else flop) / own / rate
                for name, rate in rates.items()
            }
        return row


def agree(contestants: Mapping[str, bench.Contestant], tolerance: float) -> None:
    first, *others = contestants
    expected = plain(contestants[first]())
    scale = max(float(np.abs(expected).max()), 1e-6)
    for name in others:
        difference = float(np.abs(plain(contestants[name]()) - expected).max())
        if not difference <= tolerance * scale:
            raise AssertionError(f"{name} differs by {difference:.3g} at the scale {scale:.3g}")


def plain(result: Any) -> Any:
    """A contestant's result as a NumPy array."""
    return np.asarray(result.detach() if hasattr(result, "detach") else result).squeeze()


# ---- what the machine can do ---------------------------------------------------------------------


def yardsticks(run: Run, one_sequence: bool) -> dict[str, tuple[bench.Contestant, int]]:
    """What is measured beside a row's contestants: name, (call, FLOP or bytes of a call)."""
    if not run.yardsticks:
        _, product, flop = bench.sgemm(run.choose(32, 1024, 1024))
        run.yardsticks = {
            "sgemm": (product, flop),
            "copy": copy(run.threads, run.choose(1, 16, 16)),
            "sgemv": sgemv(run.threads),
        }
    return {k: v for k, v in run.yardsticks.items() if k != "sgemv" or one_sequence}


def copy(threads: int, megabytes: int) -> tuple[bench.Contestant, int]:
    """Each thread copies its own megabytes; bytes are those read and those written."""
    count = megabytes << 18
    pairs = [(np.ones(count, np.float32), np.ones(count, np.float32)) for _ in range(threads)]
    if threads == 1:
        return lambda: np.copyto(*pairs[0]), 8 * count
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda pair: np.copyto(*pair), pairs)), 8 * count * threads


def sgemv(threads: int) -> tuple[bench.Contestant, int]:
    """A matrix of a megabyte a thread, in its L2, times a vector: what one sequence's step is."""
    shape = (512 * threads, 512)
    if bench.installed("torch"):
        torch = import_module("torch")
        matrix, vector, to = torch.ones(shape), torch.ones(512), torch.empty(shape[0])
        return lambda: torch.mv(matrix, vector, out=to), 2 * shape[0] * shape[1]
    W, v, out = np.ones(shape, np.float32), np.ones(512, np.float32), np.empty(shape[0], np.float32)
    return lambda: np.matmul(W, v, out=out), 2 * shape[0] * shape[1]


# ---- bytes ---------------------------------------------------------------------------------------

# Numbers of one step and sequence, in units of H, that the tape keeps beside h: gates, and c.
KEPT = {"rnn": 0, "lstm": 5, "gru": 4}


def training_traffic(problem: bench.Problem) -> int:
    """The bytes that a training step reads and writes at least, with every array touched once in
    each pass that needs it: forward reads x and writes h and the tape; backward reads dy, h and the
    tape and writes delta; the products after it read delta, h and x and write dx. And the weights
    once forward, once backward, and their gradients."""
    cell, T, N, D, H = problem
    G = bench.GATES[cell]
    forward = D + H + KEPT[cell] * H
    backward = H + H + KEPT[cell] * H + G * H
    products = G * H + H + D + D
    return 4 * (T * N * (forward + backward + products) + 3 * G * H * (D + H + 2))


def inference_traffic(problem: bench.Problem) -> int:
    """The bytes of x, y and the weights."""
    cell, T, N, D, H = problem
    return 4 * (T * N * (D + H) + bench.GATES[cell] * H * (D + H + 2))


# ---- what any program could reach ----------------------------------------------------------------


def peak(rows: Iterable[Row]) -> float:
    """FLOP/s of the fastest products in rows of as many threads, whoever's they are."""
    found = [0.0]
    for row in rows:
        if "flop" in row:
            found.append(row["rates"]["sgemm"])
            found += [
                row["flop"] * done / row["times"][name]["median"] for name, done in works(row)
            ]
    return max(found)


def works(row: Row) -> Iterator[tuple[str, float]]:
    """Each contestant and how many times the row's FLOP it does."""
    return ((name, row["work"].get(name, 1)) for name in row["times"])


def ceiling(row: Row, peak: float) -> float:
    """The ratio of a program whose products run at that rate and that needs no time else."""
    return float(row["times"][row["best_peer"]]["median"] * peak / row["flop"])


# ---- what a row costs over what it must cost -----------------------------------------------------


EMPTY = "bptt, lengths 0"  # the contestant that tells the fixed overhead


def over_share(took: Mapping[str, float], filled: float) -> float:
    """Of variable lengths, by everybody's seconds: the cost, without that of a call none of whose
    steps is valid (a fixed overhead), over the valid share of what it costs with every length T."""
    return (took["bptt"] - took[EMPTY]) / (filled * took["bptt padded"])


def over_needed(row: Row) -> float:
    """Of a training step's memory: the peak, x and dy included, over tape + input + gradients. The
    gradients are dy = dL/dy, which the loss hands over, dx, and those of the parameters."""
    cell, T, N, D, H = (row[key] for key in ("cell", "T", "N", "D", "H"))
    given = 4 * T * N * (D + H)
    made = 4 * (T * N * D + bench.GATES[cell] * H * (D + H + 2))
    return float((row["bytes"]["bptt"] + given) / (row["tape"] + given + made))


# ---- a script by itself --------------------------------------------------------------------------


def absent() -> list[str]:
    """A sentence for each peer that is not installed."""
    return [
        f"{name} is not installed: it is left out"
        for name, package in ALL_PEERS.items()
        if not bench.installed(package)
    ]


def line(row: Row) -> str:
    """A row in one line."""
    hidden = {"times", "rates", "shares", "flop", "traffic", "ratio", "best_peer", "bytes"}
    hidden |= {"us_a_step_and_sequence", "over_share", "profile", "work"}
    head = " ".join(
        f"{k}={v}" if k != "benchmark" else v for k, v in row.items() if k not in hidden
    )
    parts = [f"{name} {1e3 * t['median']:.4g} ms" for name, t in row.get("times", {}).items()]
    parts += [f"{name} {size / 1e6:.1f} MB" for name, size in row.get("bytes", {}).items()]
    if "ratio" in row:
        parts.append(f"{row['ratio']:.2f} times as good as {row['best_peer']}")
    parts += [f"{share:.0%} of {name}" for name, share in row.get("shares", {}).items()]
    if row["benchmark"] == "lengths":
        share = row["over_share"]["median"]
        parts.append(f"{share:.2f} x valid share x padded, beyond the fixed overhead")
    if row["benchmark"] == "memory":
        parts.append(f"{over_needed(row):.3f} x (tape + input + gradients, dL/dy among them)")
    return f"{head}: {', '.join(parts)}"


def main(benchmark: Benchmark, doc: str | None) -> None:
    """The command line of one benchmark: prints its rows."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for everybody")
    parser.add_argument("--size", choices=SIZES, default="quick", help="how much is measured")
    chosen = parser.parse_args()
    for sentence in absent():
        print(sentence, file=sys.stderr)
    with bench.processors(chosen.threads):
        for row in benchmark(Run(chosen.threads, chosen.size)):
            print(line(row), flush=True)
