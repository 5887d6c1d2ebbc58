"""Held-out measurements, callbacks, accumulation, learning rates: the trainer's new parts."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import bptt
from models import V, character_model
from networks import assert_close

Array = NDArray[Any]
cross_entropy = bptt.losses.softmax_cross_entropy


def stream(T: int = 12, N: int = 3) -> tuple[Array, Array]:
    x = (np.arange(T)[:, None] + np.arange(N)) % V
    return x, (x + 1) % V


def trainer(**changes: Any) -> bptt.Trainer:
    parts: dict[str, Any] = {
        "model": character_model(np.float64, bptt.GRU),
        "loss": cross_entropy,
        "optimizer": bptt.optim.SGD(0.5),
        "schedule": bptt.TruncatedBPTT(4, 4),
    }
    return bptt.Trainer(**(parts | changes))


def values(model: bptt.Layer) -> dict[str, bytes]:
    return {name: p.tobytes() for name, p in model.parameters.items()}


class Diary(bptt.callbacks.Callback):
    def __init__(self) -> None:
        self.pages: list[Any] = []

    def on_evaluation(self, run, evaluation):
        self.pages.append(("evaluation", evaluation.update, len(run.history)))

    def on_update(self, run, record):
        self.pages.append(("update", record.update, len(run.history)))

    def on_epoch(self, run, epoch):
        self.pages.append(("epoch", epoch, len(run.history)))

    def on_end(self, run):
        self.pages.append(("end", len(run.history)))


def test_callbacks_are_told_everything_in_order():
    diary = Diary()
    trainer(callbacks=[diary]).fit(*stream(), epochs=2, held_out=stream(5), progress=False)
    assert diary.pages == [
        ("update", 1, 1), ("update", 2, 2), ("update", 3, 3), ("evaluation", 3, 3), ("epoch", 1, 3),
        ("update", 4, 4), ("update", 5, 5), ("update", 6, 6), ("evaluation", 6, 6), ("epoch", 2, 6),
        ("end", 6),
    ]  # fmt: skip
    diary.pages.clear()
    trainer(callbacks=[diary]).fit(
        *stream(), updates=4, held_out=stream(5), evaluate_every=2, progress=False
    )
    assert diary.pages == [
        ("update", 1, 1), ("evaluation", 2, 2), ("update", 2, 2), ("update", 3, 3), ("epoch", 1, 3),
        ("evaluation", 4, 4), ("update", 4, 4), ("end", 4),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["on_evaluation", "on_update", "on_epoch"])
def test_any_callback_may_end_the_run(method):
    class Stop(bptt.callbacks.Callback):
        pass

    setattr(Stop, method, lambda *_: True)
    diary = Diary()
    history = trainer(callbacks=[Stop(), diary]).fit(
        *stream(), epochs=5, held_out=stream(5), progress=False
    )
    assert len(history) == (1 if method == "on_update" else 3)
    assert diary.pages[-1] == ("end", len(history))


def test_measurements_are_the_held_out_loss_and_metric():
    t = trainer()
    held_out = stream(9)
    history = t.fit(
        *stream(), epochs=2, held_out=held_out, metric=bptt.metrics.accuracy, progress=False
    )
    last = history.evaluations[-1]
    assert (last.update, last.epoch) == (6, 2)
    assert last.loss == t.evaluate(*held_out)
    assert last.metric == t.evaluate(*held_out, metric=bptt.metrics.accuracy)


def test_with_an_average_it_is_the_average_that_is_measured():
    t = trainer(average=bptt.WeightAverage(0.7))
    held_out = stream(9)
    history = t.fit(*stream(), epochs=2, held_out=held_out, progress=False)
    own = t.evaluate(*held_out)
    assert t.average is not None
    with t.average.applied(t.model):
        assert history.evaluations[-1].loss == t.evaluate(*held_out) != own


def test_accumulated_windows_make_one_update_of_their_mean_gradient():
    x, target = stream(20)
    t, twin = trainer(accumulate=2), character_model(np.float64, bptt.GRU)
    history = t.fit(x, target, epochs=1, progress=False)
    sgd, expected = bptt.optim.SGD(0.5), []
    groups, state = [[(0, 4), (4, 8)], [(8, 12), (12, 16)], [(16, 20)]], None
    for group in groups:
        gradients, losses = [], []
        for a, b in group:
            y, state, tape = twin.forward(x[a:b], state)
            value, dy = cross_entropy(y, target[a:b])
            gradients.append(twin.backward(tape, dy).parameters)
            losses.append(value)
        mean = {n: sum(g[n] for g in gradients) / len(group) for n in twin.parameters}
        sgd.step(twin.parameters, mean)
        expected.append(sum(losses) / len(group))
    assert history.loss == expected
    assert [r.steps for r in history.records] == [8, 8, 4]
    for name, p in t.model.parameters.items():
        assert_close(p, twin.parameters[name], 1e-14)


def test_accumulated_batches_equal_one_large_batch(rng):
    x, target = rng.integers(0, V, (5, 12)), rng.integers(0, V, (5, 12))

    def fit(batch_size: int, accumulate: int) -> bptt.Trainer:
        t = trainer(schedule=None, accumulate=accumulate)
        data = bptt.Sequences(x, target, batch_size=batch_size, seed=3)
        t.fit(data, epochs=2, progress=False)
        return t

    small, large = fit(3, 4), fit(12, 1)
    assert len(small.history) == len(large.history) == 2
    for name, p in small.model.parameters.items():
        assert_close(p, large.model.parameters[name], 1e-13)


@pytest.mark.parametrize("limits", [{"epochs": 2}, {"updates": 2}])
@pytest.mark.parametrize("kind", ["streams", "sequences"])
def test_the_bar_counts_time_steps(kind, limits, capsys):
    """An update takes a whole epoch: three windows of 4 steps, or two mini-batches of 12."""
    if kind == "streams":
        trainer(accumulate=3).fit(*stream(), **limits)
    else:
        data = bptt.Sequences(*stream(), batch_size=2)
        trainer(schedule=None, accumulate=3).fit(data, **limits)
    wanted = "24.0/24.0" if kind == "streams" else "48.0/48.0"
    assert wanted in capsys.readouterr().err.split("\r")[-1]


def test_the_learning_rate_is_set_before_every_update_and_observes():
    class Spy(bptt.lr.LearningRate):
        def __init__(self) -> None:
            self.observed: list[float] = []

        def at(self, update: int) -> float:
            return 0.1 / (update + 1)

        def observe(self, value: float) -> None:
            self.observed.append(value)

    spy = Spy()
    history = trainer(learning_rate=spy).fit(
        *stream(), epochs=2, held_out=stream(5), progress=False
    )
    assert [r.learning_rate for r in history.records] == [0.1 / n for n in range(1, 7)]
    assert spy.observed == [e.loss for e in history.evaluations]


def test_early_stopping_waits_and_brings_the_best_weights_back():
    stopping = bptt.callbacks.EarlyStopping(patience=2)
    t = trainer(callbacks=[stopping])
    copies = []
    script = iter([3.0, 1.0, 2.0, 1.0, 1.5, 0.0])

    def loss(prediction: Array, target: Array) -> tuple[float, Array]:
        value, gradient = cross_entropy(prediction, target)
        if len(target) == 5:  # the held-out stream
            copies.append(values(t.model))
            value = next(script)
        return value, gradient

    t.loss = loss
    history = t.fit(*stream(), epochs=99, held_out=stream(5), progress=False)
    assert [e.loss for e in history.evaluations] == [3, 1, 2, 1, 1.5]
    assert (stopping.best, stopping.best_update) == (1.0, 6)
    assert values(t.model) == copies[1] != copies[-1]


def test_early_stopping_knows_goals_and_metrics_of_which_more_is_better():
    def fit(**options: Any) -> bptt.trainer.History:
        stopping = bptt.callbacks.EarlyStopping(0, monitor="metric", mode="max", **options)
        script = iter([0.1, 0.5, 0.7, 0.6])
        return trainer(callbacks=[stopping]).fit(
            *stream(), epochs=9, held_out=stream(5), metric=lambda *_: next(script), progress=False
        )

    assert len(fit().evaluations) == 4
    assert len(fit(goal=0.5).evaluations) == 2
    assert len(fit(min_delta=0.3).evaluations) == 3


def test_sequences_are_learned(rng):
    x = rng.standard_normal((8, 400, 1)).astype(np.float32)
    lengths = rng.integers(1, 9, 400)
    last = x[lengths - 1, np.arange(400), 0]
    data = bptt.Sequences(x, (last > 0).astype(int), lengths, per="sequence")
    model = bptt.Sequential(bptt.RNN(1, 8, seed=0), bptt.Linear(8, 2, seed=0))
    t = bptt.Trainer(model, cross_entropy, bptt.optim.Adam(1e-2), clip_norm=1.0)
    t.fit(data, epochs=10, progress=False)
    assert t.evaluate(data, metric=bptt.metrics.accuracy) > 0.95


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"learning_rate": 0.1}, TypeError, "learning_rate is a float, expected a LearningRate"),
        ({"accumulate": 0}, ValueError, r"accumulate is 0 \(int\), expected an integer >= 1"),
        ({"average": 0.9}, TypeError, "average is a float, expected a WeightAverage"),
        ({"callbacks": [print]}, TypeError, r"callbacks\[0\] is a .*, expected a Callback"),
        (
            {"callbacks": bptt.callbacks.Callback()},
            TypeError,
            "callbacks is a Callback, expected a S",
        ),
    ],
)
def test_trainers_refuse(changes, error, sentence):
    with pytest.raises(error, match=f"^Trainer: {sentence}"):
        trainer(**changes)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"held_out": 3}, TypeError, "held_out is a int, expected a tuple"),
        ({"held_out": stream(5)[:1]}, ValueError, "held_out has 1 entries, expected a pair"),
        ({"metric": abs}, ValueError, "held_out is None, expected data to measure on"),
        ({"evaluate_every": 2}, ValueError, "held_out is None, expected data to measure on"),
        (
            {"held_out": stream(5), "evaluate_every": 0},
            ValueError,
            r"evaluate_every is 0 \(int\), expected an integer >= 1",
        ),
        ({"held_out": stream(5), "metric": 1}, TypeError, "metric is a int, expected a Callable"),
        ({"held_out": (stream(5)[0], stream(4)[0])}, ValueError, r"target has shape \(4, 3\)"),
    ],
)
def test_fit_refuses(options, error, sentence):
    t = trainer()
    before = values(t.model)
    with pytest.raises(error, match=f"^Trainer.fit: {sentence}"):
        t.fit(*stream(), epochs=1, **options)
    assert values(t.model) == before


def test_data_come_alone_and_sequences_without_a_schedule():
    data = bptt.Sequences(*stream())
    with pytest.raises(
        ValueError, match=r"^Trainer.fit: target is given, expected none beside a S"
    ):
        trainer().fit(data, stream()[1], epochs=1)
    sentence = r"^Trainer.fit: schedule is TruncatedBPTT\(k1=4, k2=4\), expected None: sequences go"
    with pytest.raises(ValueError, match=sentence):
        trainer().fit(data, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"patience": -1}, ValueError, "patience is -1"),
        ({"patience": 1, "monitor": "f1"}, ValueError, "monitor is 'f1' .*one of 'loss', 'metric'"),
        ({"patience": 1, "mode": "least"}, ValueError, "mode is 'least'"),
        ({"patience": 1, "min_delta": -1}, ValueError, "min_delta is -1"),
        ({"patience": 1, "restore": 1}, TypeError, "restore is 1"),
        ({"patience": 1, "goal": "1"}, TypeError, "goal is '1'"),
    ],
)
def test_early_stopping_refuses(options, error, sentence):
    with pytest.raises(error, match=f"^EarlyStopping: {sentence}"):
        bptt.callbacks.EarlyStopping(**options)


def test_early_stopping_by_a_metric_wants_one():
    t = trainer(callbacks=[bptt.callbacks.EarlyStopping(1, monitor="metric")])
    with pytest.raises(
        ValueError, match=r"^EarlyStopping: monitor is 'metric', expected a metric in"
    ):
        t.fit(*stream(), epochs=1, held_out=stream(5), progress=False)


def test_checkpoints_refuse():
    with pytest.raises(ValueError, match=r"^Checkpoint: every is 0"):
        bptt.callbacks.Checkpoint("run", every=0)
    with pytest.raises(TypeError, match=r"^Checkpoint: path is a int, expected a str or PathLike"):
        bptt.callbacks.Checkpoint(3)
