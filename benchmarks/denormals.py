"""One training step on inputs too small to be normal numbers, beside one on ordinary inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from common import Row, Run, main, training_traffic

from bptt import bench


def rows(run: Run) -> Iterator[Row]:
    for cell in bench.LAYERS:
        some = [(100, 16, 64, 64)]
        for shape in run.choose([(3, 2, 3, 4)], some, [*some, (100, 1, 64, 64)]):
            problem = bench.Problem(cell, *shape)
            layer, x, dy = problem.draw()
            for name in ("bias_ih_l0", "bias_hh_l0"):
                layer.parameters[name][...] = 0  # so that the states stay as small
            small = np.float32(1e-39)

            def step(x: Any, dy: Any, layer: Any = layer) -> Any:
                _, _, tape = layer.forward(x)
                return layer.backward(tape, dy)

            tiny_x, tiny_dy = x * small, dy * small
            row = run.row(
                "denormals",
                {
                    "bptt": lambda step=step, x=tiny_x, dy=tiny_dy: step(x, dy),
                    "bptt, ordinary inputs": lambda step=step, x=x, dy=dy: step(x, dy),
                },
                flop=problem.flop,
                traffic=training_traffic(problem),
                tolerance=None,
                **problem._asdict(),
            )
            times = [timing["median"] for timing in row["times"].values()]
            yield row | {"slower": round(times[0] / times[1], 2)}


if __name__ == "__main__":
    main(rows, __doc__)
