"""The trainer says in words when gradients begin to vanish or to explode, and when that ends."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt.callbacks import GradientWatch

X = np.ones((30, 2, 1))


def scalar(w: float) -> bptt.RNN:
    model = bptt.RNN(1, 1, bias=False, dtype=np.float64, nonlinearity="identity")
    model.load_parameters({"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.array([[w]])})
    return model


def trainer(watch: GradientWatch, w: float) -> bptt.Trainer:
    return bptt.Trainer(
        scalar(w),
        bptt.losses.mse,
        bptt.optim.SGD(1e-300),  # what changes the weights is in the tests
        bptt.TruncatedBPTT(5, 5),
        callbacks=[watch],
    )


def test_each_change_is_told_once_with_update_and_step() -> None:
    said: list[str] = []
    watch = GradientWatch(X, every=2, tell=said.append)
    run = trainer(watch, 0.5)
    weights = {3: 1.0, 7: 2.0}  # set after these updates

    def change(record: Any) -> None:
        if record.update in weights:
            run.model.parameters["weight_hh_l0"][:] = weights[record.update]

    run.fit(X, X, epochs=2, progress=False, on_update=change)
    assert said == [f"update {update}: {sentence}" for update, sentence in watch.told]
    # 2^20 > 1e6: handed back from step 30, it is told at step 10.
    where = "at step 10, 20 steps earlier (sequence 0; largest Lyapunov exponent"
    assert [update for update, _ in watch.told] == [1, 4, 8]
    assert watch.told[0][1].startswith("gradients vanish: handed back from step 30")
    assert f"1e+06 times smaller {where} -0.693 per step)" in watch.told[0][1]
    assert watch.told[1][1] == "gradients vanish no more"
    assert (
        f"explode: handed back from step 30, they are 1e+06 times larger {where} +0.693" in said[2]
    )
    assert [update for update, _ in watch.exponents] == [1, 2, 4, 6, 8, 10, 12]
    rates = [np.log(w) for w in (0.5, 0.5, 1, 1, 2, 2, 2)]
    np.testing.assert_allclose([rate for _, rate in watch.exponents], rates, atol=1e-12)


def test_without_every_it_looks_after_the_first_update_and_after_epochs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = GradientWatch(X)
    trainer(watch, 0.5).fit(X, X, epochs=3, progress=False)
    assert [update for update, _ in watch.exponents] == [1, 6, 12, 18]
    assert "update 1: gradients vanish" in capsys.readouterr().err


def test_a_run_that_goes_on_does_not_tell_again(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    first = GradientWatch(X, tell=str)
    run = trainer(first, 0.5)
    run.fit(X, X, epochs=1, progress=False)
    run.save(path)
    second = GradientWatch(X, tell=str)
    going_on = trainer(second, 0.5)
    going_on.load(path)
    going_on.fit(X, X, epochs=2, progress=False)
    assert second.told == first.told
    assert len(first.told) == 1
    assert [update for update, _ in second.exponents] == [1, 6, 12]


def test_looking_changes_nothing_of_the_run() -> None:
    def trained(*callbacks: Any) -> Any:
        model = bptt.Sequential(bptt.LSTM(1, 4, 2, dropout=0.5, seed=0), bptt.Linear(4, 1, seed=1))
        x = X.astype(np.float32)
        optimizer, schedule = bptt.optim.Adam(), bptt.TruncatedBPTT(5, 10)
        its = bptt.Trainer(model, bptt.losses.mse, optimizer, schedule, callbacks=callbacks)
        its.fit(x, x, epochs=1, progress=False)
        return model.parameters

    watched = trained(GradientWatch(X.astype(np.float32), every=1, tell=str))
    for name, value in trained().items():
        assert value.tobytes() == watched[name].tobytes()


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: GradientWatch([1.0]), TypeError, "GradientWatch: x is a list, expected an array"),
        (
            lambda: GradientWatch(X[:0]),
            ValueError,
            r"GradientWatch: x has shape \(0, 2, 1\), expected \(T, N, ...\), both >= 1",
        ),
        (
            lambda: GradientWatch(X, every=0),
            ValueError,
            r"every is 0 \(int\), expected an integer >= 1",
        ),
        (lambda: GradientWatch(X, factor=1), ValueError, "GradientWatch: factor is 1"),
        (lambda: GradientWatch(X, tell=3), TypeError, "tell is a int, expected a Callable"),
    ],
)
def test_watches_that_make_no_sense_are_refused(call: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()
