"""Weights from elsewhere and for elsewhere: PyTorch's and Keras's, as NumPy arrays.

Neither library is needed, and nothing is ever unpickled. Every tensor must have its place and every
parameter its tensor, of the right shape and dtype: what is left over, missing or unfit is an error
with its name, and then nothing has been written.

    tensors, _ = bptt.io.load("model.safetensors")
    bptt.convert.from_torch({"encoder": lstm, "head": linear}, tensors)
    bptt.io.save("copy.safetensors", bptt.convert.to_torch({"encoder": lstm, "head": linear}))
    bptt.convert.from_keras(lstm, keras_model.get_layer("lstm").get_weights())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate
from bptt.layers import GRU, Activation, Embedding, Layer, Linear
from bptt.layers.base import copy_into
from bptt.layers.recurrent import Recurrent

__all__ = ["from_keras", "from_torch", "to_keras", "to_torch"]

Array: TypeAlias = NDArray[Any]


# ---- PyTorch -------------------------------------------------------------------------------------


def from_torch(layers: Layer | Mapping[str, Layer], tensors: Mapping[str, Array]) -> None:
    """Copies a PyTorch `state_dict` into one layer or several.

    PyTorch's names, shapes and gate order are those of bptt's parameters. Tensors become arrays by
    `{name: tensor.numpy() for name, tensor in state_dict.items()}`.

    Args:
        layers: one layer, whose names are the tensors' (a `bptt.Sequential` has those of
            `torch.nn.Sequential`), or the layers by the names that their modules have in the model:
            {"encoder": lstm} takes "encoder.weight_ih_l0" and its like.
        tensors: all of the `state_dict`.

    Raises:
        ValueError: a tensor is left over, missing or of another shape.
        TypeError: a tensor is no array, or of another dtype.
    """
    where = "convert.from_torch"
    copy_into(where, "tensors", tensors, _by_name(where, layers))


def to_torch(layers: Layer | Mapping[str, Layer]) -> dict[str, Array]:
    """Copies of the parameters under PyTorch's names, as `from_torch` takes them.

    For `load_state_dict`: `{name: torch.from_numpy(array) for name, array in ....items()}`.
    """
    return {name: p.copy() for name, p in _by_name("convert.to_torch", layers).items()}


def _by_name(where: str, layers: object) -> dict[str, Array]:
    if isinstance(layers, Layer):
        return dict(layers.parameters)
    if not isinstance(layers, Mapping):
        raise TypeError(
            f"{where}: layers is a {type(layers).__name__}, expected a layer or layers by name"
        )
    found: dict[str, Array] = {}
    for prefix, layer in layers.items():
        _validate.instance(where, "a name of layers", prefix, str)
        _validate.instance(where, f"layers[{prefix!r}]", layer, Layer)
        found |= {f"{prefix}.{name}": array for name, array in layer.parameters.items()}
    return found


# ---- Keras ---------------------------------------------------------------------------------------
#
#   Keras                            here
#   kernel (D, G*H)                  weight_ih (G*H, D), transposed
#   recurrent_kernel (H, G*H)        weight_hh (G*H, H), transposed
#   bias (G*H,)                      bias_ih + bias_hh
#   bias (2, 3*H), GRU reset_after   bias_ih, bias_hh
#   gates LSTM i, f, c, o            i, f, g, o
#   gates GRU z, r, h                r, z, n


def from_keras(layer: Layer, weights: Sequence[Array]) -> None:
    """Copies the weights of Keras layers into a layer.

    Args:
        layer: a recurrent layer, `bptt.Linear` (Keras's Dense), `bptt.Embedding` or
            `bptt.Activation`, which has no weights in either. A GRU has the
            `reset_after` of Keras's, and `bias` is Keras's use_bias.
        weights: what `get_weights()` of the Keras layer returns: kernel, recurrent_kernel and, with
            use_bias, bias; of a Bidirectional those of the forward and then those of the backward
            layer; for a stack the lists of its layers one after the other. (Where Keras has one
            bias, bias_ih gets it and bias_hh becomes zero.)

    Raises:
        ValueError: an array is left over, missing or of another shape.
        TypeError: an array is no array, or of another dtype.
    """
    where = "convert.from_keras"
    expected = _keras(where, layer)
    _validate.instance(where, "weights", weights, Sequence)
    names = list(expected)
    if len(weights) != len(names):
        raise ValueError(
            f"{where}: weights has {len(weights)} arrays, expected {len(names)}: {', '.join(names)}"
        )
    given = dict(zip(names, weights, strict=True))
    for i, name in enumerate(names):
        _validate.same_kind(where, f"weights[{i}], {name},", given[name], expected[name])
    if not isinstance(layer, Recurrent):
        for name, parameter in zip(names, layer.parameters.values(), strict=True):
            parameter[...] = given[name].T if name == "kernel" else given[name]
        return
    for ending in _endings(layer):
        for ours, theirs in (("weight_ih", "kernel"), ("weight_hh", "recurrent_kernel")):
            array = _reordered(layer, given[theirs + ending].T)
            layer.parameters[ours + ending][...] = array
        if layer.bias:
            bias = given["bias" + ending]
            two = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
            for ours, part in zip(("bias_ih", "bias_hh"), two, strict=True):
                layer.parameters[ours + ending][...] = _reordered(layer, part)


def to_keras(layer: Layer) -> list[Array]:
    """Copies of the parameters in Keras's layout, for `set_weights`, as `from_keras` takes them.

    One Keras layer takes as many of them as it has arrays, in the order of the list.
    """
    return list(_keras("convert.to_keras", layer).values())


def _keras(where: str, layer: Layer) -> dict[str, Array]:
    """The layer's parameters in Keras's layout and under its names, as copies."""
    if isinstance(layer, Activation):
        return {}
    if isinstance(layer, Embedding):
        return {"embeddings": layer.parameters["weight"].copy()}
    if isinstance(layer, Linear):
        found = {"kernel": layer.parameters["weight"].T.copy()}
        return found | ({"bias": layer.parameters["bias"].copy()} if layer.bias else {})
    if not isinstance(layer, Recurrent):
        raise TypeError(
            f"{where}: layer is a {type(layer).__name__}, "
            "expected one of RNN, LSTM, GRU, Linear, Embedding, Activation"
        )
    if layer.learn_initial_state:
        raise ValueError(
            f"{where}: the layer has learn_initial_state=True, "
            "expected False: Keras's layers have no place for initial_h"
        )
    found = {}
    for ending in _endings(layer):
        at = {name: layer.parameters.get(name + ending) for name in _OURS}
        found["kernel" + ending] = _reordered(layer, at["weight_ih"]).T.copy()
        found["recurrent_kernel" + ending] = _reordered(layer, at["weight_hh"]).T.copy()
        if layer.bias:
            ih, hh = (_reordered(layer, at[name]) for name in ("bias_ih", "bias_hh"))
            apart = isinstance(layer, GRU) and layer.reset_after
            found["bias" + ending] = np.stack([ih, hh]) if apart else ih + hh
    return found


_OURS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _endings(layer: Recurrent) -> list[str]:
    """Of the parameters' names, in Keras's order."""
    name = "weight_ih"
    return [n.removeprefix(name) for n in layer.parameters if n.startswith(name)]


def _reordered(layer: Layer, array: Any) -> Array:
    """The gates along the first dimension in the other library's order; it is its own inverse."""
    if not isinstance(layer, GRU):
        return np.asarray(array)
    first, second, third = np.split(array, 3)
    return np.concatenate([second, first, third])
