"""Copy memory (Hochreiter & Schmidhuber 1997; Arjovsky et al. 2016): five symbols of eight, then 20
blanks, then a signal, upon which the five are to be written in their order. A network without
memory can do no better than guess: one in eight is right."""

import sys
import time

import numpy as np

import bptt

QUICK = "--quick" in sys.argv  # a run of seconds that only shows that everything works
SYMBOLS, LENGTH, DELAY = 8, 5, 20
COUNT, EPOCHS = (256, 1) if QUICK else (20000, 20)
BLANK, SIGNAL = SYMBOLS, SYMBOLS + 1
T = LENGTH + DELAY + LENGTH


def problems(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x (T, count) indices; target (T, count): what to write, BLANK until the signal came."""
    symbols = rng.integers(0, SYMBOLS, (LENGTH, count))
    x, target = np.full((2, T, count), BLANK)
    x[:LENGTH] = symbols
    x[T - LENGTH] = SIGNAL
    target[T - LENGTH :] = symbols
    return x, target


def recalled(prediction: np.ndarray, target: np.ndarray) -> float:
    """The share of symbols that are right after the signal."""
    return bptt.metrics.accuracy(prediction[-LENGTH:], target[-LENGTH:])


rng = np.random.default_rng(0)
data = bptt.Sequences(*problems(COUNT, rng), batch_size=100)
held_out = bptt.Sequences(*problems(COUNT // 10, rng), batch_size=500)
start = time.perf_counter()
model = bptt.Sequential(
    bptt.Embedding(SYMBOLS + 2, 16, seed=0), bptt.GRU(16, 128, seed=1),
    bptt.Linear(128, SYMBOLS + 1, seed=2),
)  # fmt: skip
stop = bptt.callbacks.EarlyStopping(EPOCHS, monitor="metric", mode="max", goal=0.999)
trainer = bptt.Trainer(
    model, bptt.losses.softmax_cross_entropy, bptt.optim.Adam(lr=2e-3), clip_norm=1.0,
    callbacks=[stop],
)  # fmt: skip
trainer.fit(data, epochs=EPOCHS, held_out=held_out, metric=recalled, progress=False)
share = trainer.evaluate(held_out, metric=recalled)
print(
    f"copy memory, {DELAY} blanks: {share:.1%} of the symbols recalled "
    f"(guessing: {1 / SYMBOLS:.1%}), {len(trainer.history)} updates, "
    f"{time.perf_counter() - start:.0f} s"
)
