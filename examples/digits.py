"""Handwritten digits read pixel by pixel: scikit-learn's 8 x 8 images as sequences of 64 numbers,
classified after the last one. A quarter is held out. The others are few enough to be learned by
heart: so each is also shown moved by a pixel, in each direction."""

import sys
import time

import numpy as np

import bptt

try:
    from sklearn.datasets import load_digits
except ImportError:
    print("digits: scikit-learn is not installed (pip install scikit-learn): skipped")
    raise SystemExit from None

QUICK = "--quick" in sys.argv  # a run of seconds that only shows that everything works
EPOCHS = 1 if QUICK else 16

images, labels = load_digits(return_X_y=True)
if QUICK:
    images, labels = images[:200], labels[:200]
order = np.random.default_rng(0).permutation(len(labels))
images, labels = images[order].reshape(-1, 8, 8) / 16, labels[order]
cut = len(labels) * 3 // 4


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return framed[:, 1 - down : 9 - down, 1 - right : 9 - right]


def sequences(images: np.ndarray, labels: np.ndarray, batch_size: int) -> bptt.Sequences:
    x = np.ascontiguousarray(images.reshape(-1, 64).T[:, :, None]).astype(np.float32)  # (64, S, 1)
    return bptt.Sequences(x, labels, batch_size=batch_size, per="sequence")


ways = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
shown = np.concatenate([moved(images[:cut], *way) for way in ways])
data = sequences(shown, np.tile(labels[:cut], len(ways)), 64)
held_out = sequences(images[cut:], labels[cut:], 450)

start = time.perf_counter()
H = 128
model = bptt.Sequential(bptt.GRU(1, H, seed=0), bptt.Linear(H, 10, seed=1))
updates = EPOCHS * data.windows()
trainer = bptt.Trainer(
    model, bptt.losses.softmax_cross_entropy, bptt.optim.Adam(), clip_norm=1.0,
    learning_rate=bptt.lr.Cosine(4e-3, updates, warmup=updates // 20),
)  # fmt: skip
trainer.fit(data, epochs=EPOCHS, held_out=held_out, progress=False)
share = trainer.evaluate(held_out, metric=bptt.metrics.accuracy)
most = np.bincount(labels[cut:]).max() / len(labels[cut:])
print(
    f"digits, 64 pixels one by one: {share:.1%} of {len(labels) - cut} held-out images right "
    f"(the commonest digit: {most:.1%}), {EPOCHS} epochs, {time.perf_counter() - start:.0f} s"
)
