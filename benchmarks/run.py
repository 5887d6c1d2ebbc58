"""All benchmarks, into one JSON file; report.py makes pages and pictures of it.

    python benchmarks/run.py --full --threads 1 2 --out benchmarks.json

Each number of threads is a process of its own that may use so many processors and no more, because
some libraries count them once, when they are imported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import denormals
import inference
import lengths
import memory
import scaling
import streaming
import training
import update

import bptt
from bptt import bench

BENCHMARKS = (training, inference, streaming, update, lengths, memory, scaling, denormals)


def machine() -> dict[str, Any]:
    """What it ran on."""
    mine = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    found: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "processors": len(mine),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "instruction set": bptt.runtime.instruction_set(),
        "bptt": bptt.__version__,
    }
    for name, package in {"NumPy": "numpy", **common.ALL_PEERS}.items():
        found[name] = bench.version_of(package) if bench.installed(package) else "not installed"
    try:
        text = subprocess.run(["lscpu"], check=True, capture_output=True, text=True).stdout
        told = dict(re.findall(r"^([^:\n]+):\s*(.+)$", text, flags=re.MULTILINE))
        found["processor"] = told.get("Model name", found["processor"])
        caches = (f"{key.split()[0]} {told[key]}" for key in told if key.endswith("cache"))
        found["caches"] = ", ".join(caches)
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found["memory"] = f"{size / 2**30:.0f} GiB"
    except (OSError, ValueError, subprocess.CalledProcessError):
        pass
    if bench.installed("torch"):
        found["PyTorch's LSTM"] = torch_path()
    return found


def torch_path() -> str:
    """Which of its ways PyTorch's LSTM takes in training, as its graph tells."""
    import torch

    y, _ = torch.nn.LSTM(3, 4)(torch.zeros(2, 2, 3, requires_grad=True))
    pending, seen = [y.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending += [n for n, _ in node.next_functions]
    return "oneDNN" if any("Mkldnn" in node.name() for node in seen) else "step by step"


def measured(threads: int, size: str, first: bool) -> list[common.Row]:
    """The rows of one number of threads, in this process."""
    run, rows = common.Run(threads, size, first), []
    with bench.processors(threads):
        for benchmark in BENCHMARKS:
            for row in benchmark.rows(run):
                rows.append(row)
                print(common.line(row), flush=True)
    return rows


def in_a_process(threads: int, size: str, first: bool) -> list[common.Row]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}

    def fewer() -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "rows.json"
        command = [sys.executable, __file__, f"--{size}", "--threads", str(threads), "--part", part]
        command += ["--first"] * first
        subprocess.run(command, check=True, env=environment, preexec_fn=fewer)
        rows: list[common.Row] = json.loads(part.read_text(encoding="utf-8"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    for name, tells in (("full", "all rows"), ("quick", "some"), ("tiny", "that it works")):
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name, help=tells)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(size="quick")
    chosen = parser.parse_args()
    if chosen.part:
        rows = measured(*chosen.threads, chosen.size, chosen.first)
        chosen.part.write_text(json.dumps(rows), encoding="utf-8")
        return
    start = time.perf_counter()
    absent = common.absent()
    print("\n".join(absent))
    rows = []
    for threads in chosen.threads:
        rows += in_a_process(threads, chosen.size, first=threads == chosen.threads[0])
    result = {"machine": machine(), "size": chosen.size, "absent": absent, "rows": rows}
    result["seconds"] = round(time.perf_counter() - start)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} rows in {result['seconds']} s, written to {chosen.out}")


if __name__ == "__main__":
    main()
