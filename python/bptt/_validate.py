"""The checks of what only Python knows: sizes, hyperparameters, choices, names.

Shapes, values and dtypes of arrays are checked once, in the compiled module. Every function here
returns the value in its plain type, or raises a sentence with the place, the argument, what was
expected and what came: `TypeError` for a wrong type, `ValueError` for a wrong value.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def expected(where: str, name: str, wanted: str, given: object) -> str:
    return f"{where}: {name} is {given!r} ({type(given).__name__}), expected {wanted}"


def size(where: str, name: str, value: object, minimum: int = 1) -> int:
    """An integer of at least `minimum`; a bool is none."""
    wanted = f"an integer >= {minimum}"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(expected(where, name, wanted, value))
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(expected(where, name, wanted, value)) from None
    if number < minimum:
        raise ValueError(expected(where, name, wanted, value))
    return number


def number(
    where: str, name: str, value: object, low: float, high: float = math.inf, bounds: str = "[)"
) -> float:
    """A finite number between `low` and `high`; `bounds` says which of them belong to it."""
    wanted = f"a number in {bounds[0]}{low:g}, {high:g}{bounds[1]}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(expected(where, name, wanted, value))
    plain = float(value)
    above = low <= plain if bounds[0] == "[" else low < plain
    below = plain <= high if bounds[1] == "]" else plain < high
    if not (above and below and math.isfinite(plain)):
        raise ValueError(expected(where, name, wanted, value))
    return plain


def flag(where: str, name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(expected(where, name, "True or False", value))
    return bool(value)


def choice(where: str, name: str, value: object, options: Mapping[str, T]) -> T:
    """What `options` has for `value`."""
    wanted = "one of " + ", ".join(map(repr, options))
    if not isinstance(value, str):
        raise TypeError(expected(where, name, wanted, value))
    if value not in options:
        raise ValueError(expected(where, name, wanted, value))
    return options[value]


def instance(where: str, name: str, value: object, kind: Any) -> None:
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = "an array" if kind is np.ndarray else f"a {' or '.join(k.__name__ for k in kinds)}"
        raise TypeError(f"{where}: {name} is a {type(value).__name__}, expected {wanted}")


def float_dtype(where: str, value: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError:
        raise TypeError(expected(where, "dtype", "float32 or float64", value)) from None
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"{where}: dtype is {dtype}, expected float32 or float64")
    return dtype


def random_generator(where: str, seed: object) -> np.random.Generator:
    """A generator that starts at `seed`, an integer >= 0, or anywhere where that is None."""
    return np.random.default_rng(None if seed is None else size(where, "seed", seed, minimum=0))


def load_random_state(
    where: str, name: str, random: np.random.Generator, state: Mapping[str, Any]
) -> None:
    """Brings a generator to where it stood when its `bit_generator.state` was `state`."""
    try:
        random.bit_generator.state = state
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: {name} is {state!r}, expected what a generator's state was ({error})"
        ) from None


def same_names(where: str, name: str, given: Iterable[str], wanted: Iterable[str]) -> None:
    """That both hold the same names, in whatever order."""
    given, wanted = set(given), set(wanted)
    if given != wanted:
        missing, unknown = sorted(wanted - given), sorted(given - wanted, key=str)
        parts = [f"lacks {missing}"] * bool(missing) + [f"has unknown {unknown}"] * bool(unknown)
        raise ValueError(f"{where}: {name} {' and '.join(parts)}, expected {sorted(wanted)}")


def same_kind(where: str, name: str, given: object, wanted: np.ndarray[Any, Any]) -> None:
    """That an array has another one's shape and dtype."""
    instance(where, name, given, np.ndarray)
    assert isinstance(given, np.ndarray)
    if given.dtype != wanted.dtype:
        raise TypeError(f"{where}: {name} has dtype {given.dtype}, expected {wanted.dtype}")
    if given.shape != wanted.shape:
        raise ValueError(f"{where}: {name} has shape {given.shape}, expected {wanted.shape}")


def finite_at_steps(
    where: str, name: str, given: np.ndarray[Any, Any], steps: Sequence[int]
) -> None:
    """That an array (len(steps), N, ...) is finite; the sentence tells the first step, in the order
    of `steps`, and its first sequence that is not."""
    bad = ~np.isfinite(given).reshape(*given.shape[:2], -1).all(axis=2)
    for i, n in np.argwhere(bad)[:1]:
        raise ValueError(
            f"{where}: {name} at step {steps[i]} of sequence {n} is not finite, "
            "expected finite weights, x and state"
        )


def layer_input(where: str, x: object, dtype: np.dtype[Any], features: int) -> None:
    """That an array is what a layer of that dtype takes: (..., features)."""
    if isinstance(x, np.ndarray):
        if x.dtype != dtype:
            raise TypeError(f"{where}: x has dtype {x.dtype}, expected {dtype}") from None
        if x.ndim and x.shape[-1] != features:
            wanted = f"(..., {features})"
            raise ValueError(f"{where}: x has shape {x.shape}, expected {wanted}") from None


def reads(layer: object, size: int | None, given: int | None) -> None:
    """That a layer reads as many numbers a step as it is given; None: any, not known."""
    if None not in (size, given) and size != given:
        raise ValueError(
            f"{layer!r} reads {size} numbers a step, expected {given}, which it is given"
        )


def stream(where: str, x: Any, target: Any) -> int:
    """That `x` and `target` are arrays (T, N, ...) of the same T and N. Returns T."""
    for name, value in (("x", x), ("target", target)):
        instance(where, name, value, np.ndarray)
        if value.ndim < 2:
            raise ValueError(f"{where}: {name} has shape {value.shape}, expected (T, N, ...)")
    if x.shape[:2] != target.shape[:2]:
        raise ValueError(
            f"{where}: target has shape {target.shape}, expected (T, N) = {x.shape[:2]} first"
        )
    return int(x.shape[0])


def sequences(where: str, x: Any, target: Any, last_only: bool) -> None:
    """That `x` (T, S, ...) and `target` (T, S, ...), or (S, ...) with `last_only`, fit."""
    for name, value in (("x", x), ("target", target)):
        instance(where, name, value, np.ndarray)
    if x.ndim < 2:
        raise ValueError(f"{where}: x has shape {x.shape}, expected (T, S, ...)")
    letters, wanted = ("S", x.shape[1:2]) if last_only else ("T, S", x.shape[:2])
    if target.shape[: len(wanted)] != wanted:
        raise ValueError(
            f"{where}: target has shape {target.shape}, expected ({letters}) = {wanted} first"
        )


def lengths(where: str, value: Any, T: int, N: int | None = None, minimum: int = 0) -> None:
    """That an array holds lengths (N,) of sequences of `minimum` to T steps.

    Arrays that go to the core are checked there; this is for those that stay in Python.
    """
    instance(where, "lengths", value, np.ndarray)
    if value.dtype.kind not in "iu":
        raise TypeError(f"{where}: lengths has dtype {value.dtype}, expected integers")
    if value.ndim != 1 or (N is not None and len(value) != N):
        wanted = "(N,)" if N is None else f"(N,) = ({N},)"
        raise ValueError(f"{where}: lengths has shape {value.shape}, expected {wanted}")
    for n in np.flatnonzero((value < minimum) | (value > T))[:1]:
        raise ValueError(
            f"{where}: lengths[{n}] is {value[n]}, expected {minimum} <= length <= T = {T}"
        )
