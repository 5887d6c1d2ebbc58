"""What every layer is: named parameters, forward, backward, predict and step."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar, Union

from numpy.typing import NDArray

from bptt import _validate

Array: TypeAlias = NDArray[Any]
# An array, a pair of them (LSTM), one state a layer (Sequential), or None where there is none.
State: TypeAlias = Union[Array, tuple["State", ...], None]  # noqa: UP007 (recursive alias)

L = TypeVar("L", bound="Layer")


def copy_into(where: str, what: str, values: object, parameters: Mapping[str, Array]) -> None:
    """Copies a mapping's values into the parameters of the same names, shapes and dtypes."""
    _validate.instance(where, what, values, Mapping)
    assert isinstance(values, Mapping)
    _validate.same_names(where, what, values, parameters)
    for name, parameter in parameters.items():
        if not parameter.flags.writeable:
            raise ValueError(f"{where}: {name} is read-only, as parameters of a frozen layer are")
        _validate.same_kind(where, f"{what}[{name!r}]", values[name], parameter)
    for name, parameter in parameters.items():
        parameter[...] = values[name]


class LayerGradients(NamedTuple):
    """What a layer's backward returns, each in the shape of what it is the gradient of."""

    x: Array | None  #: dL/dx; None stands for zero, and for the indices of an embedding
    state: State  #: dL/d(initial state), None where the layer has no state
    parameters: dict[str, Array]  #: dL/d(each parameter), by the parameters' names


class LayerTape:
    """What a layer's forward keeps for its backward, a value that the caller holds."""

    __slots__ = ("consumed", "kept", "layer")

    def __init__(self, layer: Layer, kept: Any) -> None:
        self.layer = layer
        self.kept = kept
        self.consumed = False


class Layer(ABC):
    """A layer without hidden state of its own: states and tapes are values that the caller holds.

    Errors of all methods: `ValueError` for shapes and values that do not fit, for a tape of another
    layer and for a tape that was consumed; `TypeError` for dtypes.
    """

    _parameters: dict[str, Array]

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters by PyTorch's names. The arrays may be changed in place; `load_parameters`
        does it for all of them. The mapping itself is read-only."""
        return MappingProxyType(self._parameters)

    def load_parameters(self, values: Mapping[str, Array]) -> None:
        """Copies `values` into the parameters. Names, shapes and dtypes must be theirs; nothing is
        written before everything is checked."""
        copy_into(f"{type(self).__name__}.load_parameters", "values", values, self._parameters)

    def freeze(self: L) -> L:
        """A copy for inference: its parameters are copies that cannot be written to, and what
        every call makes of a recurrent layer's weights is made once.

        It computes what this layer computes, `step` to rounding and all else to the bit. `predict`,
        `forward` and a `step` of several sequences take less time: the more so, the fewer steps and
        sequences a call has. It takes the memory of two further copies of the weights. A copy or a
        pickle of it is an ordinary layer again.
        """
        frozen = copy.deepcopy(self)
        for parameter in frozen.parameters.values():
            parameter.setflags(write=False)
        frozen._prepare()
        return frozen

    def _prepare(self) -> None:  # noqa: B027 (most layers make nothing)
        """Makes what can be made of parameters that stay as they are."""

    @property
    def random_state(self) -> Any:
        """What the next random draws (dropout) depend on, as JSON can hold it; None where there are
        none. Setting it to what it was makes the same draws again; `ValueError` for what it never
        was."""
        return None

    @random_state.setter
    def random_state(self, state: Any) -> None:
        if state is not None:
            raise ValueError(
                f"{type(self).__name__}: random_state is a {type(state).__name__}, "
                "expected None: this layer draws nothing"
            )

    def output_size(self, input_size: int | None) -> int | None:  # noqa: ARG002
        """How many numbers of each step the layer gives where it reads `input_size`; None: not
        known, as below an embedding, and of a layer that does not say.

        Raises `ValueError` where the layer does not read as many.
        """
        return None

    @abstractmethod
    def forward(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,
        reset: Array | None = None,
        training: bool = True,
    ) -> tuple[Array, State, LayerTape]:
        """All steps of `x` (T, N, ...), from `state` (None is zero).

        lengths (N,) integers: sequence n ends after lengths[n] steps. reset (T, N) bool: where
        True, that sequence's state is zero before that step. They concern layers with a state; the
        others treat every step alike. `training` is for what differs in training, as dropout.

        Returns y (T, N, ...), the final state, and the tape, which refers to x and the parameters.
        """

    @abstractmethod
    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: State = None, retain: bool = False
    ) -> LayerGradients:
        """The gradients from `dy` = dL/dy and `dstate` = dL/d(final state); None is zero.

        The tape is consumed unless `retain` is true. `parameters` of the result has all names,
        also where the gradient is zero.
        """

    def check_backward(
        self,
        tape: LayerTape,
        dstate: State = None,  # noqa: ARG002 (whoever has a state says what it must be)
    ) -> None:
        """Raises what `backward` would raise for this tape and `dstate`, and does nothing else."""
        self._open(tape)

    @abstractmethod
    def predict(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,
        reset: Array | None = None,
    ) -> tuple[Array, State]:
        """`forward` without a tape and not in training. Returns y and the final state."""

    @abstractmethod
    def step(self, x_t: Array, state: State = None) -> tuple[Array, State]:
        """One step, for streams: x_t (N, ...). Returns y_t (N, ...) and the new state."""

    def _open(self, tape: LayerTape) -> Any:
        """What this layer kept on the tape."""
        if isinstance(tape, LayerTape) and tape.layer is self and not tape.consumed:
            return tape.kept
        where = f"{type(self).__name__}.backward"
        _validate.instance(where, "tape", tape, LayerTape)
        if tape.layer is not self:
            raise ValueError(
                f"{where}: tape was made by another layer, {tape.layer!r}, expected one by {self!r}"
            )
        raise ValueError(
            f"{where}: tape was consumed by an earlier backward call, "
            "expected a fresh one (retain=True keeps a tape)"
        )

    @staticmethod
    def _close(tape: LayerTape) -> None:
        """Marks the tape consumed and lets go of what it kept."""
        tape.consumed = True
        tape.kept = None


class Stateless(Layer):
    """A layer that treats every step alike: forward, predict and step are one function."""

    @abstractmethod
    def _apply(self, x: Array) -> Array: ...

    def _kept(self, x: Array, y: Array) -> Array:  # noqa: ARG002
        """What the tape keeps for `backward`."""
        return x

    def _no_state(self, method: str, name: str, state: State) -> None:
        if state is not None:
            raise ValueError(
                f"{type(self).__name__}.{method}: {name} is a {type(state).__name__}, "
                "expected None: this layer has no state"
            )

    def check_backward(self, tape: LayerTape, dstate: State = None) -> None:
        self._open(tape)
        self._no_state("backward", "dstate", dstate)

    def forward(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,  # noqa: ARG002 (every step is treated alike)
        reset: Array | None = None,  # noqa: ARG002
        training: bool = True,  # noqa: ARG002
    ) -> tuple[Array, State, LayerTape]:
        self._no_state("forward", "state", state)
        y = self._apply(x)
        return y, None, LayerTape(self, self._kept(x, y))

    def predict(
        self,
        x: Array,
        state: State = None,
        lengths: Array | None = None,  # noqa: ARG002
        reset: Array | None = None,  # noqa: ARG002
    ) -> tuple[Array, State]:
        self._no_state("predict", "state", state)
        return self._apply(x), None

    def step(self, x_t: Array, state: State = None) -> tuple[Array, State]:
        self._no_state("step", "state", state)
        return self._apply(x_t), None
