"""Optimizers and clipping, in place, over all parameters of a model in one fused call.

`step(parameters, gradients)` takes two mappings of the same names to arrays of the same shapes and
dtypes. Hyperparameters are attributes that may be changed between steps (`optimizer.lr = 1e-4`);
every value is checked when it is set: a number that is NaN, infinite or out of range is a
`ValueError`. With `decay_biases=False` weight decay spares the biases: parameters whose name,
behind its last dot, begins with "bias".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from bptt import _core, _validate

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_by_global_norm",
    "clip_by_value",
]

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
T = TypeVar("T")


class Hyperparameter(Generic[T]):
    """An attribute that is checked whenever it is set."""

    def __init__(self, check: Callable[[str, str, object], T]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> T:
        if instance is None:
            return self  # type: ignore[return-value]
        value: T = instance.__dict__[self.name]
        return value

    def __set__(self, instance: object, value: T) -> None:
        instance.__dict__[self.name] = self.check(type(instance).__name__, self.name, value)


def is_bias(name: str) -> bool:
    """Whether a parameter's name is a bias's: "bias", "bias_hh_l0", "2.bias"."""
    return name.rpartition(".")[2].startswith("bias")


def number(low: float, high: float = math.inf, bounds: str = "[)") -> Hyperparameter[float]:
    return Hyperparameter(
        lambda where, name, value: _validate.number(where, name, value, low, high, bounds)
    )


class Optimizer(ABC):
    """What every optimizer is: hyperparameters, a step count, and arrays for each parameter."""

    _slots: ClassVar[tuple[str, ...]]  # names of what is kept for each parameter

    lr = number(0.0)
    weight_decay = number(0.0)
    decay_biases = Hyperparameter(_validate.flag)

    def __init__(self, lr: float, weight_decay: float, decay_biases: bool) -> None:
        self.lr = lr
        self.weight_decay = weight_decay
        self.decay_biases = decay_biases
        self._steps = 0
        self._kept: dict[str, dict[str, Array]] | None = None  # slot -> parameter's name -> array

    def step(self, parameters: Arrays, gradients: Arrays) -> None:
        """Changes `parameters` in place by their `gradients`, which stay as they are.

        The first step fixes names, shapes and dtype for the steps after it. Nothing is written
        before everything is checked.
        """
        where = f"{type(self).__name__}.step"
        _validate.instance(where, "parameters", parameters, Mapping)
        _validate.instance(where, "gradients", gradients, Mapping)
        if parameters.keys() != gradients.keys():
            _validate.same_names(where, "gradients", gradients, parameters)
        kept = self._kept
        if kept is None:
            for name, parameter in parameters.items():
                _validate.instance(where, f"parameters[{name!r}]", parameter, np.ndarray)
            kept = {
                slot: {name: np.zeros_like(p) for name, p in parameters.items()}
                for slot in self._slots
            }
        for arrays in kept.values():
            if arrays.keys() != parameters.keys():
                _validate.same_names(where, "parameters", parameters, arrays)
        spared = [] if self.decay_biases else [is_bias(name) for name in parameters]
        lists = (parameters, gradients, *kept.values())
        self._update([[arrays[name] for name in parameters] for arrays in lists], spared)
        self._kept = kept
        self._steps += 1

    @abstractmethod
    def _update(self, lists: list[list[Array]], spared: list[bool]) -> None:
        """One call of the core; lists of parameters, of gradients, and of each slot's arrays."""

    def _hyperparameters(self) -> tuple[str, ...]:
        return tuple(
            name
            for kind in reversed(type(self).__mro__)
            for name, value in vars(kind).items()
            if isinstance(value, Hyperparameter)
        )

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that the next step depends on beside parameters and gradients.

        {"optimizer": the class's name, "steps": how many were made,
        "hyperparameters": {name: value},
        "arrays": {"first_moment", ...: {parameter's name: array}}, empty before the first step}.
        """
        return {
            "optimizer": type(self).__name__,
            "steps": self._steps,
            "hyperparameters": {name: getattr(self, name) for name in self._hyperparameters()},
            "arrays": {
                slot: {name: array.copy() for name, array in arrays.items()}
                for slot, arrays in (self._kept or {}).items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes a copy of what `state_dict` returned, after which it steps as that optimizer would.

        Raises `ValueError` for the state of another kind of optimizer or an incomplete one.
        """
        where = f"{type(self).__name__}.load_state_dict"
        _validate.instance(where, "state", state, Mapping)
        _validate.same_names(
            where, "state", state, ("optimizer", "steps", "hyperparameters", "arrays")
        )
        if state["optimizer"] != type(self).__name__:
            raise ValueError(
                f"{where}: state is of {state['optimizer']!r}, expected {type(self).__name__!r}"
            )
        steps = _validate.size(where, "state['steps']", state["steps"], minimum=0)
        given, arrays = state["hyperparameters"], state["arrays"]
        _validate.instance(where, "state['hyperparameters']", given, Mapping)
        _validate.instance(where, "state['arrays']", arrays, Mapping)
        _validate.same_names(where, "state['hyperparameters']", given, self._hyperparameters())
        if arrays or steps:
            _validate.same_names(where, "state['arrays']", arrays, self._slots)
        kept = _copied(where, arrays)
        checked = type(self)(**given)  # the constructor checks the values together
        self.__dict__.update(checked.__dict__, _steps=steps, _kept=kept if steps else None)


def _copied(where: str, arrays: Mapping[str, Arrays]) -> dict[str, dict[str, Array]]:
    first: Arrays | None = None
    for slot, kept in arrays.items():
        first = kept if first is None else first
        name = f"state['arrays'][{slot!r}]"
        _validate.instance(where, name, kept, Mapping)
        _validate.same_names(where, name, kept, first)
        for key, array in kept.items():
            _validate.instance(where, f"{name}[{key!r}]", array, np.ndarray)
            _validate.same_kind(where, f"{name}[{key!r}]", array, first[key])
    return {
        slot: {key: np.array(array, order="C") for key, array in kept.items()}
        for slot, kept in arrays.items()
    }


class SGD(Optimizer):
    """`v = momentum*v + g; p -= lr*v`, with Nesterov's momentum `p -= lr*(g + momentum*v)`.

    g includes weight_decay*p. As PyTorch's; Nesterov's form: Sutskever et al. 2013.

    Args:
        lr: learning rate >= 0.
        momentum: in [0, 1).
        nesterov: needs momentum > 0, else `ValueError`.
        weight_decay: >= 0.
        decay_biases: whether it is for biases too.
    """

    _slots = ("velocity",)
    momentum = number(0.0, 1.0)
    nesterov = Hyperparameter(_validate.flag)

    def __init__(
        self,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
    ) -> None:
        super().__init__(lr, weight_decay, decay_biases)
        self.momentum = momentum
        self.nesterov = nesterov
        if self.nesterov and self.momentum == 0:
            raise ValueError("SGD: nesterov is True and momentum 0.0, expected momentum > 0")

    def _update(self, lists: list[list[Array]], spared: list[bool]) -> None:
        parameters, gradients, velocity = lists
        _core.sgd(
            parameters,
            gradients,
            velocity,
            self.lr,
            self.momentum,
            self.nesterov,
            self.weight_decay,
            spared,
        )


class RMSprop(Optimizer):
    """`s = alpha*s + (1-alpha)*g^2; p -= lr*g / (sqrt(s) + eps)` (Tieleman & Hinton 2012).

    Args:
        lr: learning rate >= 0.
        alpha: in [0, 1).
        eps: > 0.
        weight_decay: >= 0; g includes weight_decay*p.
        decay_biases: whether it is for biases too.
    """

    _slots = ("square_average",)
    alpha = number(0.0, 1.0)
    eps = number(0.0, bounds="()")

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
    ) -> None:
        super().__init__(lr, weight_decay, decay_biases)
        self.alpha = alpha
        self.eps = eps

    def _update(self, lists: list[list[Array]], spared: list[bool]) -> None:
        parameters, gradients, average = lists
        _core.rmsprop(
            parameters, gradients, average, self.lr, self.alpha, self.eps, self.weight_decay, spared
        )


class Adagrad(Optimizer):
    """`s += g^2; p -= lr*g / (sqrt(s) + eps)` (Duchi et al. 2011).

    Args:
        lr: learning rate >= 0.
        eps: > 0.
        weight_decay: >= 0; g includes weight_decay*p.
        decay_biases: whether it is for biases too.
    """

    _slots = ("square_sum",)
    eps = number(0.0, bounds="()")

    def __init__(
        self,
        lr: float = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
    ) -> None:
        super().__init__(lr, weight_decay, decay_biases)
        self.eps = eps

    def _update(self, lists: list[list[Array]], spared: list[bool]) -> None:
        parameters, gradients, total = lists
        _core.adagrad(parameters, gradients, total, self.lr, self.eps, self.weight_decay, spared)


class Adam(Optimizer):
    """Adam with bias correction (Kingma & Ba 2015).

    Args:
        lr: learning rate >= 0.
        beta1, beta2: in [0, 1).
        eps: > 0.
        weight_decay: >= 0; g includes weight_decay*p.
        decay_biases: whether it is for biases too.
    """

    _slots = ("first_moment", "second_moment")
    _decoupled: ClassVar[bool] = False
    beta1 = number(0.0, 1.0)
    beta2 = number(0.0, 1.0)
    eps = number(0.0, bounds="()")

    def __init__(
        self,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
    ) -> None:
        super().__init__(lr, weight_decay, decay_biases)
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps

    def _update(self, lists: list[list[Array]], spared: list[bool]) -> None:
        parameters, gradients, first, second = lists
        _core.adam(
            parameters,
            gradients,
            first,
            second,
            self._steps + 1,
            self.lr,
            self.beta1,
            self.beta2,
            self.eps,
            self.weight_decay,
            self._decoupled,
            spared,
        )


class AdamW(Adam):
    """Adam whose weight decay stands beside the step: `p -= lr*weight_decay*p` (Loshchilov &
    Hutter 2019). Arguments as `Adam`'s."""

    _decoupled = True

    def __init__(
        self,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        decay_biases: bool = True,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, weight_decay, decay_biases)


def global_norm(arrays: Arrays) -> float:
    """The square root of the sum of all squares, summed in double precision."""
    _validate.instance("global_norm", "arrays", arrays, Mapping)
    return _core.global_norm(list(arrays.values()))


def clip_by_global_norm(gradients: Arrays, max_norm: float) -> float:
    """Scales all gradients in place so that their global norm is at most `max_norm` (Pascanu et al.
    2013). Returns the norm before; one that is not finite scales nothing.

    Args:
        gradients: name -> array.
        max_norm: > 0.
    """
    _validate.instance("clip_by_global_norm", "gradients", gradients, Mapping)
    limit = _validate.number("clip_by_global_norm", "max_norm", max_norm, 0.0, bounds="()")
    arrays = list(gradients.values())
    norm = _core.global_norm(arrays)
    if limit < norm < math.inf:
        _core.scale(arrays, limit / norm)
    return norm


def clip_by_value(gradients: Arrays, limit: float) -> None:
    """Brings every element into [-limit, limit], in place; NaN stays NaN.

    Args:
        gradients: name -> array.
        limit: > 0.
    """
    _validate.instance("clip_by_value", "gradients", gradients, Mapping)
    limit = _validate.number("clip_by_value", "limit", limit, 0.0, bounds="()")
    _core.clip_by_value(list(gradients.values()), limit)
