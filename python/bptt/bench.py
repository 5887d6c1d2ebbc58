"""`bptt bench`: one training step on this machine, beside PyTorch and JAX where they are installed.

A training step is forward and backward of one layer with the gradients of the input and of all
parameters. The contestants of a row take turns (A B C A B C ...): where the machine's speed drifts,
it drifts for all of them, and for the `sgemm` that tells what the processor can do.
"""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from bptt.layers import GRU, LSTM, RNN
from bptt.layers.base import Array
from bptt.runtime import instruction_set, num_threads

Contestant = Callable[[], Any]

LAYERS: dict[str, type[RNN] | type[LSTM] | type[GRU]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
PEERS = {"PyTorch": "torch", "JAX": "jax"}

# After a parallel region OpenMP's threads spin for a while and would take the next contestant's
# processors: it begins when they sleep.
PAUSE = 0.005
SAMPLE = 0.004  # shorter calls are repeated until they fill it
WARM = 0.02  # a call below it is preceded by an untimed one, which wakes threads and fills caches


class Timing(NamedTuple):
    """Seconds a call."""

    median: float
    lower: float  #: quartile
    upper: float  #: quartile
    samples: int


class Problem(NamedTuple):
    """One layer and its input."""

    cell: str  #: "rnn", "lstm" or "gru"
    T: int
    N: int
    D: int
    H: int

    @property
    def flop(self) -> int:
        """Of a training step's products: one forward and two backward, each 2 T N G H (D + H)."""
        return 6 * self.T * self.N * GATES[self.cell] * self.H * (self.D + self.H)

    def draw(self) -> tuple[Any, Array, Array]:
        """The layer, x and dy."""
        random = np.random.default_rng(0)
        layer = LAYERS[self.cell](self.D, self.H, seed=0)
        x = random.standard_normal((self.T, self.N, self.D), np.float32)
        return layer, x, random.standard_normal((self.T, self.N, self.H), np.float32)


def take_turns(
    contestants: Mapping[str, Contestant], seconds: float, least: int = 3
) -> dict[str, Timing]:
    """Times all of them in turns for about so many seconds, at least so many turns."""
    samples = samples_in_turns(contestants, seconds, least)
    return {name: timing(taken) for name, taken in samples.items()}


def samples_in_turns(
    contestants: Mapping[str, Contestant], seconds: float, least: int = 3
) -> dict[str, list[float]]:
    """What `take_turns` sums up: each one's seconds a call, turn after turn."""
    calls, warm = {}, {}
    for name, contestant in contestants.items():
        contestant()  # compiles, allocates
        once = math.inf
        for _ in range(2):
            if once > WARM:
                time.sleep(PAUSE)
            start = time.perf_counter()
            contestant()
            once = time.perf_counter() - start
            if once > WARM:
                break
        calls[name], warm[name] = math.ceil(SAMPLE / max(once, 1e-7)), once <= WARM
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    end = time.perf_counter() + seconds
    collecting = gc.isenabled()
    gc.disable()
    try:
        turn = 0
        while turn < least or time.perf_counter() < end:
            for name, contestant in contestants.items():
                time.sleep(PAUSE)
                if warm[name]:
                    contestant()
                count = range(calls[name])
                start = time.perf_counter()
                for _ in count:
                    contestant()
                samples[name].append((time.perf_counter() - start) / len(count))
            turn += 1
    finally:
        if collecting:
            gc.enable()
    return samples


def timing(taken: Sequence[float]) -> Timing:
    """The median and the quartiles of samples, one or more."""
    if len(taken) == 1:
        return Timing(taken[0], taken[0], taken[0], 1)
    lower, median, upper = statistics.quantiles(taken, n=4, method="inclusive")
    return Timing(median, lower, upper, len(taken))


def geometric_mean(ratios: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


# ---- peers ---------------------------------------------------------------------------------------


def installed(package: str) -> bool:
    return find_spec(package) is not None


def version_of(package: str) -> str:
    return str(import_module(package).__version__)


def torch_layer(layer: Any) -> Any:
    """The layer's twin in PyTorch, with its parameters."""
    torch = import_module("torch")
    twin = getattr(torch.nn, type(layer).__name__)(layer.input_size, layer.hidden_size)
    with torch.no_grad():
        for name, array in layer.parameters.items():
            getattr(twin, name).copy_(torch.from_numpy(array))
    return twin


def jax_layer(cell: str) -> Callable[..., Any]:
    """(weights, x) -> y: the input's product outside of the loop, the loop by `lax.scan`."""
    jax = import_module("jax")
    jnp, sigmoid = jax.numpy, jax.nn.sigmoid

    def rnn(h: Any, a: Any, W: Any, b: Any) -> Any:
        return jnp.tanh(a + b + h @ W)

    def lstm(state: Any, a: Any, W: Any, b: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(a + b + h @ W, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    def gru(h: Any, a: Any, W: Any, b: Any) -> Any:
        (a_r, a_z, a_n), (h_r, h_z, h_n) = (jnp.split(p, 3, axis=-1) for p in (a, h @ W + b))
        n = jnp.tanh(a_n + sigmoid(a_r + h_r) * h_n)
        z = sigmoid(a_z + h_z)
        return (1 - z) * n + z * h

    step = {"rnn": rnn, "lstm": lstm, "gru": gru}[cell]

    def forward(weights: Any, x: Any, state: Any = None) -> Any:
        W_ih, W_hh, b_ih, b_hh = weights
        zero = jnp.zeros((x.shape[1], W_hh.shape[1]), x.dtype)

        def one(state: Any, a: Any) -> Any:
            state = step(state, a, W_hh.T, b_hh)
            return state, state[0] if cell == "lstm" else state

        if state is None:
            state = (zero, zero) if cell == "lstm" else zero
        state, y = jax.lax.scan(one, state, x @ W_ih.T + b_ih)
        return y, state

    return forward


# ---- one training step ---------------------------------------------------------------------------


def training(problem: Problem) -> dict[str, Contestant]:
    """One training step by each that is installed; a call returns dW_hh."""
    layer, x, dy = problem.draw()

    def by_bptt() -> Any:
        _, _, tape = layer.forward(x)
        return layer.backward(tape, dy).parameters["weight_hh_l0"]

    found: dict[str, Contestant] = {"bptt": by_bptt}
    if installed("torch"):
        torch = import_module("torch")
        twin = torch_layer(layer)
        torch_x, torch_dy = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)

        def by_torch() -> Any:
            twin.zero_grad(set_to_none=True)
            torch_x.grad = None
            y, _ = twin(torch_x)
            y.backward(torch_dy)
            return twin.weight_hh_l0.grad

        found["PyTorch"] = by_torch
    if installed("jax"):
        jax = import_module("jax")
        forward = jax_layer(problem.cell)

        def loss(weights: Any, x: Any, dy: Any) -> Any:
            return (forward(weights, x)[0] * dy).sum()

        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        arguments = jax.device_put((list(layer.parameters.values()), x, dy))

        def by_jax() -> Any:
            _, (weights, _) = jax.block_until_ready(gradient(*arguments))
            return weights[1]

        found["JAX"] = by_jax
    return found


def sgemm(size: int = 1024) -> tuple[str, Contestant, int]:
    """Whose product of two square matrices it is, the product, and its FLOP."""
    a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    if installed("torch"):
        torch = import_module("torch")
        one, two, out = torch.from_numpy(a), torch.from_numpy(b), torch.empty(size, size)
        return "PyTorch", lambda: torch.mm(one, two, out=out), 2 * size**3
    to = np.empty_like(a)
    return "NumPy", lambda: np.matmul(a, b, out=to), 2 * size**3


@contextmanager
def processors(threads: int) -> Iterator[None]:
    """Within it, everybody has so many threads, and where the system can do it, processors.

    JAX counts the processors when it is first used in a process, and then stays with that.
    """
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None and len(before) > threads:
        os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        if installed("torch"):
            import_module("torch").set_num_threads(threads)
        with num_threads(threads):
            yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


SHAPES = ((100, 1, 64, 64), (100, 16, 64, 64), (100, 32, 128, 128), (100, 64, 256, 256))


def report(threads: int, seconds: float = 0.5) -> Iterator[str]:
    """The lines that `bptt bench` prints, each when it is measured."""
    with processors(threads):
        peers = {name: package for name, package in PEERS.items() if installed(package)}
        versions = [f"{name} {version_of(package)}" for name, package in peers.items()]
        number = "1 thread" if threads == 1 else f"{threads} threads"
        yield ", ".join([number, instruction_set(), *versions])
        for name in sorted(PEERS.keys() - peers.keys()):
            yield f"{name} is not installed: its column is left out"
        whose, product, product_flop = sgemm()
        yield f"one training step, float32, median ms; the last column: of the sgemm peak ({whose})"
        names = ["bptt", *peers]
        head = "".join(f"{name:>10}" for name in names)
        yield f"cell     T    N    D    H{head}{'ratio':>8}{'sgemm':>8}"
        ratios, peak, bounds = [], 0.0, []
        for shape in SHAPES:
            for cell in LAYERS:
                problem = Problem(cell, *shape)
                timings = take_turns({**training(problem), "sgemm": product}, seconds)
                own = timings["bptt"].median
                line = f"{cell:4}" + "".join(f"{size:5}" for size in shape)
                line += "".join(f"{timings[name].median * 1e3:10.3f}" for name in names)
                best = min((timings[name].median for name in peers), default=math.nan)
                rate = product_flop / timings["sgemm"].median
                ratio, share = best / own, problem.flop / own / rate
                fastest = min(timings[name].median for name in names)
                peak = max(peak, rate, problem.flop / fastest)
                ratios.append(ratio)
                bounds.append(best / problem.flop)
                yield f"{line}{ratio:8.2f}{share:8.0%}"
        if peers:
            yield (
                f"against the best of {' and '.join(peers)}: "
                f"geometric mean {geometric_mean(ratios):.2f}, least {min(ratios):.2f}"
            )
            yield (
                f"if all products ran at {peak / 1e9:.0f} GFLOP/s, the fastest seen, and all else "
                f"took no time, the mean would be {peak * geometric_mean(bounds):.2f}"
            )
