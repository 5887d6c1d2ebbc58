"""The adding problem (Hochreiter & Schmidhuber 1997): of 200 numbers, two are marked; their sum is
asked for at the end. Always answering 1 has a mean squared error of 1/6; a network has to carry
the first number over up to 200 steps to do better."""

import sys
import time

import numpy as np

import bptt

QUICK = "--quick" in sys.argv  # a run of seconds that only shows that everything works
T, COUNT, EPOCHS = (10, 256, 1) if QUICK else (200, 20000, 20)


def problems(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x (T, count, 2): numbers from [0, 1) and marks, one in each half; target (count, 1)."""
    numbers, marks = rng.random((T, count)), np.zeros((T, count))
    column = np.arange(count)
    marks[rng.integers(0, T // 2, count), column] = 1
    marks[rng.integers(T // 2, T, count), column] = 1
    x = np.stack([numbers, marks], axis=-1)
    target = (numbers * marks).sum(axis=0)[:, None]
    return x.astype(np.float32), target.astype(np.float32)


rng = np.random.default_rng(0)
data = bptt.Sequences(*problems(COUNT, rng), batch_size=32, per="sequence")
held_out = bptt.Sequences(*problems(COUNT // 10, rng), batch_size=500, per="sequence")
baseline = float(np.mean((held_out.target - 1) ** 2))

for cell in (bptt.LSTM, bptt.GRU):
    start = time.perf_counter()
    model = bptt.Sequential(cell(2, 64, seed=0), bptt.Linear(64, 1, seed=1))
    bptt.init.chrono(model.layers[0], longest=T, seed=2)  # its gates span T steps
    trainer = bptt.Trainer(
        model, bptt.losses.mse, bptt.optim.Adam(lr=1e-2), clip_norm=1.0,
        callbacks=[bptt.callbacks.EarlyStopping(patience=EPOCHS, goal=1e-3)],
    )  # fmt: skip
    trainer.fit(data, epochs=EPOCHS, held_out=held_out, progress=False)
    error = trainer.evaluate(held_out)
    seconds = time.perf_counter() - start
    print(
        f"adding problem, T = {T}, {cell.__name__}: mean squared error {error:.5f} "
        f"(always 1: {baseline:.3f}), {len(trainer.history)} updates, {seconds:.0f} s"
    )
