"""One exact gradient over a million steps: its memory beyond input and target, and its time.

    python benchmarks/long_sequence.py [--steps 1000000] [--hidden 256] [--budget-mb 128]
                                       [--threads P] [--turns 3]

An LSTM with a readout and a loss, one sequence, float32. Time per step is compared with that of
10,000 steps in one piece; the two are timed in turn, since a machine's speed changes while it runs.
One thread is measured by its own CPU time, more by the wall clock. The peak is the process's own,
as the system counts it, over what it was with input and target in memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import bptt

MB = 2**20
SHORT = 10_000


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (the most so far) in bytes; Linux only."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--budget-mb", type=int, default=128)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    if options.threads is not None:
        bptt.set_num_threads(options.threads)
    clock = time.thread_time if bptt.get_num_threads() == 1 else time.perf_counter

    T, H = options.steps, options.hidden
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, 1, 1), np.float32)
    target = np.roll(x, 5, axis=0)
    model = bptt.Sequential(bptt.LSTM(1, H, seed=0), bptt.Linear(H, 1, seed=1))
    loss, schedule = bptt.losses.mse, bptt.FullBPTT(memory_budget=options.budget_mb * MB)

    def seconds_a_step(its_schedule: bptt.Schedule, steps: int) -> float:
        start = clock()
        (update,) = its_schedule.run(model, loss, x[:steps], target[:steps])
        each = (clock() - start) / steps
        print(f"{steps:>9,} steps: {1e6 * each:.2f} us a step, loss {update.loss:.4f}", flush=True)
        return each

    before = resident("VmRSS")
    plan = schedule.plan(model, loss, x, target)
    print(f"T {T:,}, N 1, LSTM H {H}, {bptt.get_num_threads()} threads")
    print(
        f"plan: {plan.segments:,} segments of {plan.segment:,} steps, {plan.slots:,} states kept, "
        f"{plan.memory / MB:.1f} MiB, {plan.cost:.3f} forward passes",
        flush=True,
    )
    long, short, whole, few = [], [], bptt.FullBPTT(), min(SHORT, T)
    for turn in range(options.turns):
        long.append(seconds_a_step(schedule, T))
        if turn == 0:
            peak = resident("VmHWM") - before
            seconds_a_step(whole, few)  # the first one makes room
        short += [seconds_a_step(whole, few) for _ in range(5)]
    ratio = statistics.median(long) / statistics.median(short)
    print(
        f"peak beyond input and target: {peak / MB:.1f} MiB; "
        f"time a step: {ratio:.2f} of one piece's"
    )


if __name__ == "__main__":
    main()
