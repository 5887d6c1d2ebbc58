"""The core equals the reference: forward and backward, every cell, both precisions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from networks import CELLS, Network, assert_close, backward, draw, expected, forward
from reference import Weights

TOLERANCE = {np.float64: 1e-12, np.float32: 2e-5}
DTYPES = [np.float64, np.float32]

precisions = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
cells = pytest.mark.parametrize("cell", CELLS)

# T and N from 0, D and H from 1; what is given and what is not.
shapes = st.tuples(*(st.integers(low, 40) for low in (0, 0, 1, 1)))
seeds = st.integers(0, 2**32 - 1)
reductions = st.sampled_from(["sum", "mean", "mean_sequences"])
flags = st.fixed_dictionaries(
    {
        name: st.booleans()
        for name in ("biases", "state", "lengths", "reset", "dy", "dstate", "reverse")
    }
)
EVERYTHING = dict.fromkeys(("biases", "state", "lengths", "reset", "dy", "dstate"), True)
BACKWARDS = EVERYTHING | {"reverse": True}
NOTHING = dict.fromkeys(EVERYTHING, False)


def check(cell: str, dtype: Any, shape: tuple[int, ...], seed: int, reduction: str, **given: bool):
    network = draw(cell, shape, np.random.default_rng(seed), dtype=dtype, **given)
    run = forward(network)
    grads = backward(network, run.tape, reduction)
    # The reference works in double precision on the same numbers.
    its_run, its_grads = expected(network.astype(np.float64), reduction)
    for array in (run.y, run.h, grads.x, grads.weight_hh):
        assert array.dtype == dtype
    assert_close(run, its_run, TOLERANCE[dtype])
    assert_close(grads, its_grads, TOLERANCE[dtype])


@precisions
@cells
@given(
    shape=shapes,
    seed=seeds,
    reduction=st.sampled_from(["sum", "mean", "mean_sequences"]),
    given=flags,
)
@example(shape=(0, 0, 1, 1), seed=0, reduction="mean", given=EVERYTHING)
@example(shape=(0, 3, 2, 5), seed=0, reduction="mean_sequences", given=EVERYTHING)
@example(shape=(0, 3, 2, 5), seed=0, reduction="mean", given=BACKWARDS)
@example(shape=(4, 0, 2, 5), seed=0, reduction="mean", given=EVERYTHING)
@example(shape=(0, 3, 2, 5), seed=0, reduction="mean_sequences", given=EVERYTHING)
@example(shape=(5, 3, 2, 4), seed=0, reduction="sum", given=NOTHING)
def test_equals_the_reference(
    cell: str,
    dtype: Any,
    shape: tuple[int, int, int, int],
    seed: int,
    reduction: str,
    given: dict[str, bool],
) -> None:
    check(cell, dtype, shape, seed, reduction, **given)


# Sizes around those that the kernels work in: vectors, tiles, panels, depths, chunks of steps.
@pytest.mark.parametrize(
    "shape",
    [
        (3, 14, 16, 16),
        (3, 15, 17, 31),
        (2, 113, 3, 33),  # more rows than a group of tiles
        (3, 2, 1030, 5),  # deeper than one run of a product
        (3, 8, 4, 520),
        (700, 1, 2, 3),  # more steps than a chunk of the weights' gradients
        (5, 600, 3, 4),  # more sequences than that chunk has rows
        (1200, 9, 3, 33),  # more than a chunk of the input's share
    ],
    ids=str,
)
@precisions
@cells
def test_sizes_beyond_one_block(cell: str, dtype: Any, shape: tuple[int, int, int, int]) -> None:
    check(cell, dtype, shape, 1, "sum", **EVERYTHING)
    check(cell, dtype, shape, 1, "sum", **BACKWARDS)
    check(cell, dtype, shape, 2, "sum", **{**EVERYTHING, "lengths": False, "reset": False})


@cells
def test_lengths_in_any_order_with_zeros(cell: str, rng: np.random.Generator) -> None:
    network = draw(cell, (6, 5, 3, 4), rng)
    for dtype in (np.int64, np.int32, np.uint8):
        n = network.but(lengths=np.array([0, 6, 2, 0, 5], dtype))
        run, (its_run, its_grads) = forward(n), expected(n)
        assert_close(run, its_run, 1e-12)
        assert_close(backward(n, run.tape), its_grads, 1e-12)


@cells
@pytest.mark.parametrize("reverse", [False, True])
def test_beyond_its_end_a_sequence_takes_and_gives_nothing(
    cell: str, reverse: bool, rng: np.random.Generator
) -> None:
    network = draw(cell, (6, 5, 3, 4), rng, reverse=reverse).but(lengths=np.array([0, 6, 2, 1, 5]))
    beyond = np.arange(6)[:, None] >= network.lengths
    clean = forward(network)
    clean_grads = backward(network, clean.tape)
    # NaN where nothing may be read.
    x, dy = network.x.copy(), network.dy.copy()
    x[beyond], dy[beyond] = np.nan, np.nan
    dirty = network.but(x=x, dy=dy)
    run = forward(dirty)
    grads = backward(dirty, run.tape)
    assert_close(run, clean, 0)
    assert_close(grads, clean_grads, 0)
    assert not run.y[beyond].any()
    assert not grads.x[beyond].any()
    np.testing.assert_array_equal(run.h[0], network.h[0])
    np.testing.assert_array_equal(grads.h[0], network.dh[0])


@cells
@pytest.mark.parametrize("lengths", [[3, 0], [0, 0], [300, 1]], ids=str)
@pytest.mark.parametrize("N", [2, 20])
def test_steps_that_nobody_lives_to_see_add_nothing(
    cell: str, N: int, lengths: list[int], rng: np.random.Generator
) -> None:
    # Backward begins with a chunk that has no row. What earlier calls left in memory is not zero.
    network = draw(cell, (600, N, 3, 4), rng).but(lengths=np.resize(lengths, N))
    backward(network, forward(network.but(lengths=None)).tape)
    run, (its_run, its_grads) = forward(network), expected(network)
    assert_close(run, its_run, 1e-12)
    assert_close(backward(network, run.tape), its_grads, 1e-12)


@cells
def test_mean_divides_by_the_valid_steps(cell: str, rng: np.random.Generator) -> None:
    for lengths, count in ((None, 18), (np.array([6, 0, 1]), 7), (np.zeros(3, int), 1)):
        network = draw(cell, (6, 3, 2, 4), rng).but(lengths=lengths)
        tape = forward(network).tape
        whole = backward(network, tape, retain=True)
        mean = backward(network, tape, reduction="mean")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            assert_close(getattr(mean, name), getattr(whole, name) / count, 1e-15)
        for name in ("x", "h"):
            np.testing.assert_array_equal(getattr(mean, name), getattr(whole, name))


@precisions
@cells
def test_saturated_gates_stay_finite(cell: str, dtype: Any, rng: np.random.Generator) -> None:
    # Pre-activations of some thousands: no exponential within may overflow into NaN.
    network = draw(cell, (4, 3, 5, 6), rng, dtype=dtype)
    n = network.but(x=network.x * dtype(1e3))
    run, (its_run, its_grads) = forward(n), expected(n.astype(np.float64))
    assert_close(run, its_run, TOLERANCE[dtype])
    assert_close(backward(n, run.tape), its_grads, TOLERANCE[dtype])


@cells
def test_nan_and_infinity_go_through_as_arithmetic_says(
    cell: str, rng: np.random.Generator
) -> None:
    network = draw(cell, (5, 4, 3, 7), rng)
    clean = forward(network)
    x = network.x.copy()
    x[2, 1, 0] = np.nan
    run = forward(network.but(x=x))
    # From that step on in that sequence, and nowhere else.
    assert np.isnan(run.y[2:, 1]).all()
    others = np.ones((5, 4), bool)
    others[2:, 1] = False
    np.testing.assert_array_equal(run.y[others], clean.y[others])

    x[2, 1, 0] = np.inf
    with np.errstate(invalid="ignore"):
        its_run, _ = expected(network.but(x=x))
    run = forward(network.but(x=x))
    np.testing.assert_allclose(run.y[2], its_run.y[2], rtol=1e-12)
    np.testing.assert_array_equal(np.isnan(run.y), np.isnan(its_run.y))


@precisions
def test_activations_are_accurate(dtype: Any) -> None:
    # One unit that sees only x: h = tanh(x); and with g = 1 and c_0 = 0, c = sigmoid(x).
    x = np.concatenate([np.linspace(-20, 20, 20001), np.geomspace(1e-30, 80, 2001)]).astype(dtype)
    one = np.ones((1, 1), dtype)
    rnn = Network("rnn_tanh", x.reshape(1, -1, 1), Weights(one, 0 * one))
    gates, bias = np.array([[1], [0], [0], [0]], dtype), np.array([0, 0, 60, 0], dtype)
    lstm = rnn.but(cell="lstm", weights=Weights(gates, 0 * gates, bias, 0 * bias))
    exact = x.astype(np.float64)
    for actual, function in (
        (forward(rnn).h, np.tanh(exact)),
        (forward(lstm).c, 1 / (1 + np.exp(-exact))),
    ):
        assert actual is not None
        difference = np.abs(actual[:, 0] - function)
        if dtype is np.float32:
            assert (difference <= 4 * np.spacing(np.abs(actual[:, 0]))).all()
        else:
            assert (difference <= 1e-14 * np.abs(function)).all()


@cells
def test_a_tape_keeps_what_it_needs_alive(cell: str, rng: np.random.Generator) -> None:
    shape = (6, 3, 4, 5)
    network = draw(cell, shape, rng, lengths=True, reset=True)
    _, its_grads = expected(network)
    # Temporaries: only the tape holds on to the non-contiguous arrays' copies.
    n = network.but(x=np.asfortranarray(network.x), reset=np.asfortranarray(network.reset))
    tape = forward(n).tape
    assert (tape.cell, tape.shape, tape.dtype, tape.consumed) == (cell, shape, np.float64, False)
    kept = tape.nbytes
    assert kept > 0
    n.x = n.reset = None
    assert_close(backward(n, tape), its_grads, 1e-12)
    assert tape.consumed
    assert tape.nbytes < kept or cell.startswith("rnn")  # those keep nothing but h


@cells
def test_the_tapes_states_are_y_and_cannot_be_written(cell: str, rng: np.random.Generator) -> None:
    network = draw(cell, (6, 3, 4, 5), rng)
    run = forward(network)
    assert run.tape.h.shape == (7, 3, 5)
    np.testing.assert_array_equal(run.tape.h[0], network.h)
    np.testing.assert_array_equal(run.tape.h[1:], run.y)
    for array in (run.y, run.tape.h):
        assert not array.flags.writeable
    run.h[:] = 0  # a copy, the caller's own
    np.testing.assert_array_equal(run.tape.h[1:], run.y)


@cells
def test_inputs_are_left_as_they_were(cell: str, rng: np.random.Generator) -> None:
    network = draw(cell, (6, 3, 4, 5), rng, lengths=True, reset=True)
    arrays = [*vars(network.weights).values(), *(v for v in vars(network).values())]
    arrays = [a for a in arrays if isinstance(a, np.ndarray)]
    before = [a.copy() for a in arrays]
    for a in arrays:
        a.setflags(write=False)
    run = forward(network)
    backward(network, run.tape, retain=True)
    backward(network, run.tape)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
