"""A run that was saved and loaded ends with the same bits as one that was not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import bptt
from models import V

Array = NDArray[Any]
cross_entropy = bptt.losses.softmax_cross_entropy


def trainer(**changes: Any) -> bptt.Trainer:
    """With everything that has a state, always the same at the start."""
    model = bptt.Sequential(
        bptt.Embedding(V, 4, seed=1),
        bptt.LSTM(4, 5, num_layers=2, dropout=0.4, seed=2),
        bptt.Linear(5, V, seed=3),
    )
    parts: dict[str, Any] = {
        "optimizer": bptt.optim.Adam(),
        "schedule": bptt.TruncatedBPTT(4, 4),
        "clip_norm": 1.0,
        "learning_rate": bptt.lr.ReduceOnPlateau(1e-2, factor=0.5, patience=0, min_delta=0.05),
        "accumulate": 2,
        "average": bptt.WeightAverage(0.9),
        "callbacks": [bptt.callbacks.EarlyStopping(patience=30)],
    } | changes
    return bptt.Trainer(model, cross_entropy, **parts)


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


def test_other_parts_are_refused_and_change_nothing(tmp_path):
    path = saved(tmp_path / "run")
    for changes, sentence in [
        ({"optimizer": bptt.optim.AdamW()}, "optimizer was of 'Adam', expected 'AdamW'"),
        ({"learning_rate": None}, r"the saved run has unknown \['learning_rate'\]"),
        ({"callbacks": []}, r"the saved run has unknown \['callbacks\[0\]'\]"),
        ({"schedule": Drawn()}, "schedule was of 'TruncatedBPTT', expected 'Drawn'"),
    ]:
        t = trainer(**changes)
        before = {n: p.tobytes() for n, p in t.model.parameters.items()}
        with pytest.raises(ValueError, match=rf"^Trainer.load\(.*\): {sentence}"):
            t.load(path)
        assert {n: p.tobytes() for n, p in t.model.parameters.items()} == before


def test_another_models_run_other_data_and_other_files_are_refused(tmp_path):
    path = saved(tmp_path / "run")
    t = trainer()
    t.load(path)
    with pytest.raises(
        ValueError, match=r"^Trainer.fit: data are {'kind': 'Streams', 'x': \[25, 3"
    ):
        t.fit(streams().x[:25], streams().target[:25], epochs=2)
    other = bptt.Trainer(bptt.Linear(2, 2), bptt.losses.mse, bptt.optim.Adam())
    with pytest.raises(ValueError, match="the saved run has unknown"):
        other.load(path)
    bptt.io.save(tmp_path / "weights", {"w": np.zeros(3)})
    with pytest.raises(ValueError, match=r"^Trainer.load\(.*the file is no run that Trainer.save"):
        t.load(tmp_path / "weights")
    (tmp_path / "cut").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is cut short or no safetensors file"):
        t.load(tmp_path / "cut")
    with pytest.raises(FileNotFoundError):
        t.load(tmp_path / "none")
