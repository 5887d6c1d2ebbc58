"""Exact laws: what must hold between calls of the core, whatever its numbers are."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest

import bptt
import reference
from bptt import _core
from networks import (
    CELLS,
    Array,
    Network,
    assert_close,
    assert_same_bits,
    backward,
    draw,
    forward,
)

cells = pytest.mark.parametrize("cell", CELLS)
precisions = pytest.mark.parametrize(
    "dtype", [np.float64, np.float32], ids=lambda dtype: dtype.__name__
)


def gradients(network: Network) -> reference.Gradients:
    return backward(network, forward(network).tape)


def assert_weights_sum(parts: list[reference.Gradients], whole: reference.Gradients) -> None:
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        total = sum(getattr(part, name) for part in parts)
        assert_close(total, getattr(whole, name), 1e-13)


# ---- batches and windows -------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [False, True], ids=["all", "lengths"])
@cells
def test_a_batch_equals_its_sequences_one_by_one(
    cell: str, lengths: bool, rng: np.random.Generator
) -> None:
    N = 17
    batch = draw(cell, (9, N, 5, 19), rng, lengths=lengths, reset=True)
    run, grads = forward(batch), gradients(batch)
    parts = []
    for n in range(N):
        one = batch.sequence(n)
        its_run, its_grads = forward(one), gradients(one)
        assert_close(run.y[:, [n]], its_run.y, 1e-14)
        assert_close(grads.x[:, [n]], its_grads.x, 1e-14)
        assert_close(grads.h[[n]], its_grads.h, 1e-14)
        parts.append(its_grads)
    assert_weights_sum(parts, grads)


@cells
def test_weights_beyond_the_caches_give_the_bits_of_each_sequence_alone(
    cell: str, rng: np.random.Generator
) -> None:
    """Such weights are read ahead, in blocks that the sizes here are no multiples of."""
    N = 14
    batch = draw(cell, (3, N, 150, 201), rng)
    run, grads = forward(batch), gradients(batch)
    for n in range(N):
        one = batch.sequence(n)
        assert_same_bits(run.y[:, [n]], forward(one).y)
        its_grads = gradients(one)
        assert_same_bits(grads.x[:, [n]], its_grads.x)
        assert_same_bits(grads.h[[n]], its_grads.h)


@pytest.mark.parametrize("T", [3, 250], ids=["near", "beyond the caches"])
@cells
def test_more_sequences_than_a_group_give_the_bits_of_each_alone(
    cell: str, T: int, rng: np.random.Generator
) -> None:
    """Their weights are small, so that x's product goes with h's, and dx with dh. What does not
    stay in a cache from forward to backward is asked for, group by group and step by step."""
    batch = draw(cell, (T, 150, 9, 20), rng)
    run, grads = forward(batch), gradients(batch)
    for n in (0, 7, 143, 144, 149):  # groups are of 144 rows
        one = batch.sequence(n)
        assert_same_bits(run.y[:, [n]], forward(one).y)
        its_grads = gradients(one)
        assert_same_bits(grads.x[:, [n]], its_grads.x)
        assert_same_bits(grads.h[[n]], its_grads.h)


@cells
def test_the_order_of_the_batch_does_not_matter(cell: str, rng: np.random.Generator) -> None:
    batch = draw(cell, (9, 17, 5, 19), rng, lengths=True, reset=True)
    order = rng.permutation(17)
    by_time = {name: getattr(batch, name)[:, order] for name in ("x", "reset", "dy")}
    by_sequence = {
        name: None if getattr(batch, name) is None else getattr(batch, name)[order]
        for name in ("h", "c", "lengths", "dh", "dc")
    }
    other = batch.but(**by_time, **by_sequence)
    run, its_run = forward(batch), forward(other)
    grads, its_grads = backward(batch, run.tape), backward(other, its_run.tape)
    assert_same_bits(its_run.y, run.y[:, order])
    assert_same_bits(its_run.h, run.h[order])
    assert_same_bits(its_grads.x, grads.x[:, order])
    assert_close(its_grads.weight_hh, grads.weight_hh, 1e-13)


@pytest.mark.parametrize("cut", [0, 1, 6, 11])
@cells
def test_two_windows_equal_one_pass(cell: str, cut: int, rng: np.random.Generator) -> None:
    whole = draw(cell, (11, 4, 5, 7), rng, reset=True)
    run, grads = forward(whole), gradients(whole)

    def window(steps: slice, **changes: Any) -> Network:
        parts = {name: getattr(whole, name)[steps] for name in ("x", "reset", "dy")}
        return whole.but(**parts, **changes)

    # The state is handed on, the state's gradient handed back.
    first = window(slice(0, cut))
    first_run = forward(first)
    second = window(slice(cut, 11), h=first_run.h, c=first_run.c)
    second_run = forward(second)
    second_grads = backward(second, second_run.tape)
    first = first.but(dh=second_grads.h, dc=second_grads.c)
    first_grads = backward(first, first_run.tape)

    assert_same_bits(np.concatenate([first_run.y, second_run.y]), run.y)
    assert_same_bits(second_run.h, run.h)
    assert_close(np.concatenate([first_grads.x, second_grads.x]), grads.x, 1e-14)
    assert_close(first_grads.h, grads.h, 1e-14)
    if cell == "lstm":
        assert_same_bits(second_run.c, run.c)
        assert_close(first_grads.c, grads.c, 1e-14)
    assert_weights_sum([first_grads, second_grads], grads)


@pytest.mark.parametrize("N", [1, 3, 150])
@cells
def test_two_windows_equal_one_pass_whichever_end_the_weights_are_read_from(
    cell: str, N: int, rng: np.random.Generator
) -> None:
    """Large weights are read from their end at every other step. A window counts anew."""
    whole = draw(cell, (3, N, 2, 201), rng)
    first = whole.but(x=whole.x[:1], reset=None, dy=whole.dy[:1])
    first_run, run, grads = forward(first), forward(whole), gradients(whole)
    second = whole.but(x=whole.x[1:], reset=None, dy=whole.dy[1:], h=first_run.h, c=first_run.c)
    second_grads = gradients(second)
    first_grads = gradients(first.but(dh=second_grads.h, dc=second_grads.c))
    assert_same_bits(np.concatenate([first_run.y, forward(second).y]), run.y)
    assert_close(np.concatenate([first_grads.x, second_grads.x]), grads.x, 1e-14)
    assert_close(first_grads.h, grads.h, 1e-14)


@cells
def test_a_length_cuts_a_sequence_off(cell: str, rng: np.random.Generator) -> None:
    whole = draw(cell, (11, 4, 5, 7), rng)
    for length in (0, 1, 8, 11):
        cut = whole.but(x=whole.x[:length], dy=whole.dy[:length])
        marked = whole.but(lengths=np.full(4, length))
        run, marked_run = forward(cut), forward(marked)
        grads, marked_grads = backward(cut, run.tape), backward(marked, marked_run.tape)
        assert_same_bits(marked_run.y[:length], run.y)
        assert_same_bits(marked_run.h, run.h)
        assert_same_bits(marked_grads.x[:length], grads.x)
        assert_same_bits(marked_grads.h, grads.h)
        assert_close(marked_grads.weight_hh, grads.weight_hh, 1e-14)


@cells
def test_a_reset_begins_a_new_sequence(cell: str, rng: np.random.Generator) -> None:
    packed = draw(cell, (11, 4, 5, 7), rng, dstate=False)
    reset = np.zeros((11, 4), bool)
    reset[[3, 8]] = True
    run, grads = forward(packed.but(reset=reset)), gradients(packed.but(reset=reset))
    parts = []
    for i, steps in enumerate((slice(0, 3), slice(3, 8), slice(8, 11))):
        part = packed.but(x=packed.x[steps], dy=packed.dy[steps])
        if i > 0:
            part = part.but(h=None, c=None)
        its_grads = gradients(part)
        assert_same_bits(forward(part).y, run.y[steps])
        assert_same_bits(its_grads.x, grads.x[steps])
        if i == 0:
            assert_same_bits(its_grads.h, grads.h)
        parts.append(its_grads)
    assert_weights_sum(parts, grads)


# ---- calls ---------------------------------------------------------------------------------------


@precisions
@cells
def test_a_retained_tape_gives_the_same_bits_again(
    cell: str, dtype: Any, rng: np.random.Generator
) -> None:
    network = draw(cell, (9, 5, 4, 21), rng, dtype=dtype, lengths=True, reset=True)
    tape = forward(network).tape
    first = backward(network, tape, retain=True)
    second = backward(network, tape, retain=True)
    last = backward(network, tape)
    assert_same_bits(second, first)
    assert_same_bits(last, first)


@precisions
@cells
def test_without_a_tape_y_is_the_same(cell: str, dtype: Any, rng: np.random.Generator) -> None:
    for shape in ((9, 5, 4, 21), (400, 3, 2, 130), (3, 1, 1, 1), (0, 2, 3, 4)):
        n = draw(cell, shape, rng, dtype=dtype, lengths=True, reset=True)
        run = forward(n)
        weights = vars(n.weights).values()
        y, h, c, tape = _core.forward(cell, n.x, *weights, n.h, n.c, n.lengths, n.reset, keep=False)
        assert tape is None
        assert_same_bits(y, run.y)
        assert_same_bits(h, run.h)
        if c is not None:
            assert_same_bits(c, run.c)
        assert y.flags.writeable


@cells
def test_backward_is_linear(cell: str, rng: np.random.Generator) -> None:
    network = draw(cell, (9, 5, 4, 7), rng, lengths=True, reset=True)
    tape = forward(network).tape
    only_dy, only_dstate = network.but(dh=None, dc=None), network.but(dy=None)
    parts = [backward(n, tape, retain=True) for n in (only_dy, only_dstate)]
    assert_close(reference.add(*parts), backward(network, tape, retain=True), 1e-13)
    doubled = network.but(dy=2 * network.dy, dh=2 * network.dh)
    doubled = doubled.but(dc=None if network.dc is None else 2 * network.dc)
    one, two = backward(network, tape, retain=True), backward(doubled, tape)
    assert_same_bits(two, reference.add(one, one))


# ---- threads -------------------------------------------------------------------------------------

# Large enough that threads are worth it: many sequences, which they share, or few with many units,
# which they share then; uneven shares; more threads than there is to share.
MANY = [(14, 33, 17, 65), (40, 1, 24, 200), (24, 3, 20, 70), (6, 200, 9, 40)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("steps", ["all", "lengths and resets"])
@pytest.mark.parametrize("shape", MANY, ids=str)
@precisions
@cells
def test_any_number_of_threads_gives_the_same_bits(
    cell: str, dtype: Any, shape: tuple[int, int, int, int], steps: str, rng: np.random.Generator
) -> None:
    some = steps != "all"
    network = draw(cell, shape, rng, dtype=dtype, lengths=some, reset=some)
    bptt.set_num_threads(1)
    run = forward(network)
    grads = backward(network, run.tape)
    for count in range(2, 17):
        bptt.set_num_threads(count)
        its_run = forward(network)
        assert_same_bits(its_run, run)
        assert_same_bits(backward(network, its_run.tape), grads)


@pytest.mark.usefixtures("threads")
def test_threads_of_python_may_call_at_once(rng: np.random.Generator) -> None:
    bptt.set_num_threads(2)
    networks = [draw(cell, (14, 33, 17, 65), rng) for cell, _ in product(CELLS, range(2))]
    alone = [gradients(network) for network in networks]
    with ThreadPoolExecutor(4) as pool:
        for its, grads in zip(pool.map(gradients, networks), alone, strict=True):
            assert_same_bits(its, grads)


FORKED = """
import os, sys
import numpy as np
import bptt
assert bptt.get_num_threads() == 3
rng = np.random.default_rng(0)
weights = bptt.Weights(*(0.1 * rng.standard_normal(s) for s in ((256, 32), (256, 64))))
x = rng.standard_normal((20, 32, 32))
y, _, _ = bptt.lstm_forward(x, weights)  # by several threads, which a fork does not copy
child = os.fork()
if child == 0:
    again, _, tape = bptt.lstm_forward(x, weights)
    bptt.lstm_backward(tape, y)
    os._exit(0 if again.tobytes() == y.tobytes() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes_the_same() -> None:
    # In a process of its own: a fork copies whatever else runs here.
    environ = {**os.environ, "OMP_NUM_THREADS": "3", "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", FORKED], env=environ, check=True, timeout=60)


# ---- closed forms --------------------------------------------------------------------------------


def identity_rnn(eigenvalues: Array, rng: np.random.Generator) -> tuple[Network, Array]:
    """An RNN without nonlinearity: W_hh with these eigenvalues, and its eigenvectors (rows)."""
    H = len(eigenvalues)
    basis, _ = np.linalg.qr(rng.standard_normal((H, H)))
    network = draw("rnn_identity", (12, 3, 4, H), rng)
    return network.but(
        weights=reference.Weights(
            network.weights.weight_ih,
            np.ascontiguousarray(basis.T @ np.diag(eigenvalues) @ basis),
            network.weights.bias_ih,
            network.weights.bias_hh,
        )
    ), basis


def test_the_identity_rnn_is_a_sum_of_powers(rng: np.random.Generator) -> None:
    lam = np.array([-1.0, -0.4, 0.0, 0.5, 0.99, 1.01])
    network, basis = identity_rnn(lam, rng)
    run = forward(network)
    grads = backward(network, run.tape)
    w, T = network.weights, 12
    assert w.bias_ih is not None
    assert w.bias_hh is not None

    # In the eigenbasis units do not mix: h_t = lam^(t+1) h_0 + sum over s <= t of lam^(t-s) u_s.
    u = (network.x @ w.weight_ih.T + w.bias_ih + w.bias_hh) @ basis.T
    h0, dy, dT = (a @ basis.T for a in (network.h, network.dy, network.dh))
    h = [lam ** (t + 1) * h0 + sum(lam ** (t - s) * u[s] for s in range(t + 1)) for t in range(T)]
    assert_close(run.y @ basis.T, np.array(h), 1e-13)
    # And so does the gradient, the other way: delta_t = lam^(T-1-t) dT + sum of lam^k dy_{t+k}.
    delta = [
        lam ** (T - 1 - t) * dT + sum(lam**k * dy[t + k] for k in range(T - t)) for t in range(T)
    ]
    assert_close(grads.h @ basis.T, lam * delta[0], 1e-13)
    before = [h0, *h[:-1]]
    dW = sum(d.T @ b for d, b in zip(delta, before, strict=True))
    assert_close(basis @ grads.weight_hh @ basis.T, dW, 1e-13)
    assert_close(grads.bias_hh @ basis.T, sum(d.sum(axis=0) for d in delta), 1e-13)
    assert_same_bits(grads.bias_ih, grads.bias_hh)


def test_an_orthogonal_rnn_keeps_the_gradients_norm(rng: np.random.Generator) -> None:
    network, _ = identity_rnn(np.array([1.0, -1.0, 1.0, -1.0, 1.0]), rng)
    grads = gradients(network.but(dy=None))
    norms = np.linalg.norm(grads.h, axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(network.dh, axis=1), rtol=1e-13)


def test_a_relu_that_is_never_cut_is_the_identity(rng: np.random.Generator) -> None:
    network = draw("rnn_identity", (6, 3, 4, 5), rng)
    for a in (network.x, network.h, *vars(network.weights).values()):
        np.abs(a, out=a)
    relu = network.but(cell="rnn_relu")
    assert_same_bits(forward(relu), forward(network))
    assert_same_bits(gradients(relu), gradients(network))


def test_grus_agree_where_w_hn_is_diagonal(rng: np.random.Generator) -> None:
    # r*(W h) = W (r*h) for a diagonal W; without b_hn, which r would scale in one of them only.
    after = draw("gru", (8, 3, 4, 6), rng)
    after.weights.weight_hh[12:] *= np.eye(6)
    assert after.weights.bias_hh is not None
    after.weights.bias_hh[12:] = 0
    before = after.but(cell="gru_reset_before")
    assert_close(forward(before), forward(after), 1e-14)
    a, b = gradients(after), gradients(before)
    for name in ("x", "h", "weight_ih", "bias_ih"):
        assert_close(getattr(b, name), getattr(a, name), 1e-13)
    assert_close(np.diag(b.weight_hh[12:]), np.diag(a.weight_hh[12:]), 1e-13)


def test_an_lstm_with_open_gates_counts(rng: np.random.Generator) -> None:
    # Gates saturated at 1 to the last bit and g = tanh(b): c_t = c_0 + (t+1)*tanh(b).
    T, N, H, b = 50, 2, 3, 0.3
    bias = np.repeat([60.0, 60.0, b, 60.0], H)
    weights = reference.Weights(np.zeros((4 * H, 1)), np.zeros((4 * H, H)), bias, np.zeros(4 * H))
    c0 = rng.standard_normal((N, H))
    network = Network("lstm", np.zeros((T, N, 1)), weights, c=c0, dc=np.ones((N, H)))
    run = forward(network)
    c = c0 + T * np.tanh(b)
    assert_close(run.c, c, 1e-14)
    assert_close(run.h, np.tanh(c), 1e-14)
    # The constant error carousel: dL/dc comes back as it went in.
    assert_close(backward(network, run.tape).c, np.ones((N, H)), 1e-14)
