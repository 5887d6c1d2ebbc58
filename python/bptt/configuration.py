"""What a run's parts were made with: a saved run is not for parts that were made otherwise."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from bptt.layers import Layer

__all__ = ["configuration", "require_same"]

_ABSENT = object()


def configuration(name: str, part: object) -> dict[str, Any]:
    """{name: what the part is, name.argument: what it was made with, ...}, as JSON can hold it.

    A number, a string, a flag or None is itself, an array its shape, dtype and checksum, a function
    its name. Of any other object it is the class's name and, for each argument of the constructor,
    the attribute of that name; an argument that is not kept, as a seed, does not appear.
    """
    if isinstance(part, np.generic):
        part = part.item()
    if part is None or isinstance(part, (bool, int, float, str)):
        return {name: part}
    if isinstance(part, np.dtype):
        return {name: part.name}
    if isinstance(part, np.ndarray):
        checksum = 0 if part.dtype.hasobject else zlib.crc32(part.tobytes())
        return {name: f"array {part.shape} of {part.dtype}, checksum {checksum:08x}"}
    if isinstance(part, (list, tuple)):
        return _merged((f"{name}[{i}]", entry) for i, entry in enumerate(part))
    if isinstance(part, partial):
        options = {f"{name}.{key}": value for key, value in part.keywords.items()}
        return configuration(name, part.func) | _merged([(name, part.args), *options.items()])
    if inspect.isroutine(part):
        return {name: part.__qualname__}
    kept = {key: getattr(part, key) for key in _arguments(part) if hasattr(part, key)}
    if isinstance(part, Layer):  # its parameters are loaded
        kept = {key: value for key, value in kept.items() if not isinstance(value, np.ndarray)}
    options = {f"{name}.{key}": value for key, value in kept.items()}
    return {name: type(part).__name__} | _merged(options.items())


def require_same(where: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raises `ValueError` naming all that differs; of a part of another class, the class alone."""
    differing: list[str] = []
    for name in sorted({*saved, *own}):
        within = any(name.startswith((f"{other}.", f"{other}[")) for other in differing)
        if not within and saved.get(name, _ABSENT) != own.get(name, _ABSENT):
            differing.append(name)
    if differing:
        said = [f"{name} was {_said(saved, name)}, is {_said(own, name)}" for name in differing]
        raise ValueError(f"{where}: {'; '.join(said)}: expected what the saved run was made with")


def _arguments(part: object) -> list[str]:
    try:
        return [*inspect.signature(type(part).__init__).parameters][1:]
    except ValueError:  # of a class that is not written in Python
        return []


def _merged(parts: Iterable[tuple[str, object]]) -> dict[str, Any]:
    return {key: value for name, part in parts for key, value in configuration(name, part).items()}


def _said(found: Mapping[str, Any], name: str) -> str:
    return repr(found[name]) if name in found else "not there"
