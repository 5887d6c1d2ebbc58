"""What `gradient_flow` found, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

import bptt.flow.pictures as pictures
from bptt import _validate
from bptt.flow.report import table

Array: TypeAlias = NDArray[Any]

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
VANISHED, EXPLODED = 1e-3, 1e2  # of what a loss sends: below and above it there is a warning


class Recommendation(NamedTuple):
    """The shortest window whose gradient is within a tolerance of the full one."""

    window: int | None  #: steps; None where no window up to max_lag+1 is within it
    bias: float  #: |truncated - full| / |full| of that window, or of the longest
    error: float  #: the bias's standard error over the batch's sequences; NaN where unknown
    tolerance: float
    longest: int  #: the longest window that was measured

    def __str__(self) -> str:
        error = "" if np.isnan(self.error) else f" +- {100 * self.error:.1g} %"
        if self.window is None:
            return (
                f"no window up to {self.longest} is within {100 * self.tolerance:g} % of the full "
                f"gradient (the longest: {100 * self.bias:.3g} %{error})"
            )
        return (
            f"window {self.window}: within {100 * self.tolerance:g} % of the full gradient "
            f"({100 * self.bias:.2g} %{error})"
        )


@dataclass(repr=False)
class LayerFlow:
    """The gradient's way through one recurrent layer in one direction. L is the loss, of all steps
    and sequences.

    Entry k of what is by lag is the part of dL/dW_hh that travelled exactly k steps back from the
    loss that caused it. Entry k of what is by window is of the gradient truncated to a window of
    `windows[k]` = k+1 steps, which keeps the lags 0..k.

    In reverse a layer hands its gradient to the next step, not to the one before: there step t+1
    is t-1 in all that follows, and back is ahead in time.
    """

    name: str
    """Of the layer in the model, as in its parameters' names; "1.l0" within a stack, "1.l0_reverse"
    of a second direction."""
    cell: str
    reverse: bool  #: whether it runs from the last step to the first
    direct: Array  #: (T, N, H): of dL/dh_t what comes through y_t: from the loss, or layers above
    recurrent: Array  #: (T, N, H): of dL/dh_t what step t+1 hands back
    dc: Array | None  #: (T, N, H): dL/dc_t, LSTM only
    h: Array  #: (T+1, N, H): the states; h[0] (in reverse h[T]) is the initial one
    weight_hh: Array  #: (G*H, H): dL/dW_hh
    valid_steps: int  #: (step, sequence) pairs that count: N*T without lengths
    norms_by_step: Array  #: (T, 4): |dW_ih(t)|, |dW_hh(t)|, |db_ih(t)|, |db_hh(t)|
    # Where asked for; the biases' also of a layer without biases, which might have had them.
    weight_ih_by_step: Array | None = None  #: (T, G*H, D): dW_ih(t), which sum to dL/dW_ih
    weight_hh_by_step: Array | None = None  #: (T, G*H, H): dW_hh(t)
    bias_ih_by_step: Array | None = None  #: (T, G*H): db_ih(t)
    bias_hh_by_step: Array | None = None  #: (T, G*H): db_hh(t)
    delta: Array | None = None  #: (T, N, G*H): dL/d(W_hh h + b_hh), likewise
    # What follows is of the lags; without them it is empty.
    both_ways: bool = False  #: whether some came through a layer that runs the other way
    norm_by_lag: Array = field(default_factory=lambda: np.zeros(0))  #: (max_lag+1,): |D[k]|
    cosine_by_lag: Array = field(default_factory=lambda: np.zeros(0))  #: of D[k] to dL/dW_hh
    bias_by_window: Array = field(default_factory=lambda: np.zeros(0))  #: |truncated-full|/|full|
    bias_error_by_window: Array = field(default_factory=lambda: np.zeros(0))  #: its standard error
    cosine_by_window: Array = field(default_factory=lambda: np.zeros(0))  #: of truncated to full
    lag_map: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """(max_lag+1, T): entry [k, t] is |dL_{t+k}/dh_t|, over all sequences; NaN where there is no
    such step. With `both_ways` it is the norm of all that came to h_t in k steps, of which some
    were back and some ahead."""
    norm_by_lag_through_c: Array | None = None
    """(max_lag+1,), LSTM, where asked for: of the part of D[k] that c alone carried, never through
    this layer's own W_hh."""
    norm_by_lag_through_h: Array | None = None  #: of the rest: through h at least once
    weight_hh_by_lag: Array | None = None  #: (max_lag+1, G*H, H): D[k], where asked for
    weight_hh_by_lag_through_c: Array | None = None  #: likewise, where asked for and by way

    def __repr__(self) -> str:
        T, N, H = self.direct.shape
        called = f"LayerFlow {self.name or '0'} ({self.cell})"
        return f"<{called}: T {T}, N {N}, H {H}, {len(self.norm_by_lag)} lags>"

    @property
    def dh(self) -> Array:
        """dL/dh_t (T, N, H), the sum of `direct` and `recurrent`."""
        total: Array = self.direct + self.recurrent
        return total

    @property
    def norm_by_step(self) -> Array:
        """|dW_hh(t)|, (T,)."""
        column: Array = self.norms_by_step[:, WEIGHTS.index("weight_hh")]
        return column

    @property
    def weight_hh_sum(self) -> Array:
        """The sum over time: the gradient itself."""
        return self.weight_hh

    @property
    def weight_hh_mean(self) -> Array:
        """The mean over time: the sum divided by the number of valid (step, sequence) pairs."""
        mean: Array = self.weight_hh / max(1, self.valid_steps)
        return mean

    @property
    def max_lag(self) -> int:
        return len(self.norm_by_lag) - 1

    @property
    def windows(self) -> Array:
        """The window lengths that the entries by window are of: 1..max_lag+1."""
        return np.arange(1, len(self.bias_by_window) + 1)

    @property
    def decay(self) -> Array:
        """(max_lag+1,): |dL_s/dh_{s-k}| relative to |dL_s/dh_s|, root mean squares over the losses
        s that have k steps before them (in reverse: after them; with `both_ways`: over all); NaN
        where those send nothing."""
        with np.errstate(over="ignore"):
            squares = np.square(self.lag_map.astype(np.float64))
        if not len(squares):
            return np.zeros(0)
        arrived = np.nansum(squares, axis=1)
        losses = squares[0, :: -1 if self.reverse else 1]  # in the order in which steps are taken
        sent = np.array([losses[0 if self.both_ways else k :].sum() for k in range(len(squares))])
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            share: Array = np.sqrt(arrived / sent)
        return share

    def recommend_window(self, tolerance: float = 0.05) -> Recommendation:
        """The shortest window from which on the truncated gradient stays within `tolerance`.

        The criterion is that of Aicher, Foti & Fox (2019), the relative bias of the gradient, here
        measured and not bounded. Its standard error is a jackknife over blocks of sequences.

        Args:
            tolerance: in (0, 1), relative to the full gradient's norm.
        """
        where = "recommend_window"
        tolerance = _validate.number(where, "tolerance", tolerance, 0.0, 1.0, bounds="()")
        self._needs_lags(where)
        # From the longest back: one that is within it by chance, between two that are not, is none.
        beyond = np.flatnonzero(~(self.bias_by_window <= tolerance))
        at = int(beyond[-1]) + 1 if len(beyond) else 0
        found = at < len(self.bias_by_window)
        entry = at if found else len(self.bias_by_window) - 1
        return Recommendation(
            entry + 1 if found else None,
            float(self.bias_by_window[entry]),
            float(self.bias_error_by_window[entry]),
            tolerance,
            len(self.bias_by_window),
        )

    def window(self, length: int) -> tuple[float, float]:
        """The relative bias and the cosine of a window of `length` steps, 1..max_lag+1."""
        self._needs_lags("window")
        length = _validate.size("window", "length", length)
        if length > self.max_lag + 1:
            raise ValueError(
                f"window: length is {length}, expected at most max_lag + 1 = {self.max_lag + 1}"
            )
        return float(self.bias_by_window[length - 1]), float(self.cosine_by_window[length - 1])

    @property
    def warnings(self) -> list[str]:
        """Sentences about gradients that vanish, explode, or are not finite."""
        found = []
        dh = self.dh.astype(np.float64).reshape(len(self.dh), -1)
        size = np.abs(dh).max(axis=1, initial=0.0)
        with np.errstate(invalid="ignore"):  # scaled, so that no square overflows
            size = size * np.linalg.norm(dh / np.where(size > 0, size, 1)[:, None], axis=1)
        bad = np.flatnonzero(~np.isfinite(size))
        called = f"layer {self.name}" if self.name else "the layer"
        if len(bad):
            at, beyond = (bad[0], "after") if self.reverse else (bad[-1], "before")
            return [f"{called}: dL/dh_t is not finite at step {at} and {beyond}"]
        if not self.weight_hh.any():
            return [f"{called}: dL/dW_hh is zero: no window is better than another"]
        decay = self.decay
        gone, grown = np.flatnonzero(decay < VANISHED), np.flatnonzero(decay > EXPLODED)
        if len(grown):
            k = int(grown[0])
            step = int(np.argmax(size))
            found.append(
                f"{called}: gradients explode: {k} steps back, |dL_s/dh_t| is {decay[k]:.3g} times "
                f"what the loss sent; |dL/dh_t| is largest at step {step} ({size[step]:.3g})"
            )
        if len(gone):
            k = int(gone[0])
            found.append(
                f"{called}: gradients vanish: {k} steps back, {100 * decay[k]:.2g} % of what the "
                "loss sent is left"
            )
        if not len(decay) and size.size and size.min() > 0:
            first, last = (len(size) - 1, 0) if self.reverse else (0, len(size) - 1)
            ratio = size[first] / size[last]
            if ratio > EXPLODED:
                found.append(
                    f"{called}: gradients explode: |dL/dh_t| is {ratio:.3g} times as large at step "
                    f"{first} as at step {last}"
                )
        return found

    def _needs_lags(self, where: str) -> None:
        if not len(self.bias_by_window):
            raise ValueError(
                f"{where}: this flow was measured with per_lag=False, expected per_lag=True"
            )


@dataclass
class Flow:
    """What `gradient_flow` found. Unknown attributes are those of the last recurrent layer."""

    loss: float
    layers: list[LayerFlow]  #: the recurrent layers, first to last
    notes: list[str]  #: what was held constant or left out, in words

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "layers":
            raise AttributeError(name)
        return getattr(self.layers[-1], name)

    def recommend_window(self, tolerance: float = 0.05) -> Recommendation:
        """The shortest window that is within `tolerance` for every recurrent layer."""
        each = [layer.recommend_window(tolerance) for layer in self.layers]
        return max(each, key=lambda r: (r.window is None, r.window or 0, r.bias))

    @property
    def warnings(self) -> list[str]:
        return [sentence for layer in self.layers for sentence in layer.warnings]

    def report(self, tolerance: float = 0.05) -> str:
        """A table of lags and windows, the recommendation, warnings and notes, as text."""
        parts = [table(layer) for layer in self.layers]
        parts.append(str(self.recommend_window(tolerance)))
        parts += [f"warning: {sentence}" for sentence in self.warnings]
        parts += [f"note: {sentence}" for sentence in self.notes]
        return "\n".join(parts)

    def plot(self, path: str | Path, layer: int = -1, tolerance: float = 0.05) -> None:
        """Four pictures of one layer in a PNG file (with the extra `plot`).

        Args:
            path: of the file; its folder must be there.
            layer: which one of `layers`, counted from the end where negative.
            tolerance: of the recommended window, in (0, 1).
        """
        if layer not in range(-len(self.layers), len(self.layers)):
            raise ValueError(f"plot: layer is {layer}, expected one of {len(self.layers)} layers")
        pictures.overview(
            Path(path), self.layers[layer], self.layers[layer].recommend_window(tolerance)
        )
