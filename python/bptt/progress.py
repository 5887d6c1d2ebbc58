"""The progress bar of a training run."""

from __future__ import annotations

import sys
from typing import Any

from bptt.data import Data
from bptt.history import Record
from bptt.schedule import Schedule

__all__ = ["bar", "postfix", "tell"]


def bar(
    data: Data,
    schedule: Schedule | None,
    accumulate: int,
    epoch: int,
    epochs: int | None,
    updates: int | None,
    progress: bool,
) -> Any:
    """A progress bar that counts time steps, so that its rate is time steps per second."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    totals = []
    if epochs is not None and data.steps is not None:
        totals.append((epochs - epoch + 1) * data.steps)
    windows = data.windows(schedule)
    if updates is not None and data.steps is not None and windows is not None:
        totals.append(updates * data.steps // -(-windows // accumulate))
    return tqdm(
        total=min(totals, default=None),
        unit=" steps",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not progress,
    )


def postfix(record: Record, note: str) -> str:
    text = f"loss {record.loss:.4f}, gradient norm {record.gradient_norm:.3g}"
    return f"{text}, {note}" if note else text


def tell(sentence: str) -> None:
    """Prints a line above the bar, where there is one."""
    from tqdm import tqdm

    tqdm.write(sentence, file=sys.stderr)
