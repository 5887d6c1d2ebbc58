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
) -> None:
    """One value for each update, and (update, value) for what was held out, into a PNG file."""
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, len(training) + 1), training, linewidth=0.6, color="0.6", label="training")
    axes.plot(*zip(*held_out, strict=True), marker="o", markersize=3, label="held out")
    axes.set(xlabel="update", ylabel=unit)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_atomically(path, picture.getvalue())
