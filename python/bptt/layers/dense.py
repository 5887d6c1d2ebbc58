"""The layers without a state: the linear map, the embedding and the activation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from bptt import _core, _validate
from bptt.layers.base import Array, LayerGradients, LayerTape, State, Stateless

ACTIVATIONS = ("tanh", "relu", "sigmoid", "elu", "softmax")


class Linear(Stateless):
    """`y = x @ weight^T + bias` at every step: x (..., D) to y (..., V).

    Parameters: weight (V, D) and, with `bias`, bias (V,), drawn from U(-1/sqrt(D), 1/sqrt(D)) as
    PyTorch does.

    Args:
        in_features: D >= 1.
        out_features: V >= 1.
        bias: whether there is one.
        dtype: float32 or float64.
        seed: an integer >= 0 for the same parameters every time, or None.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        self.in_features = _validate.size("Linear", "in_features", in_features)
        self.out_features = _validate.size("Linear", "out_features", out_features)
        self.bias = _validate.flag("Linear", "bias", bias)
        self.dtype = _validate.float_dtype("Linear", dtype)
        random = _validate.random_generator("Linear", seed)
        bound = 1.0 / math.sqrt(self.in_features)
        shapes = {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
        if not self.bias:
            del shapes["bias"]
        self._parameters = {
            name: random.uniform(-bound, bound, shape).astype(self.dtype)
            for name, shape in shapes.items()
        }
        self._weight = self._parameters["weight"]
        self._bias = self._parameters.get("bias")

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features}, bias={self.bias})"

    def output_size(self, input_size: int | None) -> int | None:
        """out_features."""
        _validate.reads(self, self.in_features, input_size)
        return self.out_features

    def _apply(self, x: Array) -> Array:
        try:
            return _core.linear_forward(x, self._weight, self._bias)
        except (TypeError, ValueError):
            # The core would name the weight where it does not fit x; here it is x that does not.
            _validate.layer_input("Linear", x, self.dtype, self.in_features)
            raise

    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: State = None, retain: bool = False
    ) -> LayerGradients:
        """As `Layer.backward`; where dy is None, so is the gradient of x."""
        x = self._open(tape)
        self._no_state("backward", "dstate", dstate)
        if dy is None:
            gradients = LayerGradients(
                None, None, {name: np.zeros_like(p) for name, p in self._parameters.items()}
            )
        else:
            dx, dweight, dbias = _core.linear_backward(x, self._weight, dy, self.bias)
            parameters = {"weight": dweight}
            if dbias is not None:
                parameters["bias"] = dbias
            gradients = LayerGradients(dx, None, parameters)
        if not retain:
            self._close(tape)
        return gradients


class Embedding(Stateless):
    """A row of `weight` for every index: x (...) integers in 0..num_embeddings-1 to y (..., E).

    Parameter: weight (num_embeddings, E), drawn from the standard normal distribution as PyTorch
    does. There is no gradient for the indices: `x` of its gradients is None.

    Args:
        num_embeddings: >= 1, the size of the vocabulary.
        embedding_dim: E >= 1.
        dtype: float32 or float64.
        seed: an integer >= 0 for the same parameters every time, or None.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        dtype: DTypeLike = np.float32,
        seed: int | None = None,
    ) -> None:
        self.num_embeddings = _validate.size("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = _validate.size("Embedding", "embedding_dim", embedding_dim)
        self.dtype = _validate.float_dtype("Embedding", dtype)
        random = _validate.random_generator("Embedding", seed)
        self._weight = random.standard_normal((self.num_embeddings, self.embedding_dim)).astype(
            self.dtype
        )
        self._parameters = {"weight": self._weight}

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim})"

    def output_size(self, input_size: int | None) -> int | None:
        """embedding_dim; nothing may stand before it that gives numbers."""
        if input_size is not None:
            raise ValueError(f"{self!r} reads indices, expected it to be the first layer")
        return self.embedding_dim

    def _apply(self, x: Array) -> Array:
        return _core.embedding_forward(x, self._weight)

    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: State = None, retain: bool = False
    ) -> LayerGradients:
        """As `Layer.backward`; the gradient of the indices is None."""
        index = self._open(tape)
        self._no_state("backward", "dstate", dstate)
        if dy is None:
            dweight = np.zeros_like(self._weight)
        else:
            dweight = _core.embedding_backward(index, dy, self.num_embeddings)
        if not retain:
            self._close(tape)
        return LayerGradients(None, None, {"weight": dweight})


class Activation(Stateless):
    """`y = f(x)` at every step: x (..., V) to y (..., V), V >= 1.

    It has no parameters. The y of `forward` is the tape's own memory, and read-only.

    Args:
        nonlinearity: "tanh", "relu", "sigmoid", "elu" (with alpha = 1, Clevert et al. 2016), or
            "softmax", over the last dimension.
    """

    def __init__(self, nonlinearity: str) -> None:
        self.nonlinearity = _validate.choice(
            "Activation", "nonlinearity", nonlinearity, {name: name for name in ACTIVATIONS}
        )
        self._parameters = {}

    def __repr__(self) -> str:
        return f"Activation({self.nonlinearity!r})"

    def output_size(self, input_size: int | None) -> int | None:
        """As many as it reads."""
        return input_size

    def _apply(self, x: Array) -> Array:
        return _core.activation_forward(self.nonlinearity, x)

    def _kept(self, x: Array, y: Array) -> Array:  # noqa: ARG002
        y.setflags(write=False)
        return y

    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: State = None, retain: bool = False
    ) -> LayerGradients:
        """As `Layer.backward`; where dy is None, so is the gradient of x."""
        y = self._open(tape)
        self._no_state("backward", "dstate", dstate)
        dx = None if dy is None else _core.activation_backward(self.nonlinearity, y, dy)
        if not retain:
            self._close(tape)
        return LayerGradients(dx, None, {})
