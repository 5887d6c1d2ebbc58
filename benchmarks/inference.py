"""Inference: all steps of one layer, forward only.

Each contestant may make beforehand what can be made of the weights: bptt's layer is frozen, as ONNX
Runtime has a session and JAX a compiled function.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import peers
from common import Row, Run, inference_traffic, main
from training import layer_rows

from bptt import bench


def contestants(problem: bench.Problem, threads: int) -> dict[str, bench.Contestant]:
    layer, x, _ = problem.draw()
    frozen = layer.freeze()
    found: dict[str, bench.Contestant] = {"bptt": lambda: frozen.predict(x)[0]}
    if bench.installed("torch"):
        torch = import_module("torch")
        twin, torch_x = bench.torch_layer(layer).eval(), torch.from_numpy(x)

        def by_torch() -> Any:
            with torch.inference_mode():
                return twin(torch_x)[0]

        found["PyTorch"] = by_torch
    if bench.installed("jax"):
        jax = import_module("jax")
        forward = jax.jit(bench.jax_layer(problem.cell))
        arguments = jax.device_put((list(layer.parameters.values()), x))
        found["JAX"] = lambda: jax.block_until_ready(forward(*arguments))[0]
    if peers.has_onnx():
        session = peers.onnx_session(problem.cell, layer, threads)
        inputs = {"x": x, **peers.zero_state(problem.cell, problem.N, problem.H)}
        found["ONNX Runtime"] = lambda: session.run(None, inputs)[0]
    return found


def rows(run: Run) -> Iterator[Row]:
    yield from layer_rows(
        run,
        "inference",
        lambda problem: contestants(problem, run.threads),
        lambda problem: problem.flop // 3,
        inference_traffic,
    )


if __name__ == "__main__":
    main(rows, __doc__)
