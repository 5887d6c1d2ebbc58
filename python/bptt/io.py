"""Arrays and metadata in a safetensors file.

A file is written under a temporary name beside its place and then renamed, so that whoever reads
it, also after a killed run, finds the old file or the new one, never a part of one. Nothing that is
loaded is executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate

__all__ = ["load", "save"]

Array: TypeAlias = NDArray[Any]


def save(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes `arrays` (as a layer's `parameters`) and `metadata` to the file `path`.

    Raises `TypeError` for what is no array or no string, `OSError` where the file can't be written.
    """
    from safetensors.numpy import save as to_bytes

    _validate.instance("io.save", "arrays", arrays, Mapping)
    for name, array in arrays.items():
        _validate.instance("io.save", "arrays's name", name, str)
        _validate.instance("io.save", f"arrays[{name!r}]", array, np.ndarray)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"io.save: arrays[{name!r}] has dtype {array.dtype}, expected numbers")
    for key, text in (metadata or {}).items():
        _validate.instance("io.save", "metadata's key", key, str)
        _validate.instance("io.save", f"metadata[{key!r}]", text, str)
    data = to_bytes(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        dict(metadata) if metadata else None,
    )
    write_atomically(path, data)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Puts `data` into the file `path`, all of it or nothing. An `OSError` names `path`."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = os.fspath(path), None
        raise


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises `ValueError` naming the file where it is cut short or no safetensors file, `OSError`
    where it can't be read.
    """
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # for the OSError of a file that is missing or not readable
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
        for name, array in arrays.items():
            if (
                array.dtype.isbuiltin != 1
            ):  # 2: a type that another package taught NumPy, as bfloat16
                raise TypeError(f"{name} has dtype {array.dtype}")
        return arrays, metadata
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        # The last three: an element type that NumPy does not have, as bfloat16.
        raise ValueError(
            f"io.load: {os.fspath(path)} is cut short or no safetensors file of NumPy's types "
            f"({error})"
        ) from error
