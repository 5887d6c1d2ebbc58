"""Saving a training run, and going on with it to the same bits.

A run is a tree of arrays and plain values in a safetensors file: arrays as tensors, the rest as
JSON. Nothing that is loaded is executed.
"""

from __future__ import annotations

import copy
import json
import os
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt import _validate, io
from bptt.average import WeightAverage
from bptt.callbacks import Callback
from bptt.configuration import require_same
from bptt.history import History
from bptt.layers import Layer
from bptt.layers.base import State
from bptt.lr import LearningRate
from bptt.optim import Optimizer
from bptt.schedule import Schedule

__all__ = ["Position", "Resumable"]

Array: TypeAlias = NDArray[Any]

_KEY = "bptt_run"  # of the metadata
# What comes of a file whose JSON is not what `save` wrote.
_DAMAGE = (
    *(AttributeError, IndexError, KeyError, OverflowError, RecursionError),
    *(TypeError, ValueError),
)


class Position(NamedTuple):
    """Where a run goes on."""

    epoch: int = 1
    at: int | None = 0  #: within it; None: nowhere but at an epoch's beginning
    state: State = None  #: the model's there


class Resumable:
    """What a run depends on, and how that is saved and loaded."""

    model: Layer
    optimizer: Optimizer
    schedule: Schedule | None
    learning_rate: LearningRate | None
    average: WeightAverage | None
    callbacks: tuple[Callback, ...]
    history: History
    _made_with: dict[str, Any]  # the `configuration` of all of it
    _position: Position
    _data: dict[str, Any] | None  # the description of the latest run's
    _resumes: bool  # whether the next `fit` goes on with a loaded run

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes to a safetensors file all that the rest of the run depends on: weights, optimizer,
        schedules, average, callbacks, random states, history, and the position in the data.

        Raises `ValueError` in the middle of an epoch of streams where the next window reaches back
        into the one before (k2 > k1, or a last window shorter than k2): tapes are not saved.
        `OSError` where the file can't be written.
        """
        if self._position.at is None:
            raise ValueError(
                f"Trainer.save: the next window of {self.schedule!r} reaches back into the one "
                "before, expected another update or the end of an epoch"
            )
        arrays: dict[str, Array] = {}
        plain = _pack(self._state(), "run", arrays)
        io.save(path, arrays, {_KEY: json.dumps(plain)})

    def load(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save` wrote; the next `fit` goes on there, to the same bits.

        The trainer must be made of the same parts with the same options, and `fit` be given the
        same data. Options that are to be others from here on are set after loading, as in
        `trainer.clip_norm = 0.5`; those of callbacks that only look on may be others at once.
        Raises `ValueError` naming what differs, or for another file or a damaged one, `OSError`
        where it can't be read; the trainer then is as it was.
        """
        where = f"Trainer.load({os.fspath(path)!r})"
        arrays, metadata = io.load(path)
        if _KEY not in metadata:
            raise ValueError(f"{where}: the file is no run that Trainer.save wrote")
        damaged = f"{where}: the file's run is damaged"
        try:
            state = _unpack(json.loads(metadata[_KEY]), arrays)
            _validate.same_names(where, "the saved run", state, self._state())
            for name in ("made_with", "parts"):
                _validate.instance(where, name, state[name], dict)
        except _DAMAGE as error:
            raise ValueError(f"{damaged}: {error}") from error
        require_same(where, state["made_with"], self._made_with)
        before = copy.deepcopy(self._state())
        try:
            self._take(state)
        except BaseException as error:
            self._take(before)
            if isinstance(error, _DAMAGE):
                raise ValueError(f"{damaged}: {error}") from error
            raise
        self._resumes = True

    def _take(self, state: dict[str, Any]) -> None:
        """What `_state` returned."""
        self.model.load_parameters(state["parameters"])
        self.model.random_state = state["random_state"]
        parts = self._parts()
        _validate.same_names("Trainer.load", "the saved run", state["parts"], parts)
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        self.history = History()
        self.history.load_state_dict(state["history"])
        epoch, at, its_state = state["position"]
        epoch = _validate.size("Trainer.load", "the epoch", epoch)
        if at is not None:
            at = _validate.size("Trainer.load", "the position", at, minimum=0)
        self._position = Position(epoch, at, its_state)
        self._data = state["data"]

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own."""
        parts: dict[str, Any] = {
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "learning_rate": self.learning_rate,
            "average": self.average,
        }
        parts |= {f"callbacks[{i}]": callback for i, callback in enumerate(self.callbacks)}
        return {name: part for name, part in parts.items() if part is not None}

    def _state(self) -> dict[str, Any]:
        return {
            "parameters": dict(self.model.parameters),
            "random_state": self.model.random_state,
            "made_with": self._made_with,
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
            "history": self.history.state_dict(),
            "position": tuple(self._position),
            "data": self._data,
        }


def _pack(tree: Any, name: str, arrays: dict[str, Array]) -> Any:
    """The tree with {"array": its name} for each array, which goes to `arrays`, {"tuple": its
    entries} for each tuple, and {"dict": its entries} for each dict (of strings)."""
    if isinstance(tree, np.ndarray):
        arrays[name] = tree
        return {"array": name}
    if isinstance(tree, dict):
        return {"dict": {key: _pack(value, f"{name}.{key}", arrays) for key, value in tree.items()}}
    if isinstance(tree, (list, tuple)):
        entries = [_pack(value, f"{name}.{i}", arrays) for i, value in enumerate(tree)]
        return {"tuple": entries} if isinstance(tree, tuple) else entries
    return tree


def _unpack(plain: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(plain, list):
        return [_unpack(value, arrays) for value in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, content),) = plain.items()
    if kind == "array":
        return arrays[content]
    if kind == "tuple":
        return tuple(_unpack(value, arrays) for value in content)
    return {key: _unpack(value, arrays) for key, value in content.items()}
