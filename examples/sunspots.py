"""Monthly sunspots, a month ahead: pmdarima's series of 1749 to 1983, the last 20 years held out.
The seasonal naive forecast is the number of a season before, where a season is a year, or what the
sun goes by: its cycle of some eleven years."""

import sys
import time

import numpy as np

import bptt

try:
    from pmdarima.datasets import load_sunspots
except ImportError:
    print("sunspots: pmdarima is not installed (pip install pmdarima): skipped")
    raise SystemExit from None

QUICK = "--quick" in sys.argv  # a run of seconds that only shows that everything works
EPOCHS, HELD_OUT, YEAR, CYCLE, MODELS = (1 if QUICK else 30), 240, 12, 132, (1 if QUICK else 5)

numbers = load_sunspots()  # (2820,) means of a month
scaled = (np.sqrt(numbers) / 5 - 1).astype(np.float32)[:, None, None]  # (T, N = 1, D = 1)
cut = len(numbers) - HELD_OUT
x, target = scaled[: cut - 1], scaled[1:cut]


def forecast(seed: int) -> np.ndarray:
    """Trains on the first months; forecasts of the held-out ones, each from all before it."""
    model = bptt.Sequential(bptt.LSTM(1, 32, seed=seed), bptt.Linear(32, 1, seed=seed))
    windows = bptt.TruncatedBPTT(k1=60, k2=120)
    updates = EPOCHS * windows.windows(len(x))
    trainer = bptt.Trainer(
        model, bptt.losses.huber, bptt.optim.AdamW(weight_decay=0.02, decay_biases=False),
        windows, clip_norm=1.0, learning_rate=bptt.lr.Cosine(1e-2, updates, warmup=updates // 20),
    )  # fmt: skip
    trainer.fit(x, target, epochs=EPOCHS, progress=False)
    return ((model.predict(scaled[:-1])[0][-HELD_OUT:, 0, 0] + 1).clip(0) * 5) ** 2


def error(forecasts: np.ndarray) -> float:
    return float(np.sqrt(np.mean((forecasts - numbers[-HELD_OUT:]) ** 2)))


def before(months: int) -> float:
    return error(numbers[-HELD_OUT - months : -months])


start = time.perf_counter()
ours = error(np.mean([forecast(seed) for seed in range(MODELS)], axis=0))
print(
    f"sunspots, a month ahead: root mean squared error {ours:.1f} over the last {HELD_OUT} months "
    f"(of a year before: {before(YEAR):.1f}; of eleven years before: {before(CYCLE):.1f}; "
    f"of the month before: {before(1):.1f}), {time.perf_counter() - start:.0f} s"
)
