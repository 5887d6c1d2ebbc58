"""Pictures, by matplotlib where it is installed (the extra `plot`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from bptt.io import write_atomically


def available() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def training_curve(
    path: Path,
    training: Sequence[float],
    held_out: Sequence[tuple[int, float]],
    unit: str = "bits per character",
    norms: Sequence[float] = (),
    clip: float | None = None,
) -> None:
    """One value for each update, and (update, value) for what was held out, into a PNG file.

    `norms`, where given, are of each update's gradient before it was clipped to `clip`.
    """
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    figure = Figure(figsize=(8, 7 if norms else 4.5), layout="constrained")
    axes = figure.add_subplot(2 if norms else 1, 1, 1)
    axes.plot(range(1, len(training) + 1), training, linewidth=0.6, color="0.6", label="training")
    axes.plot(*zip(*held_out, strict=True), marker="o", markersize=3, label="held out")
    axes.set(xlabel="update", ylabel=unit)
    sentence = f"After {len(training)} updates: {training[-1]:.3g} {unit} in training"
    if held_out:
        sentence += f", {held_out[-1][1]:.3g} held out"
    axes.set_title(sentence + ".", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    if norms:
        _norms(figure.add_subplot(2, 1, 2), norms, clip)
    _save(figure, path)


def _norms(axes: Any, norms: Sequence[float], clip: float | None) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.plot(range(1, len(norms) + 1), norms, linewidth=0.6, color="0.3", label="|dL/dparameters|")
    sentence = f"The gradient's norm: between {min(norms):.2g} and {max(norms):.2g}"
    if clip is not None:
        axes.axhline(clip, linestyle="--", linewidth=0.8, color="black", label="clipped to")
        clipped = sum(norm > clip for norm in norms) / len(norms)
        sentence += f"; {100 * clipped:.2g} % of the updates were clipped"
    axes.set(xlabel="update", ylabel="norm (nats per unit of parameter)", yscale="log")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.25)  # room for the legend
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_title(sentence + ".", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", ncols=2)


def _save(figure: Any, path: Path) -> None:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())
