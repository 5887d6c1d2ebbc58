"""A trained network as a dynamical system: what one step, and many, make of a small difference.

States are taken whole, as one vector of S numbers a sequence: h, for the LSTM h and then c; in a
stack or a chain those of all layers, one after the other. All Jacobians come from the core's own
backward: it multiplies a gradient by the transposed Jacobian, so rows of the identity give the
Jacobian's rows, as rows of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate, states
from bptt.layers import Layer, Sequential
from bptt.layers.base import State

__all__ = ["Lyapunov", "jacobians", "lyapunov", "singular_values"]

Array: TypeAlias = NDArray[Any]

_ROWS = 4096  # of a batch at most: bounds the memory


class Lyapunov(NamedTuple):
    """What `lyapunov` returns."""

    exponents: Array  #: (N, K) per step, largest first; -inf where a direction is forgotten whole
    growth: Array  #: (T+1, N) logarithm of the gradient's size at steps T, T-1, ..., 0; starts at 0

    def warnings(self, factor: float = 1e6) -> list[str]:
        """Sentences, where a gradient handed back from the last step gets `factor` times smaller
        or larger: how it is called, at which step, in which sequence first. None: no sentences.

        Args:
            factor: > 1.
        """
        return list(self.verdicts(factor).values())

    def verdicts(self, factor: float = 1e6) -> dict[str, str]:
        """The sentences of `warnings` by what gradients do: "vanish", "explode", or neither."""
        factor = _validate.number("Lyapunov.warnings", "factor", factor, 1.0, bounds="()")
        limit = float(np.log(factor))
        T, sentences = len(self.growth) - 1, {}
        for verb, what, beyond in (
            ("vanish", "smaller", self.growth < -limit),
            ("explode", "larger", self.growth > limit),
        ):
            if beyond.any():
                back = int(np.argmax(beyond.any(axis=1)))
                n = int(np.argmax(beyond[back]))
                sentences[verb] = (
                    f"gradients {verb}: handed back from step {T}, "
                    f"they are {factor:g} times {what} at step {T - back}, "
                    f"{back} steps earlier (sequence {n}; "
                    f"largest Lyapunov exponent {self.exponents[n, 0]:+.3g} per step)"
                )
        return sentences


def jacobians(
    model: Layer, x: Array, state: State = None, steps: Sequence[int] | None = None
) -> Array:
    """The Jacobians d state_t / d state_{t-1}: how the state after step t depends on that before.

    Args:
        model: a recurrent layer, a stack, or a `Sequential` with at least one.
        x: (T, N, ...), the model's input.
        state: before the first step; None is what the model begins with: zero, or what it learned.
        steps: which t, in 0..T-1; None is all of them.

    Returns:
        (len(steps), N, S, S): element [i, n, a, b] is d state_t[a] / d state_{t-1}[b] of sequence n
        at t = steps[i].
    """
    where = "dynamics.jacobians"
    trunk, T, N = _checked(where, model, x)
    chosen = list(range(T)) if steps is None else [_step(where, t, T) for t in steps]
    wanted = set(chosen)
    found: dict[int, Array] = {}
    state = states.run(trunk, x[:0], state)  # as it is given, or as the model begins
    S = _size(state)
    identity = np.broadcast_to(np.eye(S, dtype=_dtype(state)), (N, S, S))
    for t in range(max(chosen, default=-1) + 1):
        if t in wanted:
            found[t] = _hand_back(trunk, x[t : t + 1], state, identity)
        state = states.run(trunk, x[t : t + 1], state)
    return np.stack([found[t] for t in chosen]) if chosen else identity[None][:0]


def singular_values(
    model: Layer, x: Array, state: State = None, steps: Sequence[int] | None = None
) -> Array:
    """The singular values of `jacobians`, (len(steps), N, S), largest first: by which factors one
    step stretches what is handed back through it.

    Raises:
        ValueError: as `jacobians`, and for a Jacobian that is not finite, with its step.
    """
    matrices = jacobians(model, x, state, steps)
    chosen = range(len(x)) if steps is None else steps
    _validate.finite_at_steps("dynamics.singular_values", "the Jacobian", matrices, chosen)
    found: Array = np.linalg.svd(matrices, compute_uv=False)
    return found


def lyapunov(
    model: Layer,
    x: Array,
    state: State = None,
    count: int | None = None,
    skip: int = 0,
    seed: int = 0,
) -> Lyapunov:
    """Lyapunov exponents along a sequence, by repeated QR decompositions (Benettin et al. 1980; for
    recurrent networks: Vogt et al. 2020; Engelken et al. 2023).

    `count` gradients are handed back from the last step to the first and made orthogonal after each
    step: the means of the logarithms of what QR takes out of them are the exponents. The products
    of transposed Jacobians have the singular values of the products that go forward in time, so
    the exponents are the same, and this is what gradients meet. The largest one says by which
    factor, exp(exponent) a step, gradients vanish or explode.

    Args:
        model: a recurrent layer, a stack, or a `Sequential` with at least one.
        x: (T, N, ...), T >= 1.
        state: before the first step; None is what the model begins with: zero, or what it learned.
        count: how many exponents K, the largest ones, 1 <= K <= S; None is all S.
        skip: steps at the end whose factors are left out of the mean while directions settle, in
            0..T-1.
        seed: of the random directions to begin with.

    Raises:
        ValueError: for what is out of range, and for a gradient that is not finite, with the step
            that handed it back.
    """
    where = "dynamics.lyapunov"
    trunk, T, N = _checked(where, model, x)
    if T == 0:
        raise ValueError(f"{where}: x has shape {x.shape}, expected T >= 1 steps")
    skip = _validate.size(where, "skip", skip, minimum=0)
    if skip >= T:
        raise ValueError(f"{where}: skip is {skip}, expected less than T = {T}")
    random = _validate.random_generator(where, _validate.size(where, "seed", seed, minimum=0))
    before = [states.run(trunk, x[:0], state)]  # as it is given, or as the model begins
    S = _size(before[0])
    K = S if count is None else _validate.size(where, "count", count)
    if K > S:
        raise ValueError(f"{where}: count is {K}, expected at most S = {S} numbers of a state")
    for t in range(T - 1):
        before.append(states.run(trunk, x[t : t + 1], before[-1]))

    drawn = np.linalg.qr(random.standard_normal((N, S, K)))[0]
    rows = np.ascontiguousarray(np.swapaxes(drawn, 1, 2)).astype(_dtype(before[0]))
    sums = np.zeros((N, K))
    growth = np.zeros((T + 1, N))
    for back, t in enumerate(reversed(range(T))):
        handed = _hand_back(trunk, x[t : t + 1], before.pop(), rows)
        _validate.finite_at_steps(where, "the gradient handed back", handed[None], [t])
        q, r = np.linalg.qr(np.swapaxes(handed.astype(np.float64), 1, 2))
        with np.errstate(divide="ignore"):
            logarithms = np.log(np.abs(np.diagonal(r, axis1=1, axis2=2)))
        growth[back + 1] = growth[back] + logarithms[:, 0]
        if back >= skip:
            sums += logarithms
        rows = np.ascontiguousarray(np.swapaxes(q, 1, 2)).astype(rows.dtype)
    exponents = -np.sort(-sums / (T - skip), axis=1)
    return Lyapunov(exponents, growth)


def _checked(where: str, model: object, x: Any) -> tuple[Layer, int, int]:
    """The part of the model that has a state, T and N."""
    _validate.instance(where, "model", model, Layer)
    assert isinstance(model, Layer)
    states.refuse_bidirectional(where, model)
    layers = states.trunk(model)
    if not layers:
        raise ValueError(f"{where}: {model!r} has no state, expected a recurrent layer in it")
    _validate.instance(where, "x", x, np.ndarray)
    if x.ndim < 2:
        raise ValueError(f"{where}: x has shape {x.shape}, expected (T, N, ...)")
    return (Sequential(*layers) if isinstance(model, Sequential) else model), len(x), x.shape[1]


def _step(where: str, t: object, T: int) -> int:
    t = _validate.size(where, "a step", t, minimum=0)
    if t >= T:
        raise ValueError(f"{where}: a step is {t}, expected 0..T-1 with T = {T}")
    return t


def _size(state: State) -> int:
    return sum(leaf.shape[0] * leaf.shape[2] for leaf in states.leaves(state))


def _dtype(state: State) -> Any:
    return next(states.leaves(state)).dtype


def _hand_back(trunk: Layer, x_t: Array, state: State, rows: Array) -> Array:
    """(N, K, S) gradients with respect to the state after a step, made into those before it."""
    N, K, _ = rows.shape
    result = np.empty_like(rows)
    each = max(1, _ROWS // max(K, 1))
    for first in range(0, N, each):
        part = slice(first, min(first + each, N))
        repeated = states.mapped(lambda a: np.repeat(a[:, part], K, axis=1), state)  # noqa: B023
        _, _, tape = trunk.forward(np.repeat(x_t[:, part], K, axis=1), repeated, training=False)
        flat = np.ascontiguousarray(rows[part]).reshape(-1, rows.shape[2])
        found = trunk.backward(tape, None, _as_state(flat, repeated))
        result[part] = _as_rows(found.state).reshape(result[part].shape)
    return result


def _as_rows(state: State) -> Array:
    """(rows, S) of a state whose batch is those rows: arrays one after the other, layers within."""
    return np.concatenate(
        [leaf.swapaxes(0, 1).reshape(leaf.shape[1], -1) for leaf in states.leaves(state)], axis=1
    )


def _as_state(rows: Array, like: State) -> State:
    """The inverse of `_as_rows`."""
    offset = 0

    def take(leaf: Array) -> Array:
        nonlocal offset
        layers, _, H = leaf.shape
        part = rows[:, offset : offset + layers * H].reshape(-1, layers, H)
        offset += layers * H
        return np.ascontiguousarray(part.swapaxes(0, 1))

    return states.mapped(take, like)
