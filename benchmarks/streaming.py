"""One streaming step from Python: one sequence, one step, the state kept from call to call."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import peers
from common import Row, Run, main

import bptt
from bptt import bench


def contestants(cell: str, D: int, H: int) -> dict[str, bench.Contestant]:
    layer = bench.LAYERS[cell](D, H, seed=0)
    x = np.random.default_rng(0).standard_normal(D, np.float32)
    step, batch = bptt.Stream(layer).step, x[None]
    state: Any = None

    def by_layer() -> Any:
        nonlocal state
        y, state = layer.step(batch, state)
        return y

    found: dict[str, bench.Contestant] = {"bptt": lambda: step(x), "bptt layer.step": by_layer}
    if bench.installed("torch"):
        torch = import_module("torch")
        twin, torch_x = bench.torch_layer(layer).eval(), torch.from_numpy(x[None, None])
        torch_state = None

        def by_torch() -> Any:
            nonlocal torch_state
            with torch.inference_mode():
                y, torch_state = twin(torch_x, torch_state)
                return y

        found["PyTorch"] = by_torch
    if bench.installed("jax"):
        jax = import_module("jax")
        forward = jax.jit(bench.jax_layer(cell))
        weights, jax_x = jax.device_put((list(layer.parameters.values()), x[None, None]))
        zero = jax.device_put(np.zeros((1, H), np.float32))
        jax_state: Any = (zero, zero) if cell == "lstm" else zero

        def by_jax() -> Any:
            nonlocal jax_state
            y, jax_state = jax.block_until_ready(forward(weights, jax_x, jax_state))
            return y

        found["JAX"] = by_jax
    if peers.has_onnx():
        session = peers.onnx_session(cell, layer, threads=1)
        inputs = {"x": x[None, None], **peers.zero_state(cell, 1, H)}
        names = [name for name in inputs if name != "x"]

        def by_onnx() -> Any:
            y, *states = session.run(None, inputs)
            inputs.update(zip(names, states, strict=True))
            return y

        found["ONNX Runtime"] = by_onnx
    return found


def rows(run: Run) -> Iterator[Row]:
    if not run.first:
        return  # a step is one thread's
    for H in run.choose([3], [16, 64], [16, 32, 64, 100, 256]):
        for cell in bench.LAYERS:
            flop = 2 * bench.GATES[cell] * H * (1 + H)
            facts = {"cell": cell, "T": 1, "N": 1, "D": 1, "H": H}
            them = contestants(cell, 1, H)
            yield run.row("streaming", them, flop=flop, traffic=2 * flop, **facts)


if __name__ == "__main__":
    main(rows, __doc__)
