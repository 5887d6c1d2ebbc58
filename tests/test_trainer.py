"""The training loop: limits, history, divergence, evaluation."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import bptt
from models import V, character_model

Array = NDArray[Any]
cross_entropy = bptt.losses.softmax_cross_entropy


def trainer(**changes: Any) -> bptt.Trainer:
    parts: dict[str, Any] = {
        "model": character_model(np.float32, bptt.GRU),
        "loss": cross_entropy,
        "optimizer": bptt.optim.Adam(lr=1e-2),
        "schedule": bptt.TruncatedBPTT(4, 6),
        "clip_norm": 1.0,
    }
    return bptt.Trainer(**(parts | changes))


def stream(T: int = 10, N: int = 3) -> tuple[Array, Array]:
    """Each character is the one before plus one: a law that can be learned."""
    x = (np.arange(T)[:, None] + np.arange(N)) % V
    return x, (x + 1) % V


def values(model: bptt.Layer) -> dict[str, bytes]:
    return {name: p.tobytes() for name, p in model.parameters.items()}


def test_a_law_is_learned():
    x, target = stream(200, 4)
    t = trainer(optimizer=bptt.optim.Adam(lr=3e-2))
    before = t.evaluate(x, target)
    history = t.fit(x, target, epochs=4, progress=False)
    assert before == pytest.approx(math.log(V), rel=0.2)
    assert history.loss[-1] < 0.1
    assert t.evaluate(x, target) < 0.1


def test_fit_is_the_loop_that_one_would_write():
    x, target = stream()
    t = trainer()
    history = t.fit(x, target, epochs=2, progress=False)
    model, adam, losses, norms = (
        character_model(np.float32, bptt.GRU),
        bptt.optim.Adam(lr=1e-2),
        [],
        [],
    )
    for _ in range(2):
        for update in bptt.TruncatedBPTT(4, 6).run(model, cross_entropy, x, target):
            losses.append(update.loss)
            norms.append(bptt.optim.clip_by_global_norm(update.gradients, 1.0))
            adam.step(model.parameters, update.gradients)
    assert values(t.model) == values(model)
    assert history.loss == losses
    assert history.gradient_norm == norms
    assert history is t.history
    assert [(r.update, r.epoch, r.steps) for r in history.records] == [
        (1, 1, 4), (2, 1, 4), (3, 1, 2), (4, 2, 4), (5, 2, 4), (6, 2, 2),
    ]  # fmt: skip
    seconds = [r.seconds for r in history.records]
    assert seconds == sorted(seconds)
    assert all(r.steps_per_second > 0 for r in history.records)


def test_without_a_schedule_an_epoch_is_one_update_of_full_bptt():
    x, target = stream()
    t = trainer(schedule=None, clip_norm=None, optimizer=bptt.optim.SGD(0.1))
    twin = character_model(np.float32, bptt.GRU)
    y, _, tape = twin.forward(x)
    value, dy = cross_entropy(y, target)
    grads = twin.backward(tape, dy).parameters
    bptt.optim.SGD(0.1).step(twin.parameters, grads)
    history = t.fit(x, target, epochs=1, progress=False)
    assert history.loss == [value]
    assert history.gradient_norm == [bptt.optim.global_norm(grads)]
    assert values(t.model) == values(twin)


def test_the_norm_in_the_history_is_the_one_before_clipping():
    x, target = stream()
    clipped = trainer(clip_norm=1e-3).fit(x, target, updates=1, progress=False)
    free = trainer(clip_norm=None).fit(x, target, updates=1, progress=False)
    assert clipped.gradient_norm == free.gradient_norm
    assert clipped.gradient_norm[0] > 1e-3


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ({"epochs": 2}, 6),
        ({"updates": 4}, 4),
        ({"epochs": 1, "updates": 4}, 3),
        ({"epochs": 5, "updates": 4}, 4),
        ({"minutes": 1e-9}, 1),
        ({"minutes": 10, "updates": 2}, 2),
    ],
)
def test_the_first_limit_ends_a_run(limits, count):
    assert len(trainer().fit(*stream(), **limits, progress=False)) == count


def test_on_update_sees_every_record_and_may_end_the_run():
    seen = []

    def on_update(record: Any) -> bool:
        seen.append(record)
        return record.update == 3

    history = trainer().fit(*stream(), epochs=9, on_update=on_update, progress=False)
    assert history.records == seen
    assert len(seen) == 3


def test_an_interrupted_run_leaves_history_and_whole_updates():
    def on_update(record: Any) -> None:
        if record.update == 3:
            raise KeyboardInterrupt

    t, twin = trainer(), trainer()
    with pytest.raises(KeyboardInterrupt):
        t.fit(*stream(), epochs=9, on_update=on_update, progress=False)
    assert len(t.history) == 3
    twin.fit(*stream(), updates=3, progress=False)
    assert values(t.model) == values(twin.model)


def test_the_bar_shows_loss_norm_steps_per_second_and_the_note(capsys):
    t = trainer()
    t.note = "held out 1.23"
    history = t.fit(*stream(), epochs=2)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "20.0/20.0" in shown
    assert "steps/s" in shown
    assert f"loss {history.loss[-1]:.4f}, gradient norm {history.gradient_norm[-1]:.3g}" in shown
    assert "held out 1.23" in shown
    t.fit(*stream(), epochs=1, progress=False)
    assert capsys.readouterr().err == ""


def test_evaluate_is_the_loss_of_the_whole_stream(rng):
    x, target = rng.integers(0, V, (2, 11, 3))
    model = character_model()
    expected, _ = cross_entropy(model.predict(x)[0], target)
    for schedule in (None, bptt.TruncatedBPTT(4, 6), bptt.TruncatedBPTT(50, 50)):
        t = trainer(model=model, schedule=schedule)
        assert t.evaluate(x, target) == pytest.approx(expected, rel=1e-12)


def test_a_bidirectional_model_is_evaluated_in_one_piece(rng):
    # Longer than what is evaluated at once: in pieces the other direction would begin in each.
    x = rng.standard_normal((600, 2, 3))
    target = rng.standard_normal((600, 2, 8))
    model = bptt.LSTM(3, 4, bidirectional=True, dtype=np.float64, seed=1)
    expected, _ = bptt.losses.mse(model.predict(x)[0], target)
    t = bptt.Trainer(model, bptt.losses.mse, bptt.optim.Adam())
    assert t.evaluate(x, target) == pytest.approx(expected, rel=1e-12)
    t = bptt.Trainer(model, bptt.losses.mse, bptt.optim.Adam(), bptt.TruncatedBPTT(50, 50))
    with pytest.raises(ValueError, match=r"^TruncatedBPTT.run: LSTM.* is bidirectional"):
        t.fit(x, target, epochs=1, progress=False)


# ---- divergence --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_training_before_the_update(what, bad):
    calls = 0

    def loss(prediction: Array, target: Array) -> tuple[float, Array]:
        nonlocal calls
        calls += 1
        value, gradient = cross_entropy(prediction, target)
        if calls == 5:
            value = bad if what == "loss" else value
            gradient[0, 0, 0] = bad if what == "gradient" else gradient[0, 0, 0]
        return value, gradient

    t, twin = trainer(loss=loss), trainer()
    norm = "(nan|inf)" if what == "gradient" else "[0-9.]+"
    sentence = rf"diverged at update 5 \(time step 8 .*gradient norm {norm}, expected finite"
    with pytest.raises(bptt.DivergenceError, match=sentence) as caught:
        t.fit(*stream(), epochs=4, progress=False)
    assert isinstance(caught.value, ArithmeticError)
    assert (caught.value.update, caught.value.step) == (5, 8)
    assert math.isfinite(caught.value.loss) == (what == "gradient")
    assert len(t.history) == 4
    twin.fit(*stream(), updates=4, progress=False)
    assert values(t.model) == values(twin.model)


def test_a_learning_rate_far_too_large_ends_in_a_divergence_error(rng):
    model = bptt.Sequential(
        bptt.RNN(1, 4, dtype=np.float32, nonlinearity="identity", seed=0), bptt.Linear(4, 1, seed=0)
    )
    t = bptt.Trainer(model, bptt.losses.mse, bptt.optim.SGD(1e3), bptt.TruncatedBPTT(8, 8))
    x = rng.standard_normal((800, 2, 1)).astype(np.float32)
    with pytest.raises(bptt.DivergenceError, match="expected finite"):
        t.fit(x, x, epochs=20, progress=False)
    assert all(np.isfinite(p).all() for p in model.parameters.values())


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"model": None}, TypeError, "model is a NoneType, expected a Layer"),
        ({"loss": "mse"}, TypeError, "loss is a str, expected a Callable"),
        ({"optimizer": bptt.optim.Adam}, TypeError, "optimizer is a .*, expected a Optimizer"),
        ({"schedule": (4, 6)}, TypeError, "schedule is a tuple, expected a Schedule"),
        ({"clip_norm": 0}, ValueError, "clip_norm is 0"),
        ({"clip_norm": float("nan")}, ValueError, "clip_norm is nan"),
        ({"clip_norm": "1"}, TypeError, "clip_norm is '1'"),
    ],
)
def test_trainers_refuse(changes, error, sentence):
    with pytest.raises(error, match=f"^Trainer: {sentence}"):
        trainer(**changes)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({}, ValueError, "there is no limit, expected epochs, minutes or updates"),
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"epochs": 1.5}, TypeError, "epochs is 1.5"),
        ({"updates": -1}, ValueError, "updates is -1"),
        ({"minutes": 0}, ValueError, "minutes is 0"),
        ({"minutes": float("nan")}, ValueError, "minutes is nan"),
        ({"epochs": 1, "on_update": 3}, TypeError, "on_update is a int"),
        ({"epochs": 1, "progress": "no"}, TypeError, "progress is 'no'"),
    ],
)
def test_fit_refuses(options, error, sentence):
    t = trainer()
    before = values(t.model)
    with pytest.raises(error, match=rf"^Trainer.fit: {sentence}"):
        t.fit(*stream(), **options)
    assert values(t.model) == before


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_streams_that_do_not_fit_are_refused(method):
    t = trainer()
    x, target = stream()
    run = (lambda *a: t.fit(*a, epochs=1)) if method == "fit" else t.evaluate
    with pytest.raises(
        ValueError, match=rf"^Trainer.{method}: x has shape \(0, 3\), expected T >="
    ):
        run(x[:0], target[:0])
    with pytest.raises(ValueError, match=rf"^Trainer.{method}: target has shape \(10, 2\)"):
        run(x, target[:, :2])
    with pytest.raises(TypeError, match=rf"^Trainer.{method}: x is a list"):
        run(x.tolist(), target)


# ---- the package -------------------------------------------------------------------------------


def test_what_only_some_need_is_imported_when_it_is_needed():
    code = (
        "import sys, bptt; "
        "print([m for m in ('tqdm', 'safetensors', 'matplotlib') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_all_names_that_are_public_exist():
    assert sorted(bptt.__all__, key=str.lower) == sorted(set(bptt.__all__), key=str.lower)
    for name in bptt.__all__:
        assert getattr(bptt, name) is not None


@pytest.mark.usefixtures("threads")
def test_thread_counts_that_make_no_sense_are_refused():
    for bad, error in [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match=r"set_num_threads: threads is"):
            bptt.set_num_threads(bad)
    bptt.set_num_threads(1)
    assert bptt.get_num_threads() == 1
