"""Memory of one training step: the peak above what stands when the inputs are there.

What a step must hold is the tape, the input, and the gradients: dL/dy, which the loss hands over,
dL/dx, and those of the parameters. y is the tape's.

Each contestant runs in a process of its own, which has imported, drawn and compiled before it is
looked at. Linux only: it reads the process's high-water mark.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from common import KEPT, Row, Run, main

from bptt import bench


def of_process(field: str) -> int:
    """A field of the process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"this system does not tell {field}")


def prepared(contestant: str, problem: bench.Problem) -> Callable[[], Any]:
    """The call that is looked at, with everything around it done."""
    contestants = bench.training(problem)
    if contestant == "JAX":  # compiled for the shapes, without running
        jax = import_module("jax")
        layer, *arrays = problem.draw()
        forward = bench.jax_layer(problem.cell)

        def loss(weights: Any, x: Any, dy: Any) -> Any:
            return (forward(weights, x)[0] * dy).sum()

        arguments = jax.device_put((list(layer.parameters.values()), *arrays))
        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*arguments).compile()
        return lambda: jax.block_until_ready(gradient(*arguments))
    # Libraries start their threads and fill their caches at a call of another, small, size.
    bench.training(problem._replace(T=2))[contestant]()
    return contestants[contestant]


def measure(contestant: str, problem: bench.Problem, threads: int) -> int:
    with bench.processors(threads):
        call = prepared(contestant, problem)
        before = of_process("VmRSS")
        Path("/proc/self/clear_refs").write_text(
            "5", encoding="utf-8"
        )  # resets the high-water mark
        kept = call()
        peak = of_process("VmHWM")
        del kept
    return peak - before


def rows(run: Run) -> Iterator[Row]:
    if not run.first:
        return
    if not Path("/proc/self/clear_refs").exists():
        print("memory: this system has no /proc/self/clear_refs; left out", file=sys.stderr)
        return
    shape = run.choose((50, 2, 3, 64), (200, 32, 64, 256), (2000, 32, 64, 256))
    names = ["bptt", *(name for name, package in bench.PEERS.items() if bench.installed(package))]
    for cell in run.choose(list(bench.LAYERS), ["lstm"], list(bench.LAYERS)):
        problem = bench.Problem(cell, *shape)
        _, T, N, _, H = problem
        sizes = {}
        for name in names:
            task = json.dumps([name, list(problem), run.threads])
            command = [sys.executable, __file__, "--child", task]
            sizes[name] = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        row = {"benchmark": "memory", "threads": run.threads, **problem._asdict(), "bytes": sizes}
        row["tape"] = 4 * (1 + KEPT[cell]) * T * N * H
        # A tiny step may find all its room in pages that are there, and take nothing.
        if len(names) > 1 and all(sizes.values()):
            row["best_peer"] = min(names[1:], key=lambda name: sizes[name])
            row["ratio"] = sizes[row["best_peer"]] / sizes["bptt"]
        yield row


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        contestant, problem, threads = json.loads(sys.argv[2])
        print(measure(contestant, bench.Problem(*problem), threads))
    else:
        main(rows, __doc__)
