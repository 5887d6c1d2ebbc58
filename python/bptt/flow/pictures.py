"""A layer's flow as pictures, by matplotlib (the extra `plot`). They are readable in print: grey
levels carry the values, and lines differ in style."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from bptt.io import write_atomically

DECADES = 6  # of the map's grey levels


def overview(path: Path, layer: Any, recommendation: Any) -> None:
    """The map, the decay, the windows and the steps, side by side in one PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8.2), layout="constrained")
    axes = figure.subplots(2, 2)
    lag_map(figure, axes[0, 0], layer)
    lag_decay(axes[0, 1], layer)
    windows(axes[1, 0], layer, recommendation)
    steps(axes[1, 1], layer)
    figure.suptitle(f"layer {layer.name or '0'} ({layer.cell}): {recommendation}")
    save(figure, path)


def lag_map(figure: Any, axes: Any, layer: Any) -> None:
    """|dL_s/dh_t| over t and s - t."""
    values = layer.lag_map
    with np.errstate(divide="ignore"):
        levels = np.log10(values)
    finite = levels[np.isfinite(levels)]
    top = float(finite.max()) if finite.size else 0.0
    image = axes.imshow(
        levels.clip(min=top - DECADES),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="Greys",
        vmin=top - DECADES,
        vmax=top,
        extent=(-0.5, values.shape[1] - 0.5, -0.5, len(values) - 0.5),
    )
    axes.patch.set(hatch="////", edgecolor="0.85", facecolor="white")  # where there is no such loss
    figure.colorbar(image, ax=axes, label="log10 |dL$_s$/dh$_t$| (loss per unit of h)")
    difference, loss = ("t - s", "t - lag") if layer.reverse else ("s - t", "t + lag")
    lag, what = f"lag {difference}", f"What the loss at s = {loss} sends to h$_t$"
    if layer.both_ways:
        lag, what = "lag", "What comes to h$_t$ in so many steps, back or ahead"
    axes.set(xlabel="step t", ylabel=f"{lag} (steps)")
    axes.set_title(f"{what}\n{_map_sentence(layer)}", fontsize=9)


def lag_decay(axes: Any, layer: Any) -> None:
    """Norms over the lag."""
    lags = np.arange(len(layer.norm_by_lag))
    whole = np.linalg.norm(layer.weight_hh.astype(np.float64)) or 1.0
    curves = [("|D[k]| / |dW$_{hh}$|", layer.norm_by_lag / whole, "-", "black")]
    if layer.norm_by_lag_through_c is not None:
        through_c, through_h = layer.norm_by_lag_through_c, layer.norm_by_lag_through_h
        curves.append(("of it through c alone", through_c / whole, "--", "0.35"))
        curves.append(("of it through h", through_h / whole, "-.", "0.35"))
    curves.append(("|dL$_s$/dh$_t$|, lag 0 = 1", layer.decay, ":", "black"))
    for label, values, style, colour in curves:
        shown = np.where(values > 0, values, np.nan)
        axes.plot(lags, shown, linestyle=style, color=colour, label=label, linewidth=1.4)
    axes.set(yscale="log", xlabel="lag k (steps)", ylabel="relative norm")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, high * 1e-9), high)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(f"How much travels k steps back\n{_decay_sentence(layer)}", fontsize=9)


def windows(axes: Any, layer: Any, recommendation: Any) -> None:
    """Bias and cosine over the window."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    bias, error = layer.bias_by_window, layer.bias_error_by_window
    axes.plot(layer.windows, bias, color="black", label="|truncated - full| / |full|")
    if np.isfinite(error).any():
        axes.fill_between(
            layer.windows,
            (bias - error).clip(min=0),
            bias + error,
            color="0.8",
            label="+- its standard error",
        )
    axes.plot(layer.windows, layer.cosine_by_window, "--", color="0.35", label="cosine to full")
    axes.axhline(recommendation.tolerance, color="black", linewidth=0.6, linestyle=":")
    if recommendation.window is not None:
        axes.axvline(recommendation.window, color="black", linewidth=0.6, linestyle=":")
    axes.set(xlabel="window (steps)", ylabel="relative bias; cosine", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(
        min(0.0, float(layer.cosine_by_window.min())) - 0.03, max(1.05, 1.05 * bias.max())
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    share = f"within {100 * recommendation.tolerance:g} % of it."
    sentence = f"The shortest window {share[:-1]} has {recommendation.window} steps."
    if recommendation.window is None:
        sentence = f"No window up to {recommendation.longest} steps is {share}"
    axes.set_title(f"What a window gives of the full gradient\n{sentence}", fontsize=9)


def steps(axes: Any, layer: Any) -> None:
    """Norms over the step."""
    t = np.arange(len(layer.norm_by_step))

    def norm(values: Any) -> Any:
        found = np.linalg.norm(values.astype(np.float64).reshape(len(values), -1), axis=1)
        return np.where(found > 0, found, np.nan)

    axes.plot(t, norm(layer.dh), color="black", label="|dL/dh$_t$|")
    axes.plot(t, norm(layer.direct), color="0.7", linewidth=1, label="of it: direct$_t$")
    axes.plot(
        t, norm(layer.recurrent), "--", color="0.35", linewidth=1, label="of it: recurrent$_t$"
    )
    axes.plot(t, norm(layer.norm_by_step), ":", color="black", label="|dW$_{hh}$(t)|")
    axes.set(yscale="log", xlabel="step t", ylabel="norm (loss per unit of h, per weight)")
    low, high = axes.get_ylim()
    axes.set_ylim(low * (low / high) ** 0.25, high)  # room for the legend
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2, loc="lower right")
    axes.set_title(f"Step by step\n{_step_sentence(layer)}", fontsize=9)


def _map_sentence(layer: Any) -> str:
    decay = layer.decay
    tenth = np.flatnonzero(decay < 0.1)
    if len(tenth):
        return f"Darker is more: {tenth[0]} steps back less than a tenth is left."
    return f"Darker is more: {len(decay) - 1} steps back {100 * decay[-1]:.3g} % is left."


def _decay_sentence(layer: Any) -> str:
    if len(layer.norm_by_lag) < 2:
        return "Only lag 0 was measured."
    largest = int(np.argmax(layer.norm_by_lag))
    if largest == 0:
        return "The largest share stays where its loss is, at lag 0."
    return f"The largest share travels {largest} step{'s' * (largest != 1)} back."


def _step_sentence(layer: Any) -> str:
    size = np.linalg.norm(
        layer.recurrent.astype(np.float64).reshape(len(layer.recurrent), -1), axis=1
    )
    direct = np.linalg.norm(layer.direct.astype(np.float64).reshape(len(size), -1), axis=1)
    more = float(np.mean(size > direct))
    others = "earlier" if layer.reverse else "later"
    return f"At {100 * more:.0f} % of the steps more comes from {others} ones than from now."


def save(figure: Any, path: Path) -> None:
    """As a PNG file, written whole or not at all."""
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())
