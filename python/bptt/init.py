"""Initialisation by name: each function draws some parameters of a layer anew, in place.

Where a function says nothing of a parameter it stays as it was, so they can be combined:

    lstm = bptt.LSTM(64, 256, num_layers=2)
    bptt.init.glorot(lstm, seed=1)
    bptt.init.orthogonal_recurrent(lstm, seed=2)
    bptt.init.chrono(lstm, longest=500, seed=3)

They act on all layers of a stack and on both directions. The recurrent layers are `bptt.RNN`,
`bptt.LSTM` and `bptt.GRU`; `seed` is an integer >= 0 for the same numbers every time, or None.
Errors: `TypeError` for what is no such layer, `ValueError` for values that do not fit and for a
layer that lacks what is to be set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate
from bptt.layers import GRU, LSTM, RNN, Layer, Linear
from bptt.layers.recurrent import Recurrent

__all__ = [
    "chrono",
    "forget_bias",
    "glorot",
    "identity_recurrent",
    "orthogonal_recurrent",
    "uniform",
]

Array: TypeAlias = NDArray[Any]


def uniform(layer: Layer, seed: int | None = None) -> None:
    """All weights and biases from U(-1/sqrt(n), 1/sqrt(n)): what every layer begins with.

    n is the number of hidden units of a recurrent layer, and of input features of a `bptt.Linear`,
    as in PyTorch's `reset_parameters`. (After LeCun et al., Efficient BackProp, 1998.)
    """
    _is_one_of("uniform", layer, Recurrent, Linear)
    random = _validate.random_generator("init.uniform", seed)
    assert isinstance(layer, (Recurrent, Linear))
    n = layer.hidden_size if isinstance(layer, Recurrent) else layer.in_features
    bound = 1.0 / math.sqrt(n)
    for name, parameter in layer.parameters.items():
        if not name.startswith("initial_"):
            parameter[...] = random.uniform(-bound, bound, parameter.shape)


def glorot(
    layer: Layer, gain: float = 1.0, distribution: str = "uniform", seed: int | None = None
) -> None:
    """The input's weights with variance gain^2 * 2 / (fan_in + fan_out).

    "uniform" is U(-b, b) with b = gain * sqrt(6 / (fan_in + fan_out)), "normal" the normal
    distribution. Each gate of weight_ih counts as a matrix of its own, fan_in = D and fan_out = H
    (Keras counts all gates as one and draws smaller numbers); of a `bptt.Linear` it is the weight.
    (Glorot & Bengio, Understanding the difficulty of training deep feedforward neural networks,
    2010.)
    """
    _is_one_of("glorot", layer, Recurrent, Linear)
    gain = _validate.number("init.glorot", "gain", gain, 0.0)
    normal = _validate.choice(
        "init.glorot", "distribution", distribution, {"uniform": False, "normal": True}
    )
    random = _validate.random_generator("init.glorot", seed)
    for name, weight in layer.parameters.items():
        if name == "weight" or name.startswith("weight_ih"):
            for gate in _gates(layer, weight):
                scale = gain * math.sqrt(2.0 / sum(gate.shape))
                if normal:
                    gate[...] = random.normal(0.0, scale, gate.shape)
                else:
                    bound = math.sqrt(3.0) * scale
                    gate[...] = random.uniform(-bound, bound, gate.shape)


def orthogonal_recurrent(layer: Layer, gain: float = 1.0, seed: int | None = None) -> None:
    """Every gate's recurrent weights (H, H) become `gain` times a random orthogonal matrix.

    Drawn evenly from all orthogonal matrices: the Q of a normal matrix, with the signs of R's
    diagonal. (Saxe, McClelland & Ganguli, Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks, 2014; Henaff, Szlam & LeCun 2016 for recurrent networks.)
    """
    _is_one_of("orthogonal_recurrent", layer, Recurrent)
    gain = _validate.number("init.orthogonal_recurrent", "gain", gain, 0.0)
    random = _validate.random_generator("init.orthogonal_recurrent", seed)
    for weight in _named(layer, "weight_hh"):
        for gate in _gates(layer, weight):
            q, r = np.linalg.qr(random.standard_normal(gate.shape))
            gate[...] = gain * q * np.sign(np.diagonal(r))


def identity_recurrent(layer: Layer, scale: float = 1.0) -> None:
    """The recurrent weights of a `bptt.RNN` become `scale` times the identity, its biases zero.

    With nonlinearity="relu" it is the IRNN. (Le, Jaitly & Hinton, A simple way to initialize
    recurrent networks of rectified linear units, 2015; scale 1, or 0.01 where long memory hurts.)
    """
    _is_one_of("identity_recurrent", layer, RNN)
    scale = _validate.number("init.identity_recurrent", "scale", scale, 0.0)
    for weight in _named(layer, "weight_hh"):
        weight[...] = scale * np.eye(len(weight))
    for bias in _named(layer, "bias_"):
        bias[...] = 0


def forget_bias(layer: Layer, value: float = 1.0) -> None:
    """The forget gates of a `bptt.LSTM` begin with the bias `value`: open, for a positive one.

    It stands in bias_ih, and bias_hh's part is zero. (Gers, Schmidhuber & Cummins, Learning to
    forget, 2000; Jozefowicz, Zaremba & Sutskever, An empirical exploration of recurrent network
    architectures, 2015, recommend 1.)
    """
    _is_one_of("forget_bias", layer, LSTM)
    value = _validate.number("init.forget_bias", "value", value, -math.inf, bounds="()")
    for ih, hh in _bias_gates("forget_bias", layer):
        ih[1][...], hh[1][...] = value, 0


def chrono(layer: Layer, longest: int, seed: int | None = None) -> None:
    """Biases of the gates from the time spans that are to be remembered, up to `longest` steps.

    A unit that forgets with the gate value f keeps things for about 1/(1-f) steps. With u ~ U(1,
    longest - 1) for each unit, the LSTM's forget bias is log(u) and its input bias -log(u); the
    GRU's z, which keeps the old state, gets log(u). They stand in bias_ih, and bias_hh's part is
    zero. (Tallec & Ollivier, Can recurrent neural networks warp time?, 2018.)

    Args:
        layer: a `bptt.LSTM` or a `bptt.GRU` with biases.
        longest: steps, >= 3.
    """
    _is_one_of("chrono", layer, LSTM, GRU)
    longest = _validate.size("init.chrono", "longest", longest, minimum=3)
    random = _validate.random_generator("init.chrono", seed)
    for ih, hh in _bias_gates("chrono", layer):
        log_u = np.log(random.uniform(1.0, longest - 1.0, ih[1].shape))
        ih[1][...], hh[1][...] = log_u, 0
        if isinstance(layer, LSTM):
            ih[0][...], hh[0][...] = -log_u, 0


def _is_one_of(function: str, layer: object, *kinds: type) -> None:
    if not isinstance(layer, kinds):
        names = ["RNN, LSTM, GRU" if kind is Recurrent else kind.__name__ for kind in kinds]
        raise TypeError(
            f"init.{function}: layer is a {type(layer).__name__}, expected one of "
            + ", ".join(names)
        )


def _named(layer: Layer, beginning: str) -> Iterator[Array]:
    return (p for name, p in layer.parameters.items() if name.startswith(beginning))


def _gates(layer: Layer, array: Array) -> list[Array]:
    """The gates' parts of a weight or a bias, as views."""
    count = len(array) // layer.hidden_size if isinstance(layer, Recurrent) else 1
    return np.split(array, count)


def _bias_gates(function: str, layer: Layer) -> list[tuple[list[Array], list[Array]]]:
    """The gates' parts of bias_ih and of bias_hh, for each layer and direction."""
    ih, hh = (
        [_gates(layer, bias) for bias in _named(layer, name)] for name in ("bias_ih", "bias_hh")
    )
    if not ih:
        raise ValueError(f"init.{function}: the layer has bias=False, expected a layer with biases")
    return list(zip(ih, hh, strict=True))
