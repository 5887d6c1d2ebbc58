"""Sunspots, one year ahead: statsmodels' series, which is yearly (means of 1700 to 2008; it has no
monthly one), the last 60 years held out. The season is the solar cycle of some eleven years: the
seasonal naive forecast is the number of eleven years before."""

import sys
import time

import numpy as np

import bptt

try:
    from statsmodels.datasets import sunspots
except ImportError:
    print("sunspots: statsmodels is not installed (pip install statsmodels): skipped")
    raise SystemExit from None

QUICK = "--quick" in sys.argv  # a run of seconds that only shows that everything works
EPOCHS, HELD_OUT, CYCLE, MODELS = (2 if QUICK else 150), 60, 11, (1 if QUICK else 5)

numbers = np.asarray(sunspots.load_pandas().data["SUNACTIVITY"], np.float64)
scaled = (np.sqrt(numbers) / 5 - 1).astype(np.float32)[:, None, None]  # (T, N = 1, D = 1)
cut = len(numbers) - HELD_OUT
x, target = scaled[: cut - 1], scaled[1:cut]


def forecast(seed: int) -> np.ndarray:
    """Trains on the first years; the forecasts for the held-out ones, each from all before it."""
    model = bptt.Sequential(bptt.LSTM(1, 32, seed=seed), bptt.Linear(32, 1, seed=seed))
    trainer = bptt.Trainer(
        model, bptt.losses.huber, bptt.optim.AdamW(weight_decay=0.02, decay_biases=False),
        bptt.TruncatedBPTT(k1=31, k2=62), clip_norm=1.0,
        learning_rate=bptt.lr.Cosine(1e-2, EPOCHS * 8, warmup=40 if EPOCHS > 10 else 0),
    )  # fmt: skip
    trainer.fit(x, target, epochs=EPOCHS, progress=False)
    return ((model.predict(scaled[:-1])[0][-HELD_OUT:, 0, 0] + 1).clip(0) * 5) ** 2


def error(forecasts: np.ndarray) -> float:
    return float(np.sqrt(np.mean((forecasts - numbers[-HELD_OUT:]) ** 2)))


start = time.perf_counter()
ours = error(np.mean([forecast(seed) for seed in range(MODELS)], axis=0))
naive = error(numbers[-HELD_OUT - CYCLE : -CYCLE])
print(
    f"sunspots, one year ahead: root mean squared error {ours:.1f} over the last {HELD_OUT} years "
    f"(of {CYCLE} years before: {naive:.1f}; of the year before: "
    f"{error(numbers[-HELD_OUT - 1 : -1]):.1f}), {time.perf_counter() - start:.0f} s"
)
