"""Where the time of the rows below their goals goes, by Linux's `perf`: adds to each a "profile".

    python benchmarks/profile_rows.py benchmarks/results.json [--seconds 4]

bptt's call of a row is repeated in a process of its own, which `perf record` watches, and each
sample's function says what it was for. It needs `perf` and a library with its symbols, as
`pip install . -C install.strip=false` leaves it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import common
import inference
import update
from common import GOALS, Row

import bptt
from bptt import bench

SAMPLES = 1000  # a second
# What a function is for: the first pattern that its library and its name, without parameters,
# match. Who sleeps is not seen; bptt's threads spin where they wait.
KINDS = {
    "products": r"libbptt.*\b(tile|product(_of_two)?|outer_(tile|group|sum)|(column|bias)_sums)<",
    "packing": r"libbptt.*\b(pack_\w+<|PackedWeights|RightOperand|InputGradient"
    r"|ForwardWeights|BackwardWeights)",
    "cells": r"libbptt.*\b(Forward|Backward)Loop<",
    "waiting": r"Barrier::meet|Wait::|libgomp|sched_yield"
    r"|kernel.*(sched|yield|pick_next|curr|idle)",
    "rest": "",
}


def kind_of(function: str) -> str:
    """Of a library's name and a function's."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, function))


def shares(report: Iterable[str]) -> dict[str, float]:
    """What `perf report` printed, a share and a function a line, as the share of each kind."""
    found = dict.fromkeys(KINDS, 0.0)
    for line in report:
        if told := re.match(r"\s*([\d.]+)%\s*;(.*)", line):
            found[kind_of(told[2])] += float(told[1])
    total = sum(found.values())
    return {kind: share / total for kind, share in found.items()} if total else found


def contestants(row: Row) -> dict[str, bench.Contestant]:
    """Those of the row, as they were measured."""
    if row["benchmark"] == "update":
        return update.contestants(
            row["cell"], update.Sizes(*(row[k] for k in update.Sizes._fields))
        )
    problem = bench.Problem(*(row[key] for key in bench.Problem._fields))
    if row["benchmark"] == "training":
        return bench.training(problem)
    return inference.contestants(problem, row["threads"])


def repeat(row: Row) -> None:
    """bptt's call again and again, until nobody listens: prints the seconds of a call."""
    bptt.set_num_threads(row["threads"])
    call = contestants(row)["bptt"]
    for _ in range(2):
        call()
    start = time.perf_counter()
    call()
    count = math.ceil(0.02 / (time.perf_counter() - start))
    while True:
        start = time.perf_counter()
        for _ in range(count):
            call()
        print((time.perf_counter() - start) / count, flush=True)


def profile(row: Row, seconds: float) -> dict[str, Any]:
    """The shares of each kind, the median of the calls, and the products' FLOP/s."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(row["threads"])}
    processors = sorted(os.sched_getaffinity(0))[: row["threads"]]
    command = [sys.executable, __file__, "--repeat", json.dumps(row)]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        watch = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES), "-o", str(data)]
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, processors),
        ) as worker:
            try:
                assert worker.stdout is not None
                worker.stdout.readline()
                watcher = subprocess.Popen(
                    [*watch, "-p", str(worker.pid), "sleep", str(seconds)],
                    stderr=subprocess.DEVNULL,
                )
                took = []
                while watcher.poll() is None and (line := worker.stdout.readline()):
                    took.append(float(line))
                watched = watcher.wait()
            finally:
                worker.kill()
        if watched != 0 or not took:
            raise SystemExit("perf saw no call: may this user watch processes?")
        report = ["perf", "report", "-i", str(data), "--no-children", "--stdio", "-t", ";"]
        told = subprocess.run(
            [*report, "--sort", "dso,symbol"], check=True, capture_output=True, text=True
        )
    found = shares(told.stdout.splitlines())
    if found["products"] == 0:
        raise SystemExit("no products among the samples: is the library stripped of its symbols?")
    median = bench.timing(took).median
    rate = row["flop"] / (median * found["products"])
    return {"shares": found, "median": median, "product_rate": rate}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path, nargs="?", help="what run.py wrote; is written again")
    parser.add_argument("--seconds", type=float, default=4, help="a row")
    parser.add_argument("--repeat", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.repeat:
        repeat(chosen.repeat)
    if chosen.result is None:
        parser.error("no result is given")
    if shutil.which("perf") is None:
        parser.error("perf is not installed: it is Linux's, in the package linux-perf of Debian's")
    result = json.loads(chosen.result.read_text(encoding="utf-8"))
    for row in result["rows"]:
        row.pop("profile", None)
        if "ratio" in row and row["ratio"] < GOALS.get(row["benchmark"], 0):
            row["profile"] = profile(row, chosen.seconds)
            told = ", ".join(f"{k} {share:.0%}" for k, share in row["profile"]["shares"].items())
            rate = f"{row['profile']['product_rate'] / 1e9:.0f} GFLOP/s"
            print(f"{common.line(row)}: {told}; {rate}", flush=True)
    chosen.result.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
