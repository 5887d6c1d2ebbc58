"""A training step as T, N, H and the number of threads grow.

The time is told of one step of one sequence. PyTorch is beside it for N and H; for 100,000 steps it
and JAX would take minutes. Beside a call of many steps stands one of few, in the same turns: what a
step takes there beyond what it takes here is the call's own. Beside a call on several threads stand
as many calls at once, each on one thread: they have nothing to do with each other, so what they
gain is what the machine gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from common import Row, Run, main, training_traffic, works

import bptt
from bptt import bench


def rows(run: Run) -> Iterator[Row]:
    for along, problem in problems(run):
        if along == "T":
            contestants = {"bptt": alone(problem), FEW: alone(problem._replace(T=FEW_STEPS))}
        else:
            contestants = bench.training(problem)
            contestants.pop("JAX", None)
        yield row(run, along, problem, contestants)
    if run.threads > 1:
        # All numbers of threads in the same turns.
        most = [(100, 16, 64, 64), (100, 32, 128, 128), (100, 64, 256, 256)]
        for shape in run.choose([(3, 2, 3, 4)], [(50, 16, 64, 64)], most):
            for cell in bench.LAYERS:
                problem = bench.Problem(cell, *shape)
                call = alone(problem)
                powers = {2**i for i in range(run.threads.bit_length())}
                counts = sorted(powers | {run.threads}, reverse=True)
                contestants = {f"bptt {n} threads": with_threads(call, n) for n in counts}
                contestants[APART] = apart(call, run.threads)
                yield row(run, "threads", problem, contestants)


def problems(run: Run) -> Iterator[tuple[str, bench.Problem]]:
    cells = run.choose(["lstm"], ["lstm"], list(bench.LAYERS))
    for cell in cells:
        for N, D, H in run.choose([(1, 2, 3)], [(1, 32, 64)], [(1, 32, 64), (16, 32, 32)]):
            for T in run.choose([2, 4], [100, 1000, 10_000], [100, 1000, 10_000, 100_000]):
                yield "T", bench.Problem(cell, T, N, D, H)
        for N in run.choose([1, 2], [1, 16, 64], [1, 4, 16, 64, 256]):
            yield "N", bench.Problem(cell, run.choose(2, 50, 50), N, 64, 128)
        for H in run.choose([2, 3], [16, 128], [16, 64, 100, 256, 512]):
            yield "H", bench.Problem(cell, run.choose(2, 50, 50), 32, H, H)


def alone(problem: bench.Problem) -> bench.Contestant:
    layer, x, dy = problem.draw()

    def call() -> Any:
        _, _, tape = layer.forward(x)
        return layer.backward(tape, dy).parameters["weight_hh_l0"]

    return call


def with_threads(call: bench.Contestant, count: int) -> bench.Contestant:
    def limited() -> Any:
        with bptt.num_threads(count):
            return call()

    return limited


FEW_STEPS = 100
FEW = f"bptt, {FEW_STEPS} steps"
APART = "bptt, calls apart"
IN_A_ROW = 10  # of them, so that starting them does not count


def apart(call: bench.Contestant, count: int) -> bench.Contestant:
    """Calls in a row on each of so many threads, all of them at once, each call on one thread."""
    pool = ThreadPoolExecutor(count)

    def several() -> Any:
        for _ in range(IN_A_ROW - 1):
            call()
        return call()

    def at_once() -> Any:
        with bptt.num_threads(1):
            found = [pool.submit(several) for _ in range(count)]
            return [future.result() for future in found][-1]

    return at_once


def row(run: Run, along: str, problem: bench.Problem, contestants: dict[str, Any]) -> Row:
    flop, traffic = problem.flop, training_traffic(problem)
    facts = problem._asdict()
    found = run.row(
        "scaling",
        contestants,
        flop=flop,
        traffic=traffic,
        tolerance=None if FEW in contestants else 1e-2,
        work={FEW: FEW_STEPS / problem.T, APART: run.threads * IN_A_ROW},
        along=along,
        **facts,
    )
    found["us_a_step_and_sequence"] = {
        name: 1e6 * found["times"][name]["median"] / (done * problem.T * problem.N)
        for name, done in works(found)
    }
    return found


if __name__ == "__main__":
    main(rows, __doc__)
