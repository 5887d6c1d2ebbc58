"""bptt and PyTorch in one process, which both have threads of their own."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import bench

torch = pytest.importorskip("torch")

PROBLEM = bench.Problem("lstm", 12, 24, 20, 70)


def bits(call: Any) -> bytes:
    return bytes(np.asarray(call()).tobytes())


@pytest.fixture
def pair() -> Any:
    """A training step by each."""
    contestants = bench.training(PROBLEM)
    return contestants["bptt"], contestants["PyTorch"]


@pytest.mark.usefixtures("threads")
def test_neither_changes_the_others_numbers_or_threads(pair: Any) -> None:
    by_bptt, by_torch = pair
    before = torch.get_num_threads()
    bptt.set_num_threads(2)
    torch.set_num_threads(2)
    try:
        expected = bits(by_bptt), bits(by_torch)
        for _ in range(10):
            assert (bits(by_bptt), bits(by_torch)) == expected
        bptt.set_num_threads(3)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert bptt.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_both_at_once(pair: Any) -> None:
    by_bptt, by_torch = pair
    bptt.set_num_threads(2)
    expected = bits(by_bptt), bits(by_torch)

    def repeat(call: Any) -> set[bytes]:
        return {bits(call) for _ in range(8)}

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(repeat, call) for call in (by_bptt, by_torch)]
        assert [run.result(timeout=120) for run in runs] == [{one} for one in expected]


@pytest.mark.parametrize("order", ["import bptt, torch", "import torch, bptt"])
def test_the_order_of_imports_does_not_matter(order: str) -> None:
    program = f"""{order}
import numpy as np
x = np.ones((30, 40, 32), np.float32)
layer = bptt.GRU(32, 64, seed=0)
for _ in range(3):
    y, state, tape = layer.forward(x)
    layer.backward(tape, y)
    a = torch.nn.GRU(32, 64)(torch.from_numpy(x))[0]
    (a.sum() + (torch.ones(300, 300) @ torch.ones(300, 300)).sum()).backward()
print(float(y.sum()))
"""
    environ = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    y, _ = bptt.GRU(32, 64, seed=0).predict(np.ones((30, 40, 32), np.float32))
    assert float(run.stdout) == float(y.sum())
