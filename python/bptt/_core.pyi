"""The compiled module: arrays in, arrays out. Everything public is documented where it is wrapped.

Every array is C-contiguous float32 or float64 and one call uses one dtype throughout; a
non-contiguous input is copied, a non-contiguous array that would be written in place is refused.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

__version__: str

class Tape:
    """What a forward call keeps for its backward call. Made by `forward`, never by hand."""

    @property
    def cell(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def consumed(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def h(self) -> Array: ...

def forward(
    cell: str,
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None,
    bias_hh: Array | None,
    h: Array | None,
    c: Array | None,
    lengths: Array | None,
    reset: Array | None,
    keep: bool,
    reverse: bool = False,
) -> tuple[Array, Array, Array | None, Tape | None]: ...
def backward(
    tape: Tape,
    cell: str,
    dy: Array | None,
    dh: Array | None,
    dc: Array | None,
    reduction: str,
    retain: bool,
) -> tuple[Array, Array, Array | None, Array, Array, Array | None, Array | None]: ...
def backward_traced(
    tape: Tape,
    dy: Array | None,
    dh: Array | None,
    dc: Array | None,
    full: bool,
) -> tuple[
    tuple[Array, Array, Array | None, Array, Array, Array | None, Array | None],
    Array,
    Array | None,
    Array,
    tuple[Array | None, Array | None, Array | None, Array | None],
    Array | None,
]: ...

class LayerTape:
    """What a recurrent layer's forward keeps. Made by `Recurrent.forward`, never by hand."""

    @property
    def tapes(self) -> list[Tape]: ...
    @property
    def masks(self) -> list[Array]: ...

class Recurrent:
    """A stack of recurrent layers over the parameters' own memory."""

    def __init__(
        self,
        name: str,
        cell: str,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
        rows: list[tuple[Array | None, ...]],
        initial_h: Array | None,
        initial_c: Array | None,
    ) -> None: ...
    def forward(
        self, x: Array, state: Any, lengths: Array | None, reset: Array | None, masks: list[Array]
    ) -> tuple[Array, Any, LayerTape]: ...
    def predict(
        self, x: Array, state: Any, lengths: Array | None, reset: Array | None
    ) -> tuple[Array, Any]: ...
    def step(self, x_t: Array, state: Any = None) -> tuple[Array, Any]: ...
    def prepare(self) -> None: ...
    def backward(
        self, tape: LayerTape, dy: Array | None, dstate: Any, retain: bool
    ) -> tuple[Array, Any, dict[str, Array]]: ...
    def check_backward(self, tape: LayerTape, dstate: Any) -> None: ...

class Ledger:
    """The gradient of a tape, taken apart by lag."""

    def __init__(
        self, tape: Tape, max_lag: int, groups: int, only_c: bool, both_ways: bool = False
    ) -> None: ...
    def back(
        self, first: int, dy: Array | None, by_slots: bool, want_dx: bool
    ) -> tuple[Array, Array | None]: ...
    def sums(self) -> tuple[Array, Array]: ...
    @property
    def weight_hh(self) -> Array: ...

class Stream:
    """One sequence, one step at a time, with weights that were packed once."""

    def __init__(
        self,
        cell: str,
        weight_ih: Array,
        weight_hh: Array,
        bias_ih: Array | None,
        bias_hh: Array | None,
        h: Array | None,
        c: Array | None,
    ) -> None: ...
    def step(self, x: Array) -> Array: ...
    def reset(self, h: Array | None, c: Array | None) -> None: ...
    def state(self) -> tuple[Array, Array | None]: ...

def activation_forward(nonlinearity: str, x: Array) -> Array: ...
def activation_backward(nonlinearity: str, y: Array, dy: Array) -> Array: ...
def linear_forward(x: Array, weight: Array, bias: Array | None) -> Array: ...
def linear_backward(
    x: Array, weight: Array, dy: Array, bias: bool
) -> tuple[Array, Array, Array | None]: ...
def embedding_forward(index: Array, weight: Array) -> Array: ...
def embedding_backward(index: Array, dy: Array, num_embeddings: int) -> Array: ...
def softmax_cross_entropy(
    prediction: Array,
    target: Array,
    mask: Array | None,
    reduction: str,
    class_weights: Array | None,
    label_smoothing: float,
    ignore_index: int | None,
) -> tuple[float, Array]: ...
def mse(
    prediction: Array, target: Array, mask: Array | None, reduction: str
) -> tuple[float, Array]: ...
def huber(
    prediction: Array, target: Array, mask: Array | None, reduction: str, delta: float
) -> tuple[float, Array]: ...
def gaussian_nll(
    prediction: Array, target: Array, mask: Array | None, reduction: str, full: bool
) -> tuple[float, Array]: ...
def binary_cross_entropy_with_logits(
    prediction: Array, target: Array, mask: Array | None, reduction: str
) -> tuple[float, Array]: ...
def sgd(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    velocity: Sequence[Array],
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    spared: Sequence[bool],
) -> None: ...
def rmsprop(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    square_average: Sequence[Array],
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    spared: Sequence[bool],
) -> None: ...
def adagrad(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    square_sum: Sequence[Array],
    lr: float,
    eps: float,
    weight_decay: float,
    spared: Sequence[bool],
) -> None: ...
def adam(
    parameters: Sequence[Array],
    gradients: Sequence[Array],
    first_moment: Sequence[Array],
    second_moment: Sequence[Array],
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    spared: Sequence[bool],
) -> None: ...
def global_norm(arrays: Sequence[Array]) -> float: ...
def scale(arrays: Sequence[Array], factor: float) -> None: ...
def clip_by_value(arrays: Sequence[Array], limit: float) -> None: ...
def set_num_threads(threads: int) -> None: ...
def get_num_threads() -> int: ...
def used_memory() -> int: ...
def peak_memory() -> int: ...
def reset_peak_memory() -> None: ...
def spend_most_memory(on: bool) -> None: ...
def instruction_set() -> str: ...
def supported_instruction_sets() -> list[str]: ...
