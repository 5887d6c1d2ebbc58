"""The character model of `bptt train`: an embedding, a recurrent layer and a linear map.

Text is a stream of characters; the model reads one and says how probable each is to be the next.
Its quality is told in bits per character: the mean of -log2 of the probability that it gave to the
character that came.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bptt.flow import Flow, gradient_flow
from bptt.layers import GRU, LSTM, RNN, Embedding, Linear, Sequential
from bptt.losses import softmax_cross_entropy
from bptt.models import load_model, save_model
from bptt.optim import Adam
from bptt.schedule import TruncatedBPTT
from bptt.trainer import History, Record, Trainer

__all__ = [
    "CharacterModel",
    "Options",
    "Report",
    "help_text",
    "measure_flow",
    "read_text",
    "train",
]

Indices: TypeAlias = NDArray[np.int64]

CELLS: dict[str, type[RNN] | type[LSTM] | type[GRU]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
BITS = 1 / math.log(2)  # a nat


def help_text() -> str:
    """The text of Python's own help pages, which is there wherever Python is."""
    from pydoc_data.topics import topics

    return "\n".join(topics[key] for key in sorted(topics))


def read_text(path: Path) -> str:
    """A text file's text.

    Raises `ValueError` where it is empty or not UTF-8, `OSError` where it can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (byte 0x{error.object[error.start]:02x} at position "
            f"{error.start}), expected UTF-8 text"
        ) from None
    if not text:
        raise ValueError(f"{path} is empty, expected UTF-8 text")
    return text


class CharacterModel:
    """A `Sequential` over characters, its vocabulary and its file format.

    Args:
        vocabulary: every character it knows, each once.
        cell: "lstm", "gru" or "rnn".
        embedding, hidden: sizes of the first two layers.
        seed: of the initial weights.
    """

    def __init__(
        self, vocabulary: str, cell: str, embedding: int, hidden: int, seed: int | None = None
    ) -> None:
        if cell not in CELLS:
            raise ValueError(f"CharacterModel: cell is {cell!r}, expected one of {list(CELLS)}")
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("CharacterModel: vocabulary holds a character twice")
        self.vocabulary = "".join(sorted(vocabulary))
        self.configuration = {"cell": cell, "embedding": embedding, "hidden": hidden}
        V = len(vocabulary)
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(3)]
        self.network = Sequential(
            Embedding(V, embedding, seed=seeds[0]),
            CELLS[cell](embedding, hidden, seed=seeds[1]),
            Linear(hidden, V, seed=seeds[2]),
        )
        self._codes = _codes(self.vocabulary)

    def encode(self, text: str) -> Indices:
        """Each character's index. Raises `ValueError` for one that is not in the vocabulary."""
        codes = _codes(text)
        index = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        unknown = np.flatnonzero(self._codes[index] != codes)
        if unknown.size:
            first = int(unknown[0])
            raise ValueError(
                f"the character {text[first]!r} at position {first} is none of the "
                f"{len(self.vocabulary)} that the model knows"
            )
        return index.astype(np.int64)

    def generate(
        self, length: int, prompt: str = "", temperature: float = 1.0, seed: int | None = None
    ) -> str:
        """`prompt` and `length` more characters; without a prompt it starts after a newline.

        Logits are divided by `temperature`: below 1 the probable becomes more so. Raises
        `ValueError` for a character that the model does not know.
        """
        random = np.random.default_rng(seed)
        start = prompt or ("\n" if "\n" in self.vocabulary else self.vocabulary[0])
        logits, state = self.network.predict(self.encode(start)[:, None])
        logits = logits[-1]
        written = []
        for _ in range(length):
            scaled = logits[0].astype(np.float64) / temperature
            probability = np.exp(scaled - scaled.max())
            chosen = random.choice(len(self.vocabulary), p=probability / probability.sum())
            written.append(self.vocabulary[chosen])
            logits, state = self.network.step(np.array([chosen]), state)
        return prompt + "".join(written)

    def save(self, path: Path, training: dict[str, Any]) -> None:
        """Writes weights, vocabulary and configuration; `training` tells how it came about."""
        metadata = {
            "vocabulary": self.vocabulary,
            "configuration": json.dumps({**self.configuration, "training": training}),
        }
        save_model(path, self.network, metadata)

    @classmethod
    def load(cls, path: Path) -> CharacterModel:
        """What `save` wrote.

        Raises `ValueError` for any other file, `OSError` where it can't be read.
        """
        try:
            network, metadata = load_model(path)
            configuration = json.loads(metadata["configuration"])
            sizes = {key: configuration[key] for key in ("cell", "embedding", "hidden")}
            model = cls(metadata["vocabulary"], **sizes)
            model.network.load_parameters(network.parameters)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no character model of bptt train: {error}") from error
        return model


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


class Options(NamedTuple):
    """How a model is trained. The first limit that is reached ends the run; one must be given."""

    batch: int = 32  #: streams that the text is cut into
    k1: int = 64  #: time steps from update to update
    k2: int = 64  #: time steps that a loss is propagated back through
    lr: float = 2e-3  #: Adam's
    clip: float = 1.0  #: largest global norm of a gradient
    updates: int | None = None
    epochs: int | None = None
    minutes: float | None = None


class Measurement(NamedTuple):
    update: int
    bits: float  #: per held-out character


class Report(NamedTuple):
    """What a run of `train` did."""

    history: History
    held_out: list[Measurement]
    training_bits: float  #: per character, over the last updates
    seconds: float

    @property
    def held_out_bits(self) -> float:
        return self.held_out[-1].bits


def train(
    model: CharacterModel,
    text: str,
    options: Options,
    path: Path,
    stopped: Callable[[], bool] = lambda: False,
    progress: bool = True,
    save_every: float = 5.0,
) -> Report:
    """Trains on the first nine tenths of `text`, measures on the last tenth, saves to `path`.

    Every `save_every` seconds, or less often where measuring takes long, and at the end it measures
    and then replaces the file at `path` as a whole: whatever ends the run, the last good model is
    there. `stopped` is asked after each update; true ends the run.

    Raises `ValueError` for a text that is too short, `ArithmeticError` (`DivergenceError`, as
    `Trainer.fit`) for a loss that is not finite.
    """
    indices = model.encode(text)
    cut = len(indices) - len(indices) // 10
    needed = options.batch * options.k1 + 1
    if cut < needed or len(indices) - cut < 2:
        raise ValueError(
            f"the text is too short: its first nine tenths have {cut} characters, expected "
            f"{max(needed, 18)} or more for {options.batch} streams of {options.k1} steps"
        )
    x, target = _streams(indices[:cut], options.batch)
    # The first characters of a stream are guessed without a past: few streams, then.
    held_out_streams = min(options.batch, max(1, (len(indices) - cut) // (32 * options.k1)))
    held_out = _streams(indices[cut:], held_out_streams)

    optimizer = Adam(lr=options.lr)
    schedule = TruncatedBPTT(options.k1, options.k2)
    trainer = Trainer(model.network, softmax_cross_entropy, optimizer, schedule, options.clip)
    measurements: list[Measurement] = []
    start = time.perf_counter()
    next_time = start + save_every

    def measure_and_save(update: int) -> None:
        bits = trainer.evaluate(*held_out) * BITS
        if not math.isfinite(bits):
            raise ArithmeticError(
                f"training diverged: {bits} bits per held-out character after update {update}"
            )
        measurements.append(Measurement(update, bits))
        model.save(path, {**options._asdict(), "updates": update, "held_out_bits": bits})

    def on_update(record: Record) -> bool:
        nonlocal next_time
        before = time.perf_counter()
        if before >= next_time:
            measure_and_save(record.update)
            now = time.perf_counter()
            # At most a twentieth of the time goes into measurements.
            next_time = now + max(save_every, 20 * (now - before))
        trainer.note = f"bits per character {_recent_bits(trainer.history):.3f}"
        if measurements:
            trainer.note += f", held out {measurements[-1].bits:.3f}"
        return stopped()

    history = trainer.fit(
        x,
        target,
        options.epochs,
        minutes=options.minutes,
        updates=options.updates,
        on_update=on_update,
        progress=progress,
    )
    seconds = time.perf_counter() - start
    measure_and_save(len(history))
    return Report(history, measurements, _recent_bits(history), seconds)


def measure_flow(
    model: CharacterModel,
    text: str,
    steps: int,
    batch: int,
    max_lag: int | None = None,
    by_way: bool = False,
) -> Flow:
    """How far back the model's gradient reaches on `batch` pieces of the text, `steps` long.

    Each piece begins in the state that the characters before it lead to. `steps` and `max_lag` are
    cut to what the text has. Raises `ValueError` for a text that is too short, or that has
    characters which the model does not know.
    """
    indices = model.encode(text)
    if len(indices) < 2 * batch + 1:
        raise ValueError(
            f"the text is too short: it has {len(indices)} characters, expected {2 * batch + 1} "
            f"or more for {batch} pieces"
        )
    x, target = _streams(indices, batch)
    steps = min(steps, len(x))
    before = min(steps, len(x) - steps)
    _, state = model.network.predict(x[:before]) if before else (None, None)
    now = slice(before, before + steps)
    max_lag = None if max_lag is None else min(max_lag, steps - 1)
    return gradient_flow(
        model.network,
        x[now],
        target[now],
        softmax_cross_entropy,
        max_lag,
        state=state,
        by_way=by_way,
    )


def _recent_bits(history: History) -> float:
    """Bits per training character over the latest updates, each measured before it was made."""
    latest = history.records[-100:]
    return BITS * sum(record.loss for record in latest) / len(latest)


def _streams(indices: Indices, count: int) -> tuple[Indices, Indices]:
    """`count` streams side by side, each (T, count), and the character after each of theirs."""
    T = (len(indices) - 1) // count
    x = indices[: T * count].reshape(count, T).T
    target = indices[1 : T * count + 1].reshape(count, T).T
    return np.ascontiguousarray(x), np.ascontiguousarray(target)
