"""One exact gradient in little memory: the same as in one piece, within the budget."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import bptt
from bptt import _core
from models import V, character_model
from networks import assert_close

Array = NDArray[Any]
cross_entropy = bptt.losses.softmax_cross_entropy
recurrent = pytest.mark.parametrize("recurrent", [bptt.RNN, bptt.LSTM, bptt.GRU])


def text(T: int, N: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (T, N)), rng.integers(0, V, (T, N))


def budget_for(model: Any, loss: Any, x: Array, target: Array, share: float) -> int:
    """Between the smallest possible budget and what one piece takes."""
    whole = bptt.FullBPTT().plan(model, loss, x, target).memory
    return int(smallest(model, loss, x, target) * (1 - share) + whole * share)


def smallest(model: Any, loss: Any, x: Array, target: Array) -> int:
    reduction = loss.keywords["reduction"] if isinstance(loss, partial) else "mean"
    with pytest.raises(ValueError, match="memory_budget is 1 bytes, expected at least") as caught:
        bptt.FullBPTT(1, reduction).plan(model, loss, x, target)
    return int(str(caught.value).split()[8])


def assert_same(update: Any, whole: Any, tolerance: float = 1e-12) -> None:
    assert (update.start, update.stop) == (whole.start, whole.stop)
    assert update.loss == pytest.approx(whole.loss, rel=tolerance)
    assert list(update.gradients) == list(whole.gradients)
    for name, gradient in whole.gradients.items():
        assert_close(update.gradients[name], gradient, tolerance)


@recurrent
@settings(max_examples=15)
@given(
    T=st.integers(1, 120),
    N=st.integers(1, 3),
    share=st.floats(0, 1),
    reduction=st.sampled_from(["mean", "sum"]),
    seed=st.integers(0, 99),
)
def test_the_gradient_is_that_in_one_piece(recurrent, T, N, share, reduction, seed):
    model, (x, target) = character_model(recurrent=recurrent), text(T, N, seed)
    loss = partial(cross_entropy, reduction=reduction)
    _, state = model.predict(text(3, N)[0])
    (whole,) = bptt.TruncatedBPTT(T, T).run(model, loss, x, target, state)
    budget = budget_for(model, loss, x, target, share)
    (update,) = bptt.FullBPTT(budget, reduction).run(model, loss, x, target, state)
    assert_same(update, whole)
    h = update.state[1][0] if recurrent is bptt.LSTM else update.state[1]
    assert_close(h, whole.state[1][0] if recurrent is bptt.LSTM else whole.state[1], 1e-12)


def test_stacks_dropout_and_learned_initial_states_go_on_over_segments():
    """With dropout the masks are those that the segments draw: the same forward and again. The
    gradient is then that of the same segments with all their tapes kept."""
    rng = np.random.default_rng(0)
    options: Any = {"num_layers": 2, "dtype": np.float64, "seed": 0, "learn_initial_state": True}
    x, target = rng.standard_normal((90, 2, 3)), rng.standard_normal((90, 2, 4))
    loss = bptt.losses.mse
    for dropout in (0.0, 0.4):
        model = bptt.LSTM(3, 4, dropout=dropout, **options)
        schedule = bptt.FullBPTT(budget_for(model, loss, x, target, 0.3))
        plan = schedule.plan(model, loss, x, target)
        assert plan.segments > 2
        random, state, tapes, dys = model.random_state, None, [], []
        for k in range(plan.segments):
            steps = slice(*plan.bounds(k))
            y, state, tape = model.forward(x[steps], state)
            tapes.append(tape)
            dys.append(loss(y, target[steps])[1] * (steps.stop - steps.start) / 90)
        after, dstate, total = model.random_state, None, {}
        for tape, dy in zip(reversed(tapes), reversed(dys), strict=True):
            found = model.backward(tape, dy, dstate)
            dstate = found.state
            for name, gradient in found.parameters.items():
                total[name] = total.get(name, 0) + gradient
        model.random_state = random
        (update,) = schedule.run(model, loss, x, target)
        assert model.random_state == after
        assert total["initial_h"].any()
        for name, gradient in total.items():
            assert_close(update.gradients[name], gradient, 1e-12)


def test_without_a_budget_it_is_one_piece_to_the_bit():
    model, (x, target) = character_model(), text(30, 2)
    (whole,) = bptt.TruncatedBPTT(30, 30).run(model, cross_entropy, x, target)
    (update,) = bptt.FullBPTT().run(model, cross_entropy, x, target)
    assert update.loss == whole.loss
    assert all(np.array_equal(update.gradients[n], g) for n, g in whole.gradients.items())


def test_a_mean_over_what_counts_is_weighted_by_the_counts():
    """The loss leaves out targets of 0; all of the first 40 are such."""
    model, (x, target) = character_model(), text(100, 2)
    target[:40] = 0

    def loss(prediction: Array, target: Array) -> tuple[float, Array]:
        return cross_entropy(prediction, target, mask=target != 0)

    (whole,) = bptt.TruncatedBPTT(100, 100).run(model, loss, x, target)
    budget = budget_for(model, loss, x, target, 0.1)
    schedule = bptt.FullBPTT(budget, count=lambda target: np.count_nonzero(target))
    assert schedule.plan(model, loss, x, target).segments > 5
    (update,) = schedule.run(model, loss, x, target)
    assert_same(update, whole)
    target[:] = 0  # nothing counts
    (update,) = schedule.run(model, loss, x, target)
    assert update.loss == 0
    assert not any(g.any() for g in update.gradients.values())


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 1.0])
def test_memory_stays_within_what_the_plan_predicts_and_the_steps_are_counted(share, monkeypatch):
    rng = np.random.default_rng(0)
    model = bptt.Sequential(bptt.LSTM(3, 24, seed=0), bptt.Linear(24, 2, seed=1))
    x = rng.standard_normal((3000, 2, 3), np.float32)
    target = rng.standard_normal((3000, 2, 2), np.float32)
    budget = budget_for(model, bptt.losses.mse, x, target, share)
    schedule = bptt.FullBPTT(budget)
    plan = schedule.plan(model, bptt.losses.mse, x, target)
    assert plan.memory <= budget

    steps, calls = 0, []

    def counted(method: Any) -> Any:
        def call(x: Array, *rest: Any) -> Any:
            calls.append(len(x))
            return method(x, *rest)

        return call

    for name in ("forward", "predict"):
        monkeypatch.setattr(model.layers[0], name, counted(getattr(model.layers[0], name)))
    plan = schedule.plan(model, bptt.losses.mse, x, target)
    probes, before = sum(calls), _core.used_memory()
    _core.reset_peak_memory()
    (update,) = schedule.run(model, bptt.losses.mse, x, target)
    assert _core.peak_memory() - before <= budget
    steps = sum(calls) - 2 * probes
    assert steps == plan.forward_steps
    assert update.steps == 3000


@pytest.mark.parametrize(
    ("T", "N", "head", "layer"),
    [
        (3000, 1, 2, bptt.LSTM(3, 24, num_layers=3, seed=0)),
        (3000, 2, 2, bptt.GRU(3, 70, num_layers=2, seed=0)),
        (500, 20, 2, bptt.LSTM(3, 24, num_layers=3, seed=0)),  # 20 times 24 numbers: larger blocks
        (20, 5, 2, bptt.GRU(100, 2, seed=0)),  # the input is what grows
        (100, 2, 400, bptt.RNN(3, 16, num_layers=2, seed=0)),  # a head of many outputs
    ],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("share", [0.02, 0.1, 1.0])
def test_a_small_budget_holds_whichever_way_layers_run(layer, head, T, N, share, threads):
    rng = np.random.default_rng(0)
    model = bptt.Sequential(layer, bptt.Linear(layer.hidden_size, head, seed=1))
    x = rng.standard_normal((T, N, layer.input_size), np.float32)
    target = rng.standard_normal((T, N, head), np.float32)
    with bptt.num_threads(threads):
        budget = budget_for(model, bptt.losses.mse, x, target, share)
        before = _core.used_memory()
        _core.reset_peak_memory()
        (update,) = bptt.FullBPTT(budget).run(model, bptt.losses.mse, x, target)
        assert _core.peak_memory() - before <= budget
    assert update.steps == T


def test_more_memory_never_costs_more_steps():
    model, (x, target) = character_model(), text(500, 1)
    costs = [
        bptt.FullBPTT(budget_for(model, cross_entropy, x, target, share))
        .plan(model, cross_entropy, x, target)
        .cost
        for share in np.linspace(0, 1, 9)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 1


def test_the_smallest_budget_works_and_one_byte_less_does_not():
    model, (x, target) = character_model(), text(60, 1)
    least = smallest(model, cross_entropy, x, target)
    (whole,) = bptt.FullBPTT().run(model, cross_entropy, x, target)
    (update,) = bptt.FullBPTT(least).run(model, cross_entropy, x, target)
    assert_same(update, whole)
    sentence = (
        f"FullBPTT: memory_budget is {least - 1} bytes, "
        f"expected at least {least} for this model and stream"
    )
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        list(bptt.FullBPTT(least - 1).run(model, cross_entropy, x, target))


def test_input_and_target_may_be_files(tmp_path):
    model, (x, target) = character_model(), text(200, 2)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "target.npy", target)
    files = [np.load(tmp_path / name, mmap_mode="r") for name in ("x.npy", "target.npy")]
    schedule = bptt.FullBPTT(budget_for(model, cross_entropy, x, target, 0.2))
    (whole,) = schedule.run(model, cross_entropy, x, target)
    (update,) = schedule.run(model, cross_entropy, *files)
    assert update.loss == whole.loss
    assert all(np.array_equal(update.gradients[n], g) for n, g in whole.gradients.items())


def test_the_trainer_offers_it():
    x, target = text(200, 2)
    losses = []
    budget = budget_for(character_model(), cross_entropy, x, target, 0.2)
    for schedule in (None, bptt.FullBPTT(memory_budget=budget)):
        model = character_model()
        trainer = bptt.Trainer(model, cross_entropy, bptt.optim.Adam(1e-2), schedule)
        losses.append(trainer.fit(x, target, epochs=3, progress=False).loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)
    assert losses[0][-1] < losses[0][0]


def test_no_steps_are_no_update():
    model, (x, target) = character_model(), text(0, 2)
    for schedule in (bptt.FullBPTT(), bptt.FullBPTT(1)):
        assert list(schedule.run(model, cross_entropy, x, target)) == []
        assert schedule.windows(0) == 0
        assert schedule.windows(9) == 1
        assert schedule.separable


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((0,), ValueError, "memory_budget is 0 (int), expected an integer >= 1"),
        ((1e6,), TypeError, "memory_budget is 1000000.0 (float), expected an integer >= 1"),
        ((9, "none"), ValueError, "reduction is 'none' (str), expected one of 'mean', 'sum'"),
        ((9, "mean", 3), TypeError, "count is a int, expected a Callable"),
        ((9, "sum", len), ValueError, 'count is given, expected None with reduction "sum"'),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, error, sentence):
    with pytest.raises(error) as caught:
        bptt.FullBPTT(*arguments)
    assert str(caught.value) == f"FullBPTT: {sentence}"


def test_streams_losses_and_counts_that_do_not_fit_are_refused():
    model, (x, target) = character_model(), text(50, 2)
    schedule = bptt.FullBPTT(10**6)
    with pytest.raises(ValueError, match=r"^FullBPTT.run: target has shape \(49, 2\)"):
        schedule.run(model, cross_entropy, x, target[:49])
    with pytest.raises(TypeError, match=r"^FullBPTT.plan: model is a str, expected a Layer$"):
        schedule.plan("model", cross_entropy, x, target)
    both = bptt.Sequential(bptt.GRU(2, 3, bidirectional=True), bptt.Linear(6, 1))
    with pytest.raises(
        ValueError, match=r"^FullBPTT.run: GRU\(2, 3.*\) is bidirectional, expected"
    ):
        schedule.run(both, bptt.losses.mse, np.zeros((5, 2, 2)), np.zeros((5, 2, 1)))
    sentence = "FullBPTT.run: the loss has reduction 'sum', this schedule 'mean'"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        schedule.run(model, partial(cross_entropy, reduction="sum"), x, target)
    sentence = r"FullBPTT.plan: x has shape \(0, 2\), expected T >= 1 steps"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        schedule.plan(model, cross_entropy, *text(0, 2))
    with pytest.raises(ValueError, match=r"^FullBPTT.run: count\(target\) is -1 \(int\)"):
        list(bptt.FullBPTT(10**6, count=lambda _: -1).run(model, cross_entropy, x, target))
