"""A layer's flow as a table in the terminal."""

from __future__ import annotations

from typing import Any

import numpy as np


def chosen(count: int) -> list[int]:
    """Entries to show of `count`: all of few, else ever wider apart."""
    wanted = {0, 1, 2, 3, count - 1}
    step = 4
    while step < count:
        wanted |= {step - 1, step + step // 2 - 1}
        step *= 2
    return sorted(i for i in wanted if 0 <= i < count)


def table(layer: Any) -> str:
    """Lags beside windows. Relative norms: |D[k]| / |dW_hh|."""
    size = float(np.linalg.norm(layer.weight_hh.astype(np.float64)))
    whole = size or 1.0
    lines = [
        f"layer {layer.name or '0'} ({layer.cell}): |dW_hh| = {size:.3g}",
        "  window   its bias  +-error  cosine |  lag  |D[lag]|/|dW_hh|  |dL_s/dh_t|",
    ]
    decay = layer.decay
    for k in chosen(len(layer.bias_by_window)):
        error = layer.bias_error_by_window[k]
        part = 100 * layer.norm_by_lag[k] / whole
        spread = "      -" if np.isnan(error) else f"{100 * error:6.2f}%"
        lines.append(
            f"  {k + 1:6d}  {100 * layer.bias_by_window[k]:8.2f}%  {spread}  "
            f"{layer.cosine_by_window[k]:6.3f} | {k:4d}  {part:15.3g}%"
            f"  {100 * decay[k]:10.3g}%"
        )
    return "\n".join(lines)
