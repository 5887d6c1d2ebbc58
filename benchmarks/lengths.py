"""Sequences of different lengths, 63 % filled: one training step.

PyTorch packs them (`pack_padded_sequence`); padded, both compute all steps. JAX has nothing for it.
With lengths of 0 a call is its fixed overhead alone. What lengths cost over the valid share is a
quotient of differences: it is taken turn by turn, of many turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from common import EMPTY, Row, Run, agree, main, over_share, training_traffic

from bptt import bench


def drawn(T: int, N: int, filled: float = 0.63) -> Any:
    """Lengths, the longest first; their mean is the filled part of T."""
    random = np.random.default_rng(0)
    drawn = random.uniform(2 * filled - 1, 1, N)
    lengths = np.rint(drawn * filled / drawn.mean() * T).clip(1, T).astype(np.int64)
    lengths[0] = T
    return -np.sort(-lengths)


def contestants(problem: bench.Problem, lengths: Any) -> dict[str, bench.Contestant]:
    layer, x, dy = problem.draw()
    valid = np.arange(problem.T)[:, None] < lengths
    dy *= valid[..., None]  # a loss is zero beyond a sequence's end

    def by_bptt(lengths: Any) -> Any:
        _, _, tape = layer.forward(x, lengths=lengths)
        return layer.backward(tape, dy).parameters["weight_hh_l0"]

    found: dict[str, bench.Contestant] = {
        "bptt": lambda: by_bptt(lengths),
        "bptt padded": lambda: by_bptt(None),
        EMPTY: lambda: by_bptt(np.zeros_like(lengths)),
    }
    if bench.installed("torch"):
        torch = import_module("torch")
        pack = torch.nn.utils.rnn.pack_padded_sequence
        twin = bench.torch_layer(layer)
        torch_x, torch_dy = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)
        torch_lengths = torch.from_numpy(lengths)

        def by_torch(packed: bool) -> Any:
            twin.zero_grad(set_to_none=True)
            torch_x.grad = None
            if packed:
                y, _ = twin(pack(torch_x, torch_lengths))
                y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
            else:
                y, _ = twin(torch_x)
            y.backward(torch_dy)
            return twin.weight_hh_l0.grad

        found["PyTorch packed"] = lambda: by_torch(True)
        found["PyTorch padded"] = lambda: by_torch(False)
    return found


def rows(run: Run) -> Iterator[Row]:
    for cell in bench.LAYERS:
        shape = run.choose((5, 3, 2, 4), (50, 32, 64, 128), (200, 32, 64, 128))
        problem = bench.Problem(cell, *shape)
        lengths = drawn(problem.T, problem.N)
        filled = float(lengths.sum()) / (problem.T * problem.N)
        all_of_them = contestants(problem, lengths)
        agree({name: call for name, call in all_of_them.items() if name != EMPTY}, 1e-2)
        yield run.row(
            "lengths",
            all_of_them,
            tolerance=None,
            turns=run.choose(1, 7, 15),
            work={EMPTY: 0, "bptt padded": 1 / filled, "PyTorch padded": 1 / filled},
            per_turn={"over_share": partial(over_share, filled=filled)},
            flop=round(problem.flop * filled),
            traffic=round(training_traffic(problem) * filled),
            **problem._asdict(),
            filled=round(filled, 3),
        )


if __name__ == "__main__":
    main(rows, __doc__)
