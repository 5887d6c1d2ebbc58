"""A run that was saved and loaded ends with the same bits as one that was not."""

import inspect
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import bptt
from bptt.configuration import configuration
from models import V

Array = NDArray[Any]
cross_entropy = bptt.losses.softmax_cross_entropy


def network(cell: Any = bptt.LSTM, dropout: float = 0.4, **options: Any) -> bptt.Sequential:
    return bptt.Sequential(
        bptt.Embedding(V, 4, seed=1),
        cell(4, 5, num_layers=2, dropout=dropout, seed=2, **options),
        bptt.Linear(5, V, seed=3),
    )


def trainer(**changes: Any) -> bptt.Trainer:
    """With everything that has a state, always the same at the start."""
    parts: dict[str, Any] = {
        "model": network(),
        "loss": cross_entropy,
        "optimizer": bptt.optim.Adam(),
        "schedule": bptt.TruncatedBPTT(4, 4),
        "clip_norm": 1.0,
        "learning_rate": bptt.lr.ReduceOnPlateau(1e-2, factor=0.5, patience=0, min_delta=0.05),
        "accumulate": 2,
        "average": bptt.WeightAverage(0.9),
        "callbacks": [bptt.callbacks.EarlyStopping(patience=30)],
    } | changes
    return bptt.Trainer(**parts)


def streams(T: int = 28) -> bptt.data.Streams:
    x = np.random.default_rng(5).integers(0, V, (T, 3))
    return bptt.data.Streams(x, (x + 1) % V)


def sequences() -> bptt.Sequences:
    rng = np.random.default_rng(6)
    x = rng.integers(0, V, (7, 23))
    return bptt.Sequences(x, (x + 1) % V, rng.integers(0, 8, 23), batch_size=4, seed=2)


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "streams": (streams, {}),
    "sequences": (sequences, {"schedule": None}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def everything(t: bptt.Trainer) -> dict[str, Any]:
    """All that a run leaves, in bits."""
    found: dict[str, Any] = {n: p.tobytes() for n, p in t.model.parameters.items()}
    assert t.average is not None
    found |= {f"average {n}": p.tobytes() for n, p in t.average.parameters.items()}
    found["records"] = [
        (r.update, r.epoch, r.loss, r.gradient_norm, r.steps, r.learning_rate)
        for r in t.history.records
    ]
    found["evaluations"] = t.history.evaluations
    found["dropout"] = t.model.random_state
    (stopping,) = (c for c in t.callbacks if isinstance(c, bptt.callbacks.EarlyStopping))
    found["stopping"] = (stopping.best, stopping.best_update, stopping.waited)
    return found


@kinds
@pytest.mark.parametrize("updates", range(1, 12, 2))
def test_a_run_goes_on_from_any_update(kind, updates, tmp_path):
    data, changes = KINDS[kind]
    options = {"epochs": 4, "held_out": data(), "progress": False}
    # At the end of a fit the best weights would come back: the first run is to be left as it is.
    whole, first, second = (
        trainer(**changes, callbacks=[bptt.callbacks.EarlyStopping(30, restore=False)])
        for _ in range(3)
    )
    whole.fit(data(), **options)
    first.fit(data(), **options | {"updates": updates})
    first.save(tmp_path / "run")
    second.load(tmp_path / "run")
    second.fit(data(), **options)
    assert everything(second) == everything(whole)
    assert len(second.history) > updates


@kinds
@pytest.mark.parametrize("every", [None, 1, 4])
@pytest.mark.parametrize("killed_at", [2, 7])
def test_a_killed_run_goes_on_from_its_last_checkpoint(kind, every, killed_at, tmp_path):
    data, changes = KINDS[kind]
    path = tmp_path / "run"
    options = {"epochs": 3, "held_out": data(), "evaluate_every": 2, "progress": False}

    def parts() -> dict[str, Any]:
        stopping = bptt.callbacks.EarlyStopping(patience=30)
        return changes | {"callbacks": [bptt.callbacks.Checkpoint(path, every), stopping]}

    whole = trainer(**parts())
    whole.fit(data(), **options)
    path.unlink()

    def kill(record: bptt.trainer.Record) -> None:
        if record.update == killed_at:
            raise KeyboardInterrupt

    killed, second = trainer(**parts()), trainer(**parts())
    with pytest.raises(KeyboardInterrupt):
        killed.fit(data(), **options, on_update=kill)
    if path.exists():
        second.load(path)
        assert len(second.history) < killed_at
    second.fit(data(), **options)
    assert everything(second) == everything(whole)


def test_a_finished_run_goes_on_to_more_epochs(tmp_path):
    whole, first, second = (trainer(callbacks=[bptt.callbacks.EarlyStopping(9, restore=False)])
                            for _ in range(3))  # fmt: skip
    whole.fit(streams(), epochs=3, progress=False)
    first.fit(streams(), epochs=2, progress=False)
    first.save(tmp_path / "run")
    second.load(tmp_path / "run")
    second.fit(streams(), epochs=3, progress=False)
    assert everything(second) == everything(whole)


@pytest.mark.parametrize("updates", [1, 5, 6])
def test_a_run_that_made_its_updates_makes_no_more(updates, tmp_path):
    first = trainer()
    first.fit(streams(), updates=5, progress=False)
    first.save(tmp_path / "run.safetensors")
    second = trainer()
    second.load(tmp_path / "run.safetensors")
    history = second.fit(
        streams(), updates=updates, on_update=lambda r: r.update == 9, progress=False
    )
    assert len(history) == max(updates, 5)
    if updates <= 5:
        assert everything(second) == everything(first)


def test_windows_that_overlap_are_saved_between_epochs_only(tmp_path):
    overlapping = {"schedule": bptt.TruncatedBPTT(4, 6)}
    t = trainer(**overlapping)
    t.fit(streams(), updates=1, progress=False)
    sentence = r"^Trainer.save: the next window of TruncatedBPTT\(k1=4, k2=6\) reaches back into"
    with pytest.raises(ValueError, match=sentence):
        t.save(tmp_path / "run")
    whole, second = trainer(**overlapping), trainer(**overlapping)
    whole.fit(streams(), epochs=2, progress=False)
    t.fit(streams(), epochs=1, progress=False)
    first = trainer(**overlapping)
    first.fit(streams(), epochs=1, progress=False)
    first.save(tmp_path / "run")
    second.load(tmp_path / "run")
    second.fit(streams(), epochs=2, progress=False)
    assert everything(second) == everything(whole)


def test_a_short_last_window_reaches_back_and_what_is_before_it_is_not_saved(tmp_path):
    parts = {"accumulate": 1, "callbacks": [bptt.callbacks.EarlyStopping(9, restore=False)]}
    whole = trainer(**parts)
    whole.fit(streams(26), epochs=2, progress=False)  # windows end at 4, ..., 24 and 26
    for updates in (5, 6, 7):
        first, second = trainer(**parts), trainer(**parts)
        first.fit(streams(26), updates=updates, progress=False)
        if updates == 6:  # steps 22 and 23 are needed once more
            with pytest.raises(ValueError, match=r"^Trainer.save: the next window of Trun"):
                first.save(tmp_path / "run")
            continue
        first.save(tmp_path / "run")
        second.load(tmp_path / "run")
        second.fit(streams(26), epochs=2, progress=False)
        assert everything(second) == everything(whole)


class Drawn(bptt.Schedule):
    """A schedule with a state of its own: windows of random length."""

    separable = True

    def __init__(self) -> None:
        self.random = np.random.default_rng(8)

    def run(self, model, loss, x, target, state=None):
        start = 0
        while start < len(x):
            k = int(self.random.integers(1, 6))
            window = bptt.TruncatedBPTT(k, k).run(
                model, loss, x[start : start + k], target[start : start + k], state
            )
            for update in window:
                state = update.state
                yield update._replace(start=start, stop=start + update.steps)
            start += k

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.random.bit_generator.state}

    def load_state_dict(self, state) -> None:
        self.random.bit_generator.state = state["random"]


def test_a_schedules_random_state_is_saved(tmp_path):
    whole, first, second = (
        trainer(schedule=Drawn(), callbacks=[bptt.callbacks.EarlyStopping(9, restore=False)])
        for _ in range(3)
    )
    whole.fit(streams(), epochs=2, progress=False)
    first.fit(streams(), updates=2, progress=False)
    first.save(tmp_path / "run")
    second.load(tmp_path / "run")
    second.fit(streams(), epochs=2, progress=False)
    assert everything(second) == everything(whole)


# ---- bad input ---------------------------------------------------------------------------------


def saved(path: Path, **changes: Any) -> Path:
    t = trainer(**changes)
    t.fit(streams(), epochs=1, progress=False)
    t.save(path)
    return path


def smoothed(share: float) -> Any:
    return partial(cross_entropy, label_smoothing=share)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [  # saved with, loaded with, sentence
    ({}, {"optimizer": bptt.optim.AdamW()}, "optimizer was 'Adam', is 'AdamW'"),
    (
        {"learning_rate": None},
        {"learning_rate": None, "optimizer": bptt.optim.Adam(lr=0.5)},
        "optimizer.lr was 0.001, is 0.5",
    ),
    ({}, {"optimizer": bptt.optim.Adam(beta2=0.9)}, "optimizer.beta2 was 0.999, is 0.9"),
    ({}, {"learning_rate": None}, "learning_rate was 'ReduceOnPlateau', is None"),
    ({}, {"learning_rate": bptt.lr.Constant(1.0)}, "learning_rate was 'ReduceOnPl.* is 'Constant'"),
    (
        {},
        {"learning_rate": bptt.lr.ReduceOnPlateau(1e-3, 0.5, 0, 0.05)},
        "learning_rate.lr was 0.01, is 0.001",
    ),
    ({}, {"callbacks": []}, r"callbacks\[0\] was 'EarlyStopping', is not there"),
    (
        {},
        {"callbacks": [bptt.callbacks.EarlyStopping(patience=30, mode="max")]},
        r"callbacks\[0\].mode was 'min', is 'max'",
    ),
    ({}, {"schedule": Drawn()}, "schedule was 'TruncatedBPTT', is 'Drawn'"),
    ({}, {"schedule": bptt.TruncatedBPTT(4, 8)}, "schedule.k2 was 4, is 8"),
    ({}, {"clip_norm": 0.5}, "clip_norm was 1.0, is 0.5"),
    ({}, {"clip_norm": None}, "clip_norm was 1.0, is None"),
    ({}, {"accumulate": 1}, "accumulate was 2, is 1"),
    ({}, {"average": bptt.WeightAverage(0.5)}, "average.decay was 0.9, is 0.5"),
    ({}, {"average": None}, "average was 'WeightAverage', is None"),
    ({}, {"loss": bptt.losses.mse}, "loss was 'softmax_cross_entropy', is 'mse'"),
    (
        {"loss": smoothed(0.1)},
        {"loss": smoothed(0.2)},
        "loss.label_smoothing was 0.1, is 0.2",
    ),
    (
        {"loss": partial(cross_entropy, class_weights=np.ones(V, np.float32))},
        {"loss": partial(cross_entropy, class_weights=np.arange(V, dtype=np.float32))},
        r"loss.class_weights was 'array \(.*,\) of float32, checksum .*', is 'array",
    ),
    ({}, {"model": network(bptt.GRU)}, r"model.layers\[1\] was 'LSTM', is 'GRU'"),
    ({}, {"model": network(dropout=0.1)}, r"model.layers\[1\].dropout was 0.4, is 0.1"),
    (
        {"model": network(bptt.RNN)},
        {"model": network(bptt.RNN, nonlinearity="relu")},
        r"model.layers\[1\].nonlinearity was 'tanh', is 'relu'",
    ),
    (
        {},
        {"clip_norm": 2.0, "schedule": bptt.TruncatedBPTT(2, 2)},
        "clip_norm was 1.0, is 2.0; schedule.k1 was 4, is 2; schedule.k2 was 4, is 2: exp.*",
    ),
]


@pytest.mark.parametrize(("made", "changes", "sentence"), REFUSED)
def test_other_parts_are_refused_and_change_nothing(made, changes, sentence, tmp_path):
    path = saved(tmp_path / "run", **made)
    t = trainer(**changes)
    before = {n: p.tobytes() for n, p in t.model.parameters.items()}
    with pytest.raises(ValueError, match=rf"^Trainer.load\(.*\): {sentence}"):
        t.load(path)
    assert {n: p.tobytes() for n, p in t.model.parameters.items()} == before
    assert not t._resumes


def test_callbacks_that_look_on_may_have_other_options(tmp_path):
    callbacks = bptt.callbacks
    parts = {"callbacks": [callbacks.Checkpoint(tmp_path / "a", every=3)]}
    path = saved(tmp_path / "run", **parts)
    t = trainer(callbacks=[callbacks.Checkpoint(tmp_path / "b")])
    t.load(path)
    assert len(t.fit(streams(), updates=6, progress=False)) == 6


def test_options_may_change_after_loading(tmp_path):
    path = saved(tmp_path / "run")
    t = trainer()
    t.load(path)
    t.clip_norm = 0.01
    t.fit(streams(), epochs=2, progress=False)
    t.save(path)
    trainer().load(path)


def test_a_trainer_that_has_run_loads_its_own_runs(tmp_path):
    path = saved(tmp_path / "run")
    t = trainer()
    t.fit(streams(), epochs=3, held_out=streams(), progress=False)  # the rate has changed
    t.load(path)
    assert t.learning_rate.lr == 1e-2


@pytest.mark.parametrize(
    "part",
    [
        *(bptt.RNN, bptt.LSTM, bptt.GRU, bptt.Linear, bptt.Embedding),
        *(bptt.TruncatedBPTT, bptt.RandomTruncation, bptt.AdaptiveTruncation, bptt.FullBPTT),
        *(bptt.optim.SGD, bptt.optim.RMSprop, bptt.optim.Adagrad, bptt.optim.Adam),
        *(bptt.lr.Constant, bptt.lr.Step, bptt.lr.Exponential, bptt.lr.Cosine),
        *(bptt.optim.AdamW, bptt.lr.ReduceOnPlateau, bptt.WeightAverage),
        *(bptt.callbacks.EarlyStopping, bptt.callbacks.Checkpoint),
    ],
)
def test_every_option_is_kept_under_its_name(part):
    required = {"k1": 2, "k2": 3, "mean": 9.0, "tolerance": 0.5, "lr": 0.5, "path": "there"}
    required |= {"every": 7, "updates": 8, "patience": 5, "factor": 0.25}
    sizes = ("input_size", "hidden_size", "in_features", "out_features")
    required |= dict.fromkeys((*sizes, "num_embeddings", "embedding_dim"), 4)
    parameters = inspect.signature(part).parameters.values()
    given = {p.name: required[p.name] for p in parameters if p.default is p.empty}
    found = configuration("it", part(**given))
    assert found["it"] == part.__name__
    assert {*found} == {"it", *(f"it.{p.name}" for p in parameters if p.name != "seed")}
    assert all(found[f"it.{name}"] == value for name, value in given.items())


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be put into a tree of dicts and lists."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [
        place
        for key, value in entries
        for place in [
            (*at, key),
            *(places(value, (*at, key)) if isinstance(value, (dict, list)) else ()),
        ]
    ]


def test_a_damaged_run_is_refused_and_changes_nothing(tmp_path):
    path = saved(tmp_path / "run")
    arrays, metadata = bptt.io.load(path)
    t = trainer()
    t.fit(streams(), updates=2, progress=False)
    before = everything(t)
    rng = np.random.default_rng(1)
    everywhere = places(json.loads(metadata["bptt_run"]))
    refused = 0
    for i in rng.choice(len(everywhere), 150):
        run: Any = json.loads(metadata["bptt_run"])
        *way, last = everywhere[i]
        inner = run
        for key in way:
            inner = inner[key]
        inner[last] = [None, "x", [], {}, -1, 1e99, {"dict": {}}, {"array": "y"}][rng.integers(8)]
        bptt.io.save(path, arrays, {"bptt_run": json.dumps(run)})
        sentence = None
        try:
            t.load(path)
        except ValueError as error:
            sentence = str(error)
        if sentence is not None:
            assert sentence.startswith("Trainer.load(")
            assert everything(t) == before
            refused += 1
        else:  # what was put there is as good as what was there
            t = trainer()
            t.fit(streams(), updates=2, progress=False)
    assert refused > 100


def test_another_models_run_other_data_and_other_files_are_refused(tmp_path):
    path = saved(tmp_path / "run")
    t = trainer()
    t.load(path)
    with pytest.raises(
        ValueError, match=r"^Trainer.fit: data are {'kind': 'Streams', 'x': \[25, 3"
    ):
        t.fit(streams().x[:25], streams().target[:25], epochs=2)
    other = bptt.Trainer(bptt.Linear(2, 2), bptt.losses.mse, bptt.optim.Adam())
    with pytest.raises(ValueError, match=r"model was 'Sequential', is 'Linear'; .* is None: expec"):
        other.load(path)
    bptt.io.save(tmp_path / "weights", {"w": np.zeros(3)})
    with pytest.raises(ValueError, match=r"^Trainer.load\(.*the file is no run that Trainer.save"):
        t.load(tmp_path / "weights")
    (tmp_path / "cut").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is cut short or no safetensors file"):
        t.load(tmp_path / "cut")
    with pytest.raises(FileNotFoundError):
        t.load(tmp_path / "none")
