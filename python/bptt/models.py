"""Whole models in files: a chain of layers, what it is made of and its weights.

The file is a safetensors file. The tensors are the model's parameters by their names; the layers
stand as JSON in the metadata. C++ reads and writes the same files (`bptt/model_io.hpp`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate, io
from bptt.layers import GRU, LSTM, RNN, Activation, Embedding, Layer, Linear, Sequential

__all__ = ["load_model", "save_model"]

Array: TypeAlias = NDArray[Any]

_KEY = "bptt_model"  # of the metadata
_FORMAT = 1

_RECURRENT = (
    *("input_size", "hidden_size", "num_layers", "bidirectional", "dropout", "bias"),
    "learn_initial_state",
)
# Of each type of layer what its constructor takes.
_ARGUMENTS: dict[Callable[..., Layer], tuple[str, ...]] = {
    Embedding: ("num_embeddings", "embedding_dim"),
    Linear: ("in_features", "out_features", "bias"),
    RNN: (*_RECURRENT, "nonlinearity"),
    LSTM: _RECURRENT,
    GRU: (*_RECURRENT, "reset_after"),
    Activation: ("nonlinearity",),
}
_TYPES: dict[str, Callable[..., Layer]] = {kind.__name__: kind for kind in _ARGUMENTS}


def save_model(
    path: str | os.PathLike[str], model: Sequential, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a model's layers and weights, and `metadata` beside them, to the file `path`.

    Raises `TypeError` for what is no `Sequential` of bptt's own layers, `ValueError` for a weight
    that is not finite and a model without weights, `OSError` where the file can't be written.
    """
    where = "save_model"
    _validate.instance(where, "model", model, Sequential)
    layers = []
    for i, layer in enumerate(model.layers):
        if type(layer) not in _ARGUMENTS:
            raise TypeError(
                f"{where}: layer {i} is a {type(layer).__name__}, "
                f"expected one of {', '.join(_TYPES)}"
            )
        arguments = {name: getattr(layer, name) for name in _ARGUMENTS[type(layer)]}
        layers.append({"name": str(i), "type": type(layer).__name__, **arguments})
    if not model.parameters:
        raise ValueError(f"{where}: the layers are activations, expected one that has weights")
    _finite(where, model.parameters)
    if metadata is not None:
        _validate.instance(where, "metadata", metadata, Mapping)
        if _KEY in metadata:
            raise ValueError(f"{where}: metadata has {_KEY!r}, which is the model's own")
    description = json.dumps({"format": _FORMAT, "layers": layers})
    io.save(path, model.parameters, {**(metadata or {}), _KEY: description})


def load_model(path: str | os.PathLike[str]) -> tuple[Sequential, dict[str, str]]:
    """The model that `save_model`, here or in C++, wrote to the file `path`, and the metadata.

    Raises `ValueError` naming what is wrong: a file cut short or of something else, another
    version, a layer that is not known, a tensor too many, too few, of another shape or dtype, or a
    weight that is not finite. `OSError` where the file can't be read.
    """
    where = f"load_model({os.fspath(path)!r})"
    arrays, metadata = io.load(path)
    if _KEY not in metadata:
        raise ValueError(f"{where}: the metadata has no {_KEY}: save_model did not write this file")
    try:
        description = json.loads(metadata.pop(_KEY))
        if description["format"] != _FORMAT:
            raise ValueError(f"{_KEY} is of format {description['format']}, expected {_FORMAT}")
        made = [_layer(entry, arrays) for entry in description["layers"]]
        names = [f"{entry['name']}." for entry in description["layers"]]
        model = Sequential(*made)
        if not arrays:
            raise ValueError("the layers are activations, expected one that has weights")
        ours = {
            f"{name}{parameter}": f"{i}.{parameter}"
            for i, (name, layer) in enumerate(zip(names, made, strict=True))
            for parameter in layer.parameters
        }
        _finite(where, arrays)
        _validate.same_names(where, "the file's tensors", arrays, ours)
        model.load_parameters({own: arrays[name] for name, own in ours.items()})
    except KeyError as error:
        raise ValueError(f"{where}: {_KEY} lacks the entry {error}") from error
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith(where):
            raise
        raise ValueError(f"{where}: {error!s}") from error
    return model, metadata


def _layer(entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Layer:
    """A layer as described, its parameters not loaded yet."""
    name, kind = entry["name"], entry["type"]
    if kind not in _TYPES:
        raise ValueError(f"layer {name!r} has type {kind!r}, expected one of {', '.join(_TYPES)}")
    arguments = {key: value for key, value in entry.items() if key not in ("name", "type")}
    _validate.same_names(
        f"layer {name!r}", "its entry", arguments, dict.fromkeys(_ARGUMENTS[_TYPES[kind]])
    )
    if kind == "Activation":
        return Activation(**arguments)
    # Nothing is made that is larger than the file's own arrays.
    of_weights = {
        "Embedding": ("weight", ("num_embeddings", "embedding_dim")),
        "Linear": ("weight", ("out_features", "in_features")),
    }
    weight, keys = of_weights.get(kind, ("weight_hh_l0", (None, "hidden_size")))
    array = _tensor(arrays, f"{name}.{weight}")
    sizes = dict(zip(keys, array.shape, strict=False))
    if kind not in of_weights:
        sizes["input_size"] = _tensor(arrays, f"{name}.weight_ih_l0").shape[-1]
    for key, size in sizes.items():
        if key is not None and arguments[key] != size:
            raise ValueError(
                f"layer {name!r}: {key} is {arguments[key]!r}, and its weights have {size}"
            )
    layers = arguments.get("num_layers", 1)
    if isinstance(layers, int) and layers > len(arrays):
        raise ValueError(
            f"layer {name!r}: num_layers is {layers}, and the file has {len(arrays)} tensors"
        )
    return _TYPES[kind](**arguments, dtype=array.dtype)


def _tensor(arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays or arrays[name].ndim != 2:
        raise ValueError(f"the tensor {name!r} is missing or no matrix")
    return arrays[name]


def _finite(where: str, arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(
                f"{where}: {name}{list(first)} is {array[first]}, expected a finite number"
            )
