"""Handwritten digits read pixel by pixel: scikit-learn's 8 x 8 images as sequences of 64 numbers,
classified after the last one. A quarter is held out."""

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
EPOCHS = 1 if QUICK else 60

images, labels = load_digits(return_X_y=True)
if QUICK:
    images, labels = images[:200], labels[:200]
order = np.random.default_rng(0).permutation(len(labels))
x = np.ascontiguousarray((images[order] / 16).T[:, :, None]).astype(np.float32)  # (64, S, 1)
labels, cut = labels[order], len(labels) * 3 // 4
data = bptt.Sequences(x[:, :cut], labels[:cut], batch_size=32, per="sequence")
held_out = bptt.Sequences(x[:, cut:], labels[cut:], batch_size=450, per="sequence")

start = time.perf_counter()
H = 128
model = bptt.Sequential(bptt.GRU(1, H, seed=0), bptt.Linear(H, 10, seed=1))
updates = EPOCHS * -(-cut // 32)
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
