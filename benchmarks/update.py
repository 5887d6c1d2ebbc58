"""A whole update of the character model: forward, loss, backward, clipping, Adam.

V 103 characters, embedding 64, hidden 256, N 32, T 64, clip 1.0, Adam 2e-3, as `bptt train` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from common import KEPT, Row, Run, main

import bptt
from bptt import bench

LR, CLIP = 2e-3, 1.0


class Sizes(NamedTuple):
    T: int = 64
    N: int = 32
    V: int = 103
    E: int = 64
    H: int = 256


def contestants(cell: str, sizes: Sizes) -> dict[str, bench.Contestant]:
    """A call is one update and returns the loss before it."""
    T, N, V, E, H = sizes
    random = np.random.default_rng(0)
    x, target = random.integers(0, V, (2, T, N))
    recurrent = bench.LAYERS[cell](E, H, seed=1)
    layers = bptt.Embedding(V, E, seed=0), recurrent, bptt.Linear(H, V, seed=2)
    model, optimizer = bptt.Sequential(*layers), bptt.optim.Adam(lr=LR)
    initial = {name: array.copy() for name, array in model.parameters.items()}

    def by_bptt() -> Any:
        y, _, tape = model.forward(x)
        loss, dy = bptt.losses.softmax_cross_entropy(y, target)
        grads = model.backward(tape, dy)
        bptt.optim.clip_by_global_norm(grads.parameters, CLIP)
        optimizer.step(model.parameters, grads.parameters)
        return loss

    found: dict[str, bench.Contestant] = {"bptt": by_bptt}
    if bench.installed("torch"):
        found["PyTorch"] = by_torch(layers, initial, x, target, fused=False)
        found["PyTorch, fused Adam"] = by_torch(layers, initial, x, target, fused=True)
    if bench.installed("jax"):
        found["JAX"] = by_jax(cell, list(initial.values()), x, target)
    return found


def by_torch(layers: Any, initial: Any, x: Any, target: Any, fused: bool) -> bench.Contestant:
    torch = import_module("torch")
    embedding, recurrent, linear = layers
    modules = torch.nn.ModuleList(
        [
            torch.nn.Embedding(*embedding.parameters["weight"].shape),
            bench.torch_layer(recurrent),
            torch.nn.Linear(*linear.parameters["weight"].shape[::-1]),
        ]
    )
    modules.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in initial.items()})
    first, middle, last = modules
    parameters = list(modules.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LR, fused=fused)
    index, wanted = torch.from_numpy(x), torch.from_numpy(target).flatten()

    def update() -> Any:
        optimizer.zero_grad(set_to_none=True)
        y, _ = middle(first(index))
        loss = torch.nn.functional.cross_entropy(last(y).flatten(0, 1), wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        return loss

    return update


def by_jax(cell: str, initial: Any, x: Any, target: Any) -> bench.Contestant:
    """All of it in one compiled function that may reuse its arguments' memory."""
    jax = import_module("jax")
    jnp, tree = jax.numpy, jax.tree_util.tree_map
    recurrent = bench.jax_layer(cell)

    def loss_of(p: Any, x: Any, target: Any) -> Any:
        logits = recurrent(p[1:5], p[0][x])[0] @ p[5].T + p[6]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], axis=-1)
        return -chosen.mean()

    def update(p: Any, m: Any, v: Any, t: Any, x: Any, target: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, target)
        norm = jnp.sqrt(sum((a * a).sum() for a in g))
        g = tree(lambda a: a * jnp.minimum(1.0, CLIP / (norm + 1e-6)), g)
        m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        one, two, t = 1 - 0.9**t, 1 - 0.999**t, t + 1
        p = tree(lambda p, m, v: p - LR * (m / one) / (jnp.sqrt(v / two) + 1e-8), p, m, v)
        return loss, p, m, v, t

    compiled = jax.jit(update, donate_argnums=(0, 1, 2, 3))
    zeros = [np.zeros_like(a) for a in initial]
    state = jax.device_put((initial, zeros, [a.copy() for a in zeros], np.float32(1)))
    x, target = jax.device_put((x.astype(np.int32), target.astype(np.int32)))

    def call() -> Any:
        nonlocal state
        loss, *state = jax.block_until_ready(compiled(*state, x, target))
        return loss

    return call


def rows(run: Run) -> Iterator[Row]:
    sizes = run.choose(Sizes(4, 2, 11, 3, 5), Sizes(), Sizes())
    T, N, V, E, H = sizes
    for cell in bench.LAYERS:
        G = bench.GATES[cell]
        parameters = V * E + G * H * (E + H + 2) + V * (H + 1)
        # Each array once a pass, as in common.training_traffic; logits and their gradient; and the
        # parameters, their gradients and Adam's two moments, read and written.
        numbers = T * N * (5 * E + (7 + 2 * KEPT[cell] + 2 * G) * H + 4 * V) + 9 * parameters
        yield run.row(
            "update",
            contestants(cell, sizes),
            flop=6 * T * N * (G * H * (E + H) + H * V),
            traffic=4 * numbers,
            turns=run.choose(1, 3, 9),
            cell=cell,
            **sizes._asdict(),
        )


if __name__ == "__main__":
    main(rows, __doc__)
