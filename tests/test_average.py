"""The moving average of weights, and weight decay that spares biases."""

import math

import numpy as np
import pytest

import bptt
from models import character_model
from networks import assert_close


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_an_average_is_the_weighted_mean_of_all_weights(decay, rng):
    history = rng.standard_normal((7, 3, 2))
    average = bptt.WeightAverage(decay)
    for count, value in enumerate(history, 1):
        average.update({"w": value})
        shares = decay ** np.arange(count - 1, -1, -1.0)
        expected = np.tensordot(shares / shares.sum(), history[:count], 1)
        assert_close(average.parameters["w"], expected, 1e-14)
    assert average.updates == 7


def test_an_average_is_a_copy_and_applied_for_a_while():
    model = character_model(np.float32)
    own = {name: p.copy() for name, p in model.parameters.items()}
    average = bptt.WeightAverage(0.5)
    average.update(model.parameters)
    for p in model.parameters.values():
        p += 1
    average.update(model.parameters)
    with average.applied(model):
        for name, p in model.parameters.items():
            assert p.dtype == np.float32
            assert_close(p, own[name] + np.float32(2 / 3), 1e-6)
    for name, p in model.parameters.items():
        assert np.array_equal(p, own[name] + 1)


def test_an_averages_state_is_all_that_it_is(rng):
    history = rng.standard_normal((6, 4))
    whole, first, second = (bptt.WeightAverage(0.9) for _ in range(3))
    for value in history:
        whole.update({"w": value})
    for value in history[:3]:
        first.update({"w": value})
    second.load_state_dict(first.state_dict())
    for value in history[3:]:
        second.update({"w": value})
    assert np.array_equal(second.parameters["w"], whole.parameters["w"])


def test_averages_refuse(rng):
    with pytest.raises(ValueError, match=r"^WeightAverage: decay is 1.0 \(float\), expected a num"):
        bptt.WeightAverage(1.0)
    average = bptt.WeightAverage()
    with pytest.raises(ValueError, match=r"^WeightAverage.applied: there is no average before"):
        average.applied(character_model()).__enter__()
    average.update({"w": rng.standard_normal(3)})
    with pytest.raises(ValueError, match=r"^WeightAverage.update: parameters lacks \['w'\]"):
        average.update({})


# ---- weight decay that spares biases -----------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda **o: bptt.optim.SGD(0.1, momentum=0.9, **o),
    "plain SGD": lambda **o: bptt.optim.SGD(0.1, **o),
    "RMSprop": lambda **o: bptt.optim.RMSprop(**o),
    "Adagrad": lambda **o: bptt.optim.Adagrad(**o),
    "Adam": lambda **o: bptt.optim.Adam(**o),
    "AdamW": lambda **o: bptt.optim.AdamW(**o),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_go_as_without_decay_and_weights_as_with_it(name, dtype, rng):
    make = OPTIMIZERS[name]
    start = {
        key: rng.standard_normal((5, 3)).astype(dtype)
        for key in ("weight", "0.weight_hh_l0", "bias", "2.bias", "0.bias_hh_l0_reverse")
    }
    ends = []
    for options in (
        {"weight_decay": 0.3, "decay_biases": False},
        {"weight_decay": 0.3},
        {"weight_decay": 0.0},
    ):
        parameters = {key: p.copy() for key, p in start.items()}
        optimizer = make(**options)
        for _ in range(3):
            optimizer.step(parameters, {key: 0.1 * p for key, p in start.items()})
        ends.append(parameters)
    spared, decayed, free = ends
    for key in start:
        assert np.array_equal(spared[key], (free if "bias" in key else decayed)[key])
        assert not np.array_equal(decayed[key], free[key])


def test_whether_biases_decay_is_a_hyperparameter_like_all_others():
    optimizer = bptt.optim.AdamW(decay_biases=False)
    other = bptt.optim.AdamW()
    other.load_state_dict(optimizer.state_dict())
    assert other.decay_biases is False
    with pytest.raises(TypeError, match=r"^AdamW: decay_biases is 0 \(int\), expected True or Fal"):
        optimizer.decay_biases = 0
    assert math.isclose(other.weight_decay, 0.01)
