"""A sequence to a sequence (Sutskever et al. 2014): an encoder reads eight digits, a decoder writes
them in reverse. All it knows of them is the encoder's final state, its own initial state; the
gradient goes back the same way. Guessing has one digit in ten right."""

import sys
import time

import numpy as np

import bptt

QUICK = "--quick" in sys.argv  # a run of seconds that only shows that everything works
V, LENGTH, N, UPDATES = 10, 8, 128, (20 if QUICK else 4000)
START = V  # what the decoder reads first

H = 128
encoder = bptt.Sequential(bptt.Embedding(V, 32, seed=0), bptt.LSTM(32, H, seed=1))
decoder = bptt.Sequential(
    bptt.Embedding(V + 1, 32, seed=2), bptt.LSTM(32, H, seed=3), bptt.Linear(H, V, seed=4)
)
parameters = {f"encoder.{name}": p for name, p in encoder.parameters.items()}
parameters |= {f"decoder.{name}": p for name, p in decoder.parameters.items()}
optimizer = bptt.optim.Adam()
rate = bptt.lr.Cosine(3e-3, UPDATES, warmup=UPDATES // 20)

rng = np.random.default_rng(0)
start = time.perf_counter()
for update in range(UPDATES):
    digits = rng.integers(0, V, (LENGTH, N))
    target = np.ascontiguousarray(digits[::-1])
    read = np.concatenate([np.full((1, N), START), target[:-1]])  # teacher forcing

    _, (_, final), encoder_tape = encoder.forward(digits)
    y, _, decoder_tape = decoder.forward(read, (None, final, None))
    _, dy = bptt.losses.softmax_cross_entropy(y, target)
    of_decoder = decoder.backward(decoder_tape, dy)
    # dL/d(the decoder's initial state) is dL/d(the encoder's final state).
    of_encoder = encoder.backward(encoder_tape, None, (None, of_decoder.state[1]))

    gradients = {f"encoder.{name}": g for name, g in of_encoder.parameters.items()}
    gradients |= {f"decoder.{name}": g for name, g in of_decoder.parameters.items()}
    bptt.optim.clip_by_global_norm(gradients, 1.0)
    optimizer.lr = rate.at(update)
    optimizer.step(parameters, gradients)

digits = rng.integers(0, V, (LENGTH, 2000))
state = (None, encoder.predict(digits)[1][1], None)
written, symbol = [], np.full(2000, START)
for _ in range(LENGTH):  # now it reads what it wrote itself
    logits, state = decoder.step(symbol, state)
    written.append(symbol := logits.argmax(axis=-1))
right = np.array(written) == digits[::-1]
print(
    f"reversing {LENGTH} digits: {right.mean():.1%} of the digits right (guessing: {1 / V:.1%}), "
    f"{right.all(axis=0).mean():.1%} of the sequences, {UPDATES} updates, "
    f"{time.perf_counter() - start:.0f} s"
)
