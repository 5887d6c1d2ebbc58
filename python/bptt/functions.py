"""The three cells as functions: all steps forward, all steps backward.

Letters: T time steps, N sequences, D input features, H hidden units, G gates (1 RNN, 4 LSTM,
3 GRU). Arrays are C-contiguous and time-major, float32 or float64, of one dtype in one call; a
non-contiguous array is copied. Shapes and values that do not fit raise `ValueError`, dtypes
`TypeError`; the sentence names the argument, what was expected and what came.

The tape that a forward call returns refers to `x`, the weights, `lengths` and `reset`: they must
stay unchanged until its backward call. That call consumes the tape unless `retain` is true.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

from bptt import _core, _validate
from bptt._core import Tape

__all__ = [
    "Gradients",
    "Tape",
    "Weights",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_forward",
]

Array: TypeAlias = NDArray[Any]
Pair: TypeAlias = tuple[Array, Array]

NONLINEARITIES = {"tanh": "rnn_tanh", "relu": "rnn_relu", "identity": "rnn_identity"}


class Weights(NamedTuple):
    """The weights of one layer in one direction, in PyTorch's shapes and gate order.

    LSTM gates are i, f, g, o; GRU gates r, z, n. The two biases come together or not at all.
    """

    weight_ih: Array  #: (G*H, D)
    weight_hh: Array  #: (G*H, H)
    bias_ih: Array | None = None  #: (G*H,)
    bias_hh: Array | None = None  #: (G*H,)


class Gradients(NamedTuple):
    """dL/d(each input of a forward call), in the shape of that input."""

    x: Array  #: (T, N, D)
    state: Array | Pair  #: of the initial state: (N, H), for the LSTM a pair of them
    weight_ih: Array  #: (G*H, D)
    weight_hh: Array  #: (G*H, H)
    bias_ih: Array | None  #: (G*H,), None where the forward call had no biases
    bias_hh: Array | None  #: (G*H,)


def rnn_forward(
    x: Array,
    weights: Weights,
    state: Array | None = None,
    lengths: Array | None = None,
    reset: Array | None = None,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> tuple[Array, Array, Tape]:
    """All steps of `h_t = phi(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)` (Elman 1990).

    Args:
        x: (T, N, D).
        weights: of G = 1.
        state: h before the first step, (N, H); None is zero.
        lengths: (N,) integers: sequence n ends after lengths[n] steps, 0 <= lengths[n] <= T. Beyond
            its end y is zero and its state stays.
        reset: (T, N) bool: where True, that sequence's state is zero before that step.
        nonlinearity: phi: "tanh", "relu" or "identity".
        reverse: whether each sequence is run from its own end, step lengths[n] - 1, to step 0,
            whose state is then the final one. y stays in the order of x. reset[t] parts step t from
            step t-1 in this direction too: the state is zero before step t-1.

    Returns:
        y (T, N, H), the hidden states of all steps; the final state (N, H), each sequence's at its
        own end; and the tape.
    """
    reverse = _validate.flag("rnn_forward", "reverse", reverse)
    _validate.instance("rnn_forward", "weights", weights, Weights)
    cell = _validate.choice("rnn_forward", "nonlinearity", nonlinearity, NONLINEARITIES)
    h = _single("rnn_forward", "state", state)
    y, h, _, tape = _core.forward(cell, x, *weights, h, None, lengths, reset, True, reverse)
    assert tape is not None
    return y, h, tape


def rnn_backward(
    tape: Tape,
    dy: Array | None,
    dstate: Array | None = None,
    reduction: str = "sum",
    retain: bool = False,
) -> Gradients:
    """The gradients of `rnn_forward`.

    Args:
        tape: of `rnn_forward`. It is consumed unless `retain` is true; a consumed tape or one of
            another cell is a `ValueError`.
        dy: dL/dy (T, N, H); None is zero.
        dstate: dL/d(final state) (N, H), as a later window's `Gradients.state`; None is zero.
        reduction: "sum" over all steps is the gradient; "mean" divides those of the weights and
            biases by the number of valid (step, sequence) pairs, "mean_sequences" by the number of
            sequences that have a step; those of x and the state stay sums.
    """
    return _backward("rnn", tape, dy, dstate, reduction, retain)


def lstm_forward(
    x: Array,
    weights: Weights,
    state: Pair | None = None,
    lengths: Array | None = None,
    reset: Array | None = None,
    reverse: bool = False,
) -> tuple[Array, Pair, Tape]:
    """All steps of the LSTM (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    `c_t = f*c_{t-1} + i*g` and `h_t = o*tanh(c_t)`, where i, f, o are sigmoids and g is a tanh of
    `W_ih x_t + b_ih + W_hh h_{t-1} + b_hh`.

    Args:
        x: (T, N, D).
        weights: of G = 4.
        state: the pair (h, c) before the first step, each (N, H); None, whole or within, is zero.
        lengths, reset, reverse: as in `rnn_forward`.

    Returns:
        y (T, N, H), the final state (h, c), and the tape.
    """
    reverse = _validate.flag("lstm_forward", "reverse", reverse)
    _validate.instance("lstm_forward", "weights", weights, Weights)
    h, c = _pair("lstm_forward", "state", state)
    y, h, c, tape = _core.forward("lstm", x, *weights, h, c, lengths, reset, True, reverse)
    assert c is not None
    assert tape is not None
    return y, (h, c), tape


def lstm_backward(
    tape: Tape,
    dy: Array | None,
    dstate: Pair | None = None,
    reduction: str = "sum",
    retain: bool = False,
) -> Gradients:
    """The gradients of `lstm_forward`; `dstate` is the pair (dh, dc). Else as `rnn_backward`."""
    _validate.flag("lstm_backward", "retain", retain)
    dh, dc = _pair("lstm_backward", "dstate", dstate)
    dx, dh, dc, *dweights = _core.backward(tape, "lstm", dy, dh, dc, reduction, retain)
    assert dc is not None
    return Gradients(dx, (dh, dc), *dweights)  # type: ignore[arg-type]


def gru_forward(
    x: Array,
    weights: Weights,
    state: Array | None = None,
    lengths: Array | None = None,
    reset: Array | None = None,
    reset_after: bool = True,
    reverse: bool = False,
) -> tuple[Array, Array, Tape]:
    """All steps of the GRU (Cho et al. 2014): `h_t = (1-z)*n + z*h_{t-1}`.

    Args:
        x: (T, N, D).
        weights: of G = 3.
        state, lengths, reset, reverse: as in `rnn_forward`.
        reset_after: True (PyTorch, cuDNN, Keras): `n = tanh(W_in x + b_in + r*(W_hn h + b_hn))`.
            False (Cho et al., ONNX by default): `n = tanh(W_in x + b_in + W_hn (r*h) + b_hn)`.

    Returns:
        y (T, N, H), the final state (N, H), and the tape.
    """
    reverse = _validate.flag("gru_forward", "reverse", reverse)
    _validate.instance("gru_forward", "weights", weights, Weights)
    cell = gru_cell("gru_forward", reset_after)
    h = _single("gru_forward", "state", state)
    y, h, _, tape = _core.forward(cell, x, *weights, h, None, lengths, reset, True, reverse)
    assert tape is not None
    return y, h, tape


def gru_backward(
    tape: Tape,
    dy: Array | None,
    dstate: Array | None = None,
    reduction: str = "sum",
    retain: bool = False,
) -> Gradients:
    """The gradients of `gru_forward`, of either kind. Else as `rnn_backward`."""
    return _backward("gru", tape, dy, dstate, reduction, retain)


def gru_cell(where: str, reset_after: object) -> str:
    """The core's name of a GRU."""
    return "gru" if _validate.flag(where, "reset_after", reset_after) else "gru_reset_before"


def _backward(
    family: str,
    tape: Tape,
    dy: Array | None,
    dstate: Array | None,
    reduction: str,
    retain: bool,
) -> Gradients:
    """Backward of the cells whose state is h alone."""
    _validate.flag(f"{family}_backward", "retain", retain)
    dh = _single(f"{family}_backward", "dstate", dstate)
    dx, dh, _, *dweights = _core.backward(tape, family, dy, dh, None, reduction, retain)
    return Gradients(dx, dh, *dweights)  # type: ignore[arg-type]


def _single(where: str, name: str, state: Any) -> Any:
    if isinstance(state, (tuple, list)):
        raise TypeError(f"{where}: {name} is a {type(state).__name__}, expected an array (N, H)")
    return state


def _pair(where: str, name: str, state: Any) -> tuple[Any, Any]:
    if state is None:
        return None, None
    if not isinstance(state, (tuple, list)):
        raise TypeError(f"{where}: {name} is a {type(state).__name__}, expected a pair (h, c)")
    if len(state) != 2:
        raise ValueError(f"{where}: {name} has {len(state)} entries, expected a pair (h, c)")
    return state[0], state[1]
