"""Threads, forks, instruction sets and the processor's mode: what surrounds the numbers."""

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import bptt
import reference
from bptt import _core
from networks import CELLS, Network, assert_same_bits, backward, draw, forward

cells = pytest.mark.parametrize("cell", CELLS)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def python(
    program: str, timeout: float = 120, **environ: str
) -> "subprocess.CompletedProcess[str]":
    """Runs a program in a process of its own; it ends in time or the test fails."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def output(program: str, **environ: str) -> str:
    run = python(program, **environ)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.usefixtures("threads")
@cells
def test_the_same_bits_for_drawn_shapes(cell: str, rng: np.random.Generator) -> None:
    for i in range(12):
        T, N, D, H = (int(rng.integers(1, high, endpoint=True)) for high in (9, 70, 40, 150))
        dtype = (np.float32, np.float64)[i % 2]
        network = draw(cell, (T, N, D, H), rng, dtype=dtype, lengths=i % 3 == 0, biases=i % 4 > 0)
        bptt.set_num_threads(1)
        run = forward(network)
        grads = backward(network, run.tape)
        for count in (2, 3, 5, 16):
            bptt.set_num_threads(count)
            its_run = forward(network)
            assert_same_bits(its_run, run)
            assert_same_bits(backward(network, its_run.tape), grads)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layer", [bptt.RNN, bptt.LSTM, bptt.GRU])
def test_the_same_bits_without_a_tape(layer: Any, rng: np.random.Generator) -> None:
    for T, N, D, H in ((40, 1, 30, 200), (30, 40, 7, 90), (5, 3, 3, 3)):
        network = layer(D, H, seed=0)
        x = rng.standard_normal((T, N, D), np.float32)
        bptt.set_num_threads(1)
        y, _ = network.predict(x)
        for count in range(2, 17):
            bptt.set_num_threads(count)
            assert_same_bits(network.predict(x)[0], y)


def whole_update(rng: np.random.Generator) -> list[Any]:
    """Everything around the loop too: its results, and the parameters afterwards."""
    V, E, H, T, N = 211, 37, 61, 23, 31
    model = bptt.Sequential(
        bptt.Embedding(V, E, seed=0), bptt.LSTM(E, H, seed=1), bptt.Linear(H, V, seed=2)
    )
    index, target = rng.integers(0, V, (2, T, N))
    logits, _, tape = model.forward(index)
    loss, dlogits = bptt.losses.softmax_cross_entropy(logits, target)
    grads = model.backward(tape, dlogits)
    norm = bptt.optim.clip_by_global_norm(grads.parameters, 0.1)
    other = logits.astype(np.float64)
    found = [np.array([loss, norm]), logits, dlogits, *grads.parameters.values()]
    for function, its_target in (
        (bptt.losses.mse, np.sin(other)),
        (bptt.losses.binary_cross_entropy_with_logits, (other > 0).astype(np.float64)),
    ):
        value, gradient = function(other, its_target)
        found += [np.array(value), gradient]
    for optimizer in (
        bptt.optim.SGD(lr=0.1, momentum=0.9),
        bptt.optim.RMSprop(lr=0.1),
        bptt.optim.Adagrad(lr=0.1),
        bptt.optim.AdamW(lr=0.1),
    ):
        optimizer.step(model.parameters, grads.parameters)
        found += [array.copy() for array in model.parameters.values()]
    return found


@pytest.mark.usefixtures("threads")
def test_a_whole_update_has_the_same_bits() -> None:
    bptt.set_num_threads(1)
    alone = whole_update(np.random.default_rng(0))
    for count in (2, 3, 4, 7, 16):
        bptt.set_num_threads(count)
        for one, its in zip(alone, whole_update(np.random.default_rng(0)), strict=True):
            assert_same_bits(its, one)


# ---- how many threads ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "threads"),
    [("1", 1), ("3", 3), ("2,4", 2), ("99999", 1024), ("0", None), ("-2", None), ("two", None)],
)
def test_omp_num_threads_is_respected(told: str, threads: int | None) -> None:
    # What is no number of threads is ignored, as OpenMP does.
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    program = "import bptt; print(bptt.get_num_threads())"
    assert int(output(program, OMP_NUM_THREADS=told)) == (threads or expected)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("integer", [int, np.int32, np.uint8])
def test_the_number_of_threads_is_any_integer_from_1_to_1024(integer: Any) -> None:
    for count in (1, 7, 100):
        bptt.set_num_threads(integer(count))
        assert bptt.get_num_threads() == count
    bptt.set_num_threads(1024)
    assert bptt.get_num_threads() == 1024


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        (0, ValueError, "threads is 0 (int), expected an integer >= 1"),
        (-1, ValueError, "threads is -1 (int), expected an integer >= 1"),
        (1025, ValueError, "threads is 1025, expected 1 to 1024"),
        (2**40, ValueError, f"threads is {2**40}, expected 1 to 1024"),
        (2**80, ValueError, "expected 1 to 1024"),
        (-(2**80), ValueError, "expected an integer >= 1"),
        (True, TypeError, "threads is True (bool), expected an integer >= 1"),
        (np.True_, TypeError, "expected an integer >= 1"),
        (1.5, TypeError, "threads is 1.5 (float), expected an integer >= 1"),
        (2.0, TypeError, "threads is 2.0 (float), expected an integer >= 1"),
        ("2", TypeError, "threads is '2' (str), expected an integer >= 1"),
        (None, TypeError, "threads is None (NoneType), expected an integer >= 1"),
        (float("nan"), TypeError, "expected an integer >= 1"),
    ],
    ids=str,
)
def test_bad_numbers_of_threads(given: Any, error: type[Exception], sentence: str) -> None:
    bptt.set_num_threads(3)

    def for_a_block() -> None:
        with bptt.num_threads(given):
            pytest.fail("the block must not begin")

    for call in (lambda: bptt.set_num_threads(given), for_a_block):
        with pytest.raises(error, match=f"^set_num_threads: .*{re.escape(sentence)}") as caught:
            call()
        assert caught.type is error
        assert bptt.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
def test_a_block_has_its_number_of_threads() -> None:
    bptt.set_num_threads(3)
    with bptt.num_threads(2):
        assert bptt.get_num_threads() == 2
        with bptt.num_threads(5):
            assert bptt.get_num_threads() == 5
        assert bptt.get_num_threads() == 2
    assert bptt.get_num_threads() == 3
    with pytest.raises(KeyError), bptt.num_threads(7):
        raise KeyError
    assert bptt.get_num_threads() == 3


# ---- instruction sets ----------------------------------------------------------------------------

SETS = ("baseline", "x86-64-v3", "x86-64-v4")


def test_the_best_set_is_chosen() -> None:
    supported = bptt.runtime.supported_instruction_sets()
    assert supported[0] == "baseline"
    assert [s for s in SETS if s in supported] == supported  # from the least to the most capable
    program = "import bptt; print(bptt.runtime.instruction_set())"
    assert output(program, BPTT_INSTRUCTION_SET="") == supported[-1]


@pytest.mark.parametrize("name", bptt.runtime.supported_instruction_sets())
def test_a_set_can_be_forced(name: str) -> None:
    program = "import bptt; print(bptt.runtime.instruction_set())"
    assert output(program, BPTT_INSTRUCTION_SET=name) == name


def refused(name: str) -> str:
    run = python("import bptt", BPTT_INSTRUCTION_SET=name)
    assert run.returncode == 1
    return run.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["avx512", "X86-64-V3", " ", "x86-64-v3,baseline"])
def test_an_unknown_set_is_an_error_at_import(name: str) -> None:
    assert refused(name).startswith(
        f'ImportError: bptt: BPTT_INSTRUCTION_SET is "{name}", expected one of baseline'
    )


def test_a_set_that_the_processor_lacks_is_an_error_at_import() -> None:
    compiled = refused("none").partition("expected one of ")[2].split(", ")
    lacking = set(compiled) - set(bptt.runtime.supported_instruction_sets())
    for name in lacking:
        assert refused(name) == (
            f'ImportError: bptt: BPTT_INSTRUCTION_SET is "{name}", '
            "which this processor does not have"
        )
    if not lacking:
        pytest.skip("this processor has all the sets that were compiled")


# ---- several callers -----------------------------------------------------------------------------


def training_bits(network: Network) -> bytes:
    run = forward(network)
    grads = backward(network, run.tape)
    return bytes(run.y.tobytes() + grads.x.tobytes() + grads.weight_hh.tobytes())


@pytest.mark.usefixtures("threads")
def test_many_callers_at_once(rng: np.random.Generator) -> None:
    bptt.set_num_threads(3)
    networks = [draw(cell, (15, 24, 20, 70), rng, dtype=np.float32) for cell in CELLS]
    alone = [training_bits(network) for network in networks]
    update = whole_update(np.random.default_rng(0))
    failures: list[str] = []
    start = threading.Barrier(6)

    def call(number: int) -> None:
        start.wait()
        for i in range(12):
            which = (number + i) % len(networks)
            if training_bits(networks[which]) != alone[which]:
                failures.append(networks[which].cell)
        its = whole_update(np.random.default_rng(0))
        if any(a.tobytes() != b.tobytes() for a, b in zip(its, update, strict=True)):
            failures.append("update")

    callers = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
    assert not any(caller.is_alive() for caller in callers)
    assert not failures


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_may_change_under_a_call(rng: np.random.Generator) -> None:
    network = draw("lstm", (15, 24, 20, 70), rng)
    alone = training_bits(network)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(training_bits, network) for _ in range(40)]
        for count in range(200):
            bptt.set_num_threads(1 + count % 4)
        assert all(run.result(timeout=120) == alone for run in runs)


# ---- forks ---------------------------------------------------------------------------------------

PREPARE = """
import multiprocessing, os, sys, threading
import numpy as np
import bptt

random = np.random.default_rng(0)
layers = [kind(32, 96, seed=0) for kind in (bptt.RNN, bptt.LSTM)]
layers.append(bptt.GRU(32, 96, num_layers=3, seed=0))  # of one sequence: layers side by side
x = random.standard_normal((80, 40, 32), np.float32)

def bits(i):
    its_x = x[:20] if i < 2 else x[:, :1].copy()
    y, _, tape = layers[i].forward(its_x)
    grads = layers[i].backward(tape, np.ones_like(y))
    return y.tobytes() + b"".join(a.tobytes() for a in grads.parameters.values())

def child_agrees():
    child = os.fork()
    if child == 0:
        os._exit(0 if [bits(i) for i in range(3)] == alone else 1)
    return os.waitpid(child, 0)[1] == 0

alone = [bits(i) for i in range(3)]  # by several threads, which no fork copies
"""


@needs_fork
def test_a_pool_of_forked_workers() -> None:
    program = """
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert pool.map(bits, [0, 1, 2] * 4) == alone * 4
assert [bits(i) for i in range(3)] == alone
"""
    output(PREPARE + program, OMP_NUM_THREADS="3")


@needs_fork
def test_a_fork_of_a_fork_and_a_fork_in_a_thread() -> None:
    program = """
child = os.fork()
if child == 0:
    os._exit(0 if child_agrees() else 1)
assert os.waitpid(child, 0)[1] == 0
agreed = []
thread = threading.Thread(target=lambda: agreed.append(child_agrees()))
thread.start()
thread.join()
assert agreed == [True]
"""
    output(PREPARE + program, OMP_NUM_THREADS="3")


@needs_fork
def test_forks_while_another_thread_computes() -> None:
    # Small calls ask for memory all the time: a fork must not copy that lock while it is held.
    program = """
small = x[:1, :1]
stop = threading.Event()
def compute():
    while not stop.is_set():
        for _ in range(50):
            bptt.losses.mse(small, small)
thread = threading.Thread(target=compute)
thread.start()
try:
    assert child_agrees()
    for _ in range(400):
        child = os.fork()
        if child == 0:
            bptt.losses.mse(small, small)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
finally:
    stop.set()
    thread.join()
"""
    output(PREPARE + program, OMP_NUM_THREADS="2")


# ---- numbers that are not ordinary ---------------------------------------------------------------


def smallest(dtype: Any) -> float:
    return float(np.finfo(dtype).tiny)


def denormals_work(dtype: Any) -> bool:
    """Whether NumPy, in this thread, still computes with denormal numbers."""
    half = np.full(64, smallest(dtype), dtype) * dtype(0.5)
    return bool((half > 0).all() and (half + half == smallest(dtype)).all())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.usefixtures("threads")
@cells
def test_denormals_are_what_arithmetic_says_or_zero(
    cell: str, count: int, dtype: Any, rng: np.random.Generator
) -> None:
    bptt.set_num_threads(count)
    assert denormals_work(dtype)
    small = dtype(smallest(dtype) / 50)
    network = draw(cell, (8, 20, 17, 70), rng, dtype=dtype, biases=False)
    for name in ("x", "h", "c", "dy", "dh", "dc"):
        array = getattr(network, name)
        if array is not None:
            array *= small
    run = forward(network)
    grads = backward(network, run.tape)
    assert denormals_work(dtype), "the caller's floating-point mode is not what it was"
    wide = network.astype(np.float64) if dtype is np.float32 else network
    y, _, _, tape = reference.forward(cell, wide.x, wide.weights, wide.h, wide.c)
    expected = reference.backward(tape, wide.dy, wide.dh, wide.dc)
    # Each of some hundred terms that was flushed took less than the smallest normal number.
    allowed = 500 * smallest(dtype)
    assert np.abs(run.y - y).max() <= allowed
    assert np.abs(grads.x - expected.x).max() <= allowed
    assert np.abs(grads.h - expected.h).max() <= allowed
    assert np.isfinite(grads.weight_hh).all()


@pytest.mark.usefixtures("threads")
def test_the_floating_point_mode_comes_back_everywhere(rng: np.random.Generator) -> None:
    bptt.set_num_threads(2)
    stream = bptt.Stream(bptt.GRU(3, 20, seed=0))
    whole_update(rng)
    stream.step(np.full(3, 1e-39, np.float32))
    bptt.LSTM(3, 20, seed=0).predict(np.full((4, 5, 3), 1e-39, np.float32))
    with pytest.raises(ValueError, match="expected"):
        bptt.LSTM(3, 20, seed=0).predict(np.zeros((4, 5, 2), np.float32))
    assert denormals_work(np.float32)
    assert denormals_work(np.float64)
    assert np.float32(1e-40) * np.float32(1) != 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@cells
def test_what_is_not_finite_stays_in_its_sequence(
    cell: str, value: float, rng: np.random.Generator
) -> None:
    network = draw(cell, (7, 19, 5, 21), rng)
    run = forward(network)
    grads = backward(network, run.tape)
    bad = network.but(x=network.x.copy(), dy=network.dy.copy())
    assert bad.dy is not None
    bad.x[3, 4, 2] = value
    bad.dy[5, 11] = value
    its_run = forward(bad)
    its_grads = backward(bad, its_run.tape)
    assert_same_bits(its_run.y[:3], run.y[:3])  # what was before it
    others = np.delete(np.arange(19), 4)
    assert_same_bits(its_run.y[:, others], run.y[:, others])
    assert_same_bits(its_run.h[others], run.h[others])
    if np.isnan(value) and cell != "rnn_relu":
        assert np.isnan(its_run.y[3:, 4]).all()
        assert np.isnan(its_grads.weight_hh).any()
    others = np.delete(np.arange(19), [4, 11])
    assert_same_bits(its_grads.x[:, others], grads.x[:, others])
    assert_same_bits(its_grads.h[others], grads.h[others])
    assert not np.isfinite(its_grads.x[5, 11]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@cells
def test_what_is_not_finite_is_what_the_reference_says(
    cell: str, value: float, rng: np.random.Generator
) -> None:
    network = draw(cell, (5, 3, 4, 19), rng)
    network.x[2, 1, 3] = value
    assert network.dy is not None
    network.dy[3, 2, 7] = value
    run = forward(network)
    grads = backward(network, run.tape)
    with np.errstate(all="ignore"):
        y, h, _, tape = reference.forward(cell, network.x, network.weights, network.h, network.c)
        expected = reference.backward(tape, network.dy, network.dh, network.dc)
    for actual, wanted in ((run.y, y), (run.h, h), (grads.x, expected.x), (grads.h, expected.h)):
        np.testing.assert_allclose(actual, wanted, rtol=1e-11, atol=1e-12)


def test_the_core_knows_its_sets() -> None:
    assert _core.instruction_set() in _core.supported_instruction_sets()
