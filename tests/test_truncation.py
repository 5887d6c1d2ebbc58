"""Truncation that is random and right on average, and truncation that measures how far to go."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import bptt
from bptt.truncation import relative_bias
from models import V, character_model
from networks import assert_close

Array = NDArray[Any]
cross_entropy = bptt.losses.softmax_cross_entropy


def text(T: int, N: int = 2, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (T, N)), rng.integers(0, V, (T, N))


def linear(weight: Array, weight_ih: Array) -> bptt.RNN:
    n = len(weight)
    rnn = bptt.RNN(1, n, bias=False, dtype=np.float64, nonlinearity="identity")
    rnn.load_parameters({"weight_ih_l0": weight_ih.reshape(n, 1), "weight_hh_l0": weight})
    return rnn


# ---- influence balancing (Tallec & Ollivier 2017) ------------------------------------------------

N_UNITS, STEPS = 23, 300
SIGNS = np.where(np.arange(N_UNITS) < 10, 1.0, -1.0)  # how the parameter reaches each unit


def influence_balancing(theta: float) -> tuple[bptt.RNN, Array, Array]:
    """s_t = A s_{t-1} + theta * signs, A_ii = A_i,i+1 = 1/2, at its fixed point: a unit's influence
    on the first grows with the time it has, so that what is near says the opposite of the whole."""
    A = 0.5 * (np.eye(N_UNITS) + np.eye(N_UNITS, k=1))
    fixed_point = np.linalg.solve(np.eye(N_UNITS) - A, theta * SIGNS)
    return linear(A, theta * SIGNS), np.ones((STEPS, 1, 1)), fixed_point[None, None]


def last_first_unit(prediction: Array, target: Array) -> tuple[float, Array]:
    """(s_1 - 1)^2 / 2 of the stream's last step, which the target marks."""
    difference = (prediction[..., 0] - 1) * target[..., 0]
    dprediction = np.zeros_like(prediction)
    dprediction[..., 0] = difference
    return float((difference**2).sum() / 2), dprediction


def theta_gradient(updates: Any) -> float:
    return float(sum(SIGNS @ u.gradients["weight_ih_l0"][:, 0] for u in updates))


LAST = np.zeros((STEPS, 1, 1))
LAST[-1] = 1


@pytest.mark.parametrize("window", [1, 2, 10, 25, 39, 40, 41, 42, 60, 100])
def test_influence_balancing_has_the_wrong_sign_up_to_forty_and_the_right_one_from_there(window):
    model, x, state = influence_balancing(theta=-0.2)
    # s_1 = -6 theta at the fixed point: the whole gradient is -6 (s_1 - 1).
    whole = -6 * (1.2 - 1)
    schedule = bptt.TruncatedBPTT(1, window)
    truncated = theta_gradient(schedule.run(model, last_first_unit, x, LAST, state))
    assert np.sign(truncated) == (-np.sign(whole) if window <= 40 else np.sign(whole))
    full = theta_gradient(bptt.FullBPTT().run(model, last_first_unit, x, LAST, state))
    assert full == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    "schedule",
    [
        bptt.RandomTruncation(40, every=8, seed=1, reduction="sum"),
        bptt.RandomTruncation(40, every=8, distribution="geometric", seed=2, reduction="sum"),
        bptt.RandomTruncation(40, every=4, alpha=4.0, seed=3, reduction="sum"),
    ],
)
def test_random_truncation_converges_to_the_true_gradient(schedule):
    """The mean of n runs lies within 5 standard errors of the truth. With a normal mean, that fails
    by chance with probability 6e-7 (and never for these seeds, once it has passed). Truncation to
    40 steps is further away than that."""
    model, x, state = influence_balancing(theta=-0.2)
    x, last, n, whole = x[:120], LAST[-120:], 600, -6 * 0.2
    draws = np.array(
        [theta_gradient(schedule.run(model, last_first_unit, x, last, state)) for _ in range(n)]
    )
    error = draws.std(ddof=1) / np.sqrt(n)
    assert abs(draws.mean() - whole) < 5 * error
    assert error < 0.2 * abs(whole)
    truncated = theta_gradient(
        bptt.TruncatedBPTT(1, 40).run(model, last_first_unit, x, last, state)
    )
    assert abs(truncated - whole) > 5 * error


# ---- RandomTruncation ----------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    T=st.integers(2, 9),
    every=st.integers(1, 3),
    power=st.booleans(),
    mean=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_expectation_over_all_cuts_is_the_full_gradient(T, every, power, mean, seed):
    """Exactly: every way to cut the stream, weighted by its probability."""
    rng = np.random.default_rng(seed)
    layer = bptt.LSTM(2, 3, dtype=np.float64, seed=seed)
    x, dy = rng.standard_normal((T, 2, 2)), rng.standard_normal((T, 2, 3))
    schedule = bptt.RandomTruncation(
        3.5 * every,
        every,
        "power" if power else "geometric",
        alpha=2.5,
        reduction="mean" if mean else "sum",
    )

    def inner_product(prediction: Array, target: Array) -> tuple[float, Array]:
        divisor = len(target) if mean else 1
        return float((prediction * target).sum()) / divisor, target / divisor

    class Scripted:
        """Draws what the script says, and keeps account of its probability."""

        def __init__(self, script: list[bool]) -> None:
            self.script, self.probability, self.pieces = script, 1.0, 0

        def random(self) -> float:
            self.pieces += 1
            c = schedule.cut_probability(self.pieces)
            cut = self.script.pop(0)
            self.probability *= c if cut else 1 - c
            if cut:
                self.pieces = 0
            return c / 2 if cut else (1 + c) / 2

    places = -(-T // every) - 1
    expectation: dict[str, Any] = {}
    whole_probability = 0.0
    for script in range(2**places):
        schedule._random = Scripted([bool(script >> i & 1) for i in range(places)])
        updates = list(schedule.run(layer, inner_product, x, dy))
        probability = schedule._random.probability
        whole_probability += probability
        for update in updates:
            for name, gradient in update.gradients.items():
                expectation[name] = expectation.get(name, 0) + probability * gradient
    assert whole_probability == pytest.approx(1)
    (full,) = bptt.FullBPTT().run(layer, inner_product, x, dy)
    for name, gradient in full.gradients.items():
        wanted = gradient * T / schedule.mean if mean else gradient
        assert_close(expectation[name], wanted, 1e-12)


@pytest.mark.parametrize("distribution", ["power", "geometric"])
def test_windows_have_the_mean_length(distribution):
    """1e5 steps of windows of mean 20: the mean of about 5000 lengths, within 5 standard errors."""
    schedule = bptt.RandomTruncation(20, 2, distribution, seed=5)
    lengths = 2.0 * np.array([schedule._draw(10**6)[0] for _ in range(5000)])
    assert abs(lengths.mean() - 20) < 5 * lengths.std() / np.sqrt(len(lengths))


@given(T=st.integers(0, 60), mean=st.floats(1.1, 30), seed=st.integers(0, 99))
def test_windows_follow_each_other_and_losses_are_those_of_the_stream(T, mean, seed):
    model, (x, target) = character_model(), text(T)
    schedule = bptt.RandomTruncation(mean, 1, seed=seed)
    updates = list(schedule.run(model, cross_entropy, x, target))
    assert [u.start for u in updates] == [0, *(u.stop for u in updates)][: len(updates)]
    assert sum(u.steps for u in updates) == T
    if T:
        prediction, state = model.predict(x)
        whole, _ = cross_entropy(prediction, target)
        assert sum(u.loss * u.steps for u in updates) / T == pytest.approx(whole, rel=1e-12)
        assert_close(updates[-1].state[1][0], state[1][0], 1e-12)


def test_the_same_seed_draws_the_same_cuts_and_a_saved_state_goes_on():
    model, (x, target) = character_model(), text(300)

    def stops(schedule: Any) -> list[int]:
        return [u.stop for u in schedule.run(model, cross_entropy, x, target)]

    one, other = bptt.RandomTruncation(12, seed=7), bptt.RandomTruncation(12, seed=7)
    assert stops(one) == stops(other)
    saved = json.loads(json.dumps(one.state_dict()))
    later = stops(one)
    assert later != stops(bptt.RandomTruncation(12, seed=7))
    fresh = bptt.RandomTruncation(12, seed=8)
    fresh.load_state_dict(saved)
    assert stops(fresh) == later


# ---- AdaptiveTruncation --------------------------------------------------------------------------


def test_the_window_is_the_shortest_within_the_tolerance_for_a_scalar_network():
    """h = x + w*h_prev and losses sum(h): a piece of k1 steps, i pieces back, adds a gradient that
    is w^k1 times that of the piece after it. The bound is then exact in closed form."""
    w, k1, maximum = 0.9, 4, 120
    model = linear(np.array([[w]]), np.ones((1, 1)))
    x = np.ones((400, 1, 1))

    def loss(prediction: Array, _: Array) -> tuple[float, Array]:
        dprediction = np.zeros_like(prediction)
        dprediction[-1] = 1  # the window's last step alone
        return float(prediction[-1].sum()), dprediction

    h0 = np.full((1, 1, 1), 1 / (1 - w))  # the fixed point: every step hands back w times as much
    for tolerance in (0.3, 0.1, 0.01):
        schedule = bptt.AdaptiveTruncation(tolerance, k1, maximum, every=1)
        updates = list(schedule.run(model, loss, x, x, h0))
        assert len(updates) == schedule.windows(400)
        r = w**k1
        lengths = np.arange(1, maximum // k1 + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = np.where(r**lengths < 0.5, r**lengths / (1 - 2 * r**lengths), np.inf)
        assert_close(schedule.bias_by_window[10:], bound[10:], 1e-6)
        assert schedule.window == k1 * (1 + int(np.argmax(bound <= tolerance)))
        # What the update used is the gradient of that window.
        expected = list(bptt.TruncatedBPTT(k1, schedule.window).run(model, loss, x, x, h0))[-2]
        for name, gradient in expected.gradients.items():
            assert_close(updates[-2].gradients[name], gradient, 1e-12)


@settings(max_examples=20)
@given(
    k1=st.integers(1, 5),
    pieces=st.integers(2, 6),
    every=st.integers(1, 4),
    extra=st.integers(0, 30),
)
def test_each_update_is_that_of_truncated_bptt_with_the_window_of_the_moment(
    k1, pieces, every, extra
):
    model, T = character_model(), k1 * pieces + extra
    x, target = text(T)
    schedule = bptt.AdaptiveTruncation(0.2, k1, k1 * pieces, every)
    window = schedule.window
    for update in schedule.run(model, cross_entropy, x, target):
        if update.stop % k1 == 0:
            expected = next(
                u
                for u in bptt.TruncatedBPTT(k1, window).run(model, cross_entropy, x, target)
                if u.stop == update.stop
            )
            for name, gradient in expected.gradients.items():
                assert_close(update.gradients[name], gradient, 1e-12)
            assert update.loss == pytest.approx(expected.loss, rel=1e-12)
        window = schedule.window


def test_a_network_that_forgets_gets_a_short_window_and_one_that_does_not_the_longest():
    windows = []
    for w in (0.1, 0.999):
        model = linear(np.array([[w]]), np.ones((1, 1)))
        x = np.random.default_rng(0).standard_normal((600, 1, 1))
        schedule = bptt.AdaptiveTruncation(0.05, k1=4, maximum=64, every=2)
        list(schedule.run(model, bptt.losses.mse, x, x))
        windows.append(schedule.window)
    assert windows[0] <= 8
    assert windows[1] == 64


def test_the_bound_holds_for_the_bias_that_is_there():
    parts, sums = np.array([4.0, 2.0, 1.0, 0.5]), np.array([4.0, 6.0, 7.0, 7.5])
    found = relative_bias(parts, sums)
    assert found[0] == np.inf  # what lies beyond is as large as what is there
    assert found[1:] == pytest.approx([2 / 4, 1 / 6, 0.5 / 7])
    assert relative_bias(np.array([1.0, 0.0]), np.array([1.0, 1.0])).tolist() == [0, 0]
    assert np.isinf(relative_bias(np.ones(4), np.arange(1.0, 5.0))).all()


def test_what_was_measured_can_be_saved_and_goes_on():
    model, (x, target) = character_model(), text(100)
    schedule = bptt.AdaptiveTruncation(0.1, 4, 24, every=3)
    list(schedule.run(model, cross_entropy, x, target))
    twin = bptt.AdaptiveTruncation(0.1, 4, 24, every=3)
    twin.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert twin.window == schedule.window
    assert np.array_equal(twin.bias_by_window, schedule.bias_by_window)
    for a, b in zip(
        schedule.run(model, cross_entropy, x, target),
        twin.run(model, cross_entropy, x, target),
        strict=True,
    ):
        assert all(np.array_equal(a.gradients[name], g) for name, g in b.gradients.items())


@pytest.mark.parametrize(
    "schedule",
    [bptt.RandomTruncation(16, seed=0), bptt.AdaptiveTruncation(0.1, k1=8, maximum=32)],
)
def test_the_trainer_takes_them(schedule):
    model = character_model()
    x = np.tile(np.arange(V), 40)[:401, None]
    trainer = bptt.Trainer(model, cross_entropy, bptt.optim.Adam(1e-2), schedule, clip_norm=1.0)
    history = trainer.fit(x[:-1], x[1:], epochs=4, progress=False)
    assert np.mean(history.loss[-5:]) < 0.5 * history.loss[0]


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"mean": 1}, ValueError, "mean is 1 (int), expected a number in (1, inf)"),
        ({"mean": float("nan")}, ValueError, "mean is nan (float), expected a number in (1, inf)"),
        ({"mean": "9"}, TypeError, "mean is '9' (str), expected a number in (1, inf)"),
        ({"mean": 8, "every": 0}, ValueError, "every is 0 (int), expected an integer >= 1"),
        ({"mean": 8, "every": 8}, ValueError, "mean is 8, expected more than every = 8"),
        ({"mean": 8, "alpha": 1}, ValueError, "alpha is 1 (int), expected a number in (1, inf)"),
        (
            {"mean": 8, "distribution": "normal"},
            ValueError,
            "distribution is 'normal' (str), expected one of 'power', 'geometric'",
        ),
        (
            {"mean": 8, "reduction": "none"},
            ValueError,
            "reduction is 'none' (str), expected one of 'mean', 'sum'",
        ),
        ({"mean": 8, "seed": -1}, ValueError, "seed is -1 (int), expected an integer >= 0"),
    ],
)
def test_random_truncations_that_make_no_sense_are_refused(options, error, sentence):
    with pytest.raises(error) as caught:
        bptt.RandomTruncation(**options)
    assert str(caught.value) == f"RandomTruncation: {sentence}"


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"tolerance": 0}, ValueError, "tolerance is 0 (int), expected a number in (0, 1)"),
        ({"tolerance": 1.0}, ValueError, "tolerance is 1.0 (float), expected a number in (0, 1)"),
        (
            {"tolerance": 0.1, "k1": 16, "maximum": 100},
            ValueError,
            "maximum is 100, expected a multiple of k1 = 16, at least 32",
        ),
        (
            {"tolerance": 0.1, "k1": 16, "maximum": 16},
            ValueError,
            "maximum is 16, expected a multiple of k1 = 16, at least 32",
        ),
        ({"tolerance": 0.1, "every": 0}, ValueError, "every is 0 (int), expected an integer >= 1"),
        (
            {"tolerance": 0.1, "memory": 1},
            ValueError,
            "memory is 1 (int), expected a number in [0, 1)",
        ),
    ],
)
def test_adaptive_truncations_that_make_no_sense_are_refused(options, error, sentence):
    with pytest.raises(error) as caught:
        bptt.AdaptiveTruncation(**options)
    assert str(caught.value) == f"AdaptiveTruncation: {sentence}"


def test_streams_and_states_that_do_not_fit_are_refused():
    model, (x, target) = character_model(), text(31)
    random, adaptive = bptt.RandomTruncation(8), bptt.AdaptiveTruncation(0.1, 8, 32)
    sentence = (
        "AdaptiveTruncation.run: the stream has T = 31 steps, "
        "expected at least maximum = 32: nothing could be measured"
    )
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        adaptive.run(model, cross_entropy, x, target)
    with pytest.raises(
        TypeError, match=r"^RandomTruncation.run: loss is a str, expected a Callable$"
    ):
        random.run(model, "mse", x, target)
    with pytest.raises(ValueError, match=r"^RandomTruncation.run: target has shape \(30, 2\)"):
        random.run(model, cross_entropy, x, target[:30])
    with pytest.raises(ValueError, match=r"^RandomTruncation.load_state_dict: state lacks"):
        random.load_state_dict({})
    with pytest.raises(
        ValueError, match=r"^RandomTruncation.load_state_dict: state\['random'\] is 3"
    ):
        random.load_state_dict({"random": 3})
    good = adaptive.state_dict()
    with pytest.raises(ValueError, match=r"state\['window'\] is 12, expected a multiple of k1 = 8"):
        adaptive.load_state_dict(good | {"window": 12})
    with pytest.raises(ValueError, match=r"state\['parts'\] is no list of 4 numbers$"):
        adaptive.load_state_dict(good | {"parts": [1.0]})
