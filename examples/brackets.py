"""Classification of sequences of 2 to 40 brackets: are they balanced, as (()()) is and ())( is not?
Half of them are; a wrong one is a balanced one with two brackets turned round."""

import sys
import time

import numpy as np

import bptt

QUICK = "--quick" in sys.argv  # a run of seconds that only shows that everything works
T, COUNT, EPOCHS = (10, 200, 1) if QUICK else (40, 8000, 15)


def balanced(brackets: np.ndarray) -> bool:
    return bool(np.cumsum(1 - 2 * brackets).min() >= 0)


def problem(rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Brackets (0 opens, 1 closes), and whether they are balanced."""
    pairs = int(rng.integers(1, T // 2 + 1))
    drawn: list[int] = []
    while len(drawn) < 2 * pairs:
        opened, closed = drawn.count(0), drawn.count(1)
        opens = opened < pairs and (opened == closed or rng.random() < 0.5)
        drawn.append(0 if opens else 1)
    brackets, right = np.array(drawn), bool(rng.random() < 0.5)
    while not right and balanced(brackets):
        for bracket in (0, 1):  # an opening one is turned round, and then a closing one
            brackets[rng.choice(np.flatnonzero(brackets == bracket))] ^= 1
    return brackets, right


def problems(count: int, rng: np.random.Generator) -> bptt.Sequences:
    drawn = [problem(rng) for _ in range(count)]
    lengths = np.array([len(brackets) for brackets, _ in drawn])
    x = np.zeros((T, count), int)
    for s, (brackets, _) in enumerate(drawn):
        x[: len(brackets), s] = brackets
    target = np.array([right for _, right in drawn], int)
    return bptt.Sequences(x, target, lengths, batch_size=50, per="sequence")


rng = np.random.default_rng(0)
data, held_out = problems(COUNT, rng), problems(COUNT // 4, rng)
start = time.perf_counter()
model = bptt.Sequential(
    bptt.Embedding(2, 4, seed=0), bptt.LSTM(4, 32, seed=1), bptt.Linear(32, 2, seed=2)
)
stop = bptt.callbacks.EarlyStopping(4, monitor="metric", mode="max", goal=1.0)
trainer = bptt.Trainer(
    model, bptt.losses.softmax_cross_entropy, bptt.optim.Adam(lr=5e-3), clip_norm=1.0,
    callbacks=[stop],
)  # fmt: skip
accuracy = bptt.metrics.accuracy
trainer.fit(data, epochs=EPOCHS, held_out=held_out, metric=accuracy, progress=False)
share, most = trainer.evaluate(held_out, metric=accuracy), held_out.target.mean()
print(
    f"brackets, 2 to {T} of them: {share:.1%} of {COUNT // 4} held-out sequences right "
    f"(the commoner class: {max(most, 1 - most):.1%}), {len(trainer.history)} updates, "
    f"{time.perf_counter() - start:.0f} s"
)
