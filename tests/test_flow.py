"""The gradient taken apart: parts sum to the whole, and equal what brute force finds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bptt
import reference
import reference_flow
from bptt import _core
from networks import CELLS, Network, assert_close, assert_same_bits, draw, expected, forward

Array = np.ndarray[Any, Any]

small = st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 4), st.integers(1, 6))
cells = pytest.mark.parametrize("cell", CELLS)


def network(cell: str, shape: Any, seed: int, **given: bool) -> Network:
    flags = {"lengths": bool(seed % 2), "reset": bool(seed // 2 % 2), "biases": bool(seed // 4 % 2)}
    return draw(cell, shape, np.random.default_rng(seed), **{**flags, **given})


def traced(n: Network) -> Any:
    return _core.backward_traced(forward(n).tape, n.dy, n.dh, n.dc, True)


def ledger(n: Network, max_lag: int, groups: int = 1, cuts: tuple[int, ...] = ()) -> Any:
    """All D[k] and the whole, and the map; `cuts` are steps where one call ends."""
    its = _core.Ledger(forward(n).tape, max_lag, groups, False)
    maps = [its.back(first, n.dy, False, False)[0] for first in (*cuts, 0)]
    return its.weight_hh, np.concatenate(maps[::-1])


def layers_of(n: Network) -> list[reference_flow.Layer]:
    return [reference_flow.Layer(n.cell, n.weights, n.h, n.c)]


# ---- by step -------------------------------------------------------------------------------------


@cells
@settings(max_examples=15)
@given(shape=small, seed=st.integers(0, 10**6))
def test_what_is_by_step_equals_the_reference_on_single_steps(
    cell: str, shape: Any, seed: int
) -> None:
    n = network(cell, shape, seed)
    T, N = shape[:2]
    grads, recurrent, dcell, norms, shares, delta = traced(n)
    weight_hh = shares[1]
    _, whole = expected(n)
    assert_close(reference.Gradients(*grads), whole, 1e-12)
    assert_close(weight_hh.sum(axis=0), whole.weight_hh, 1e-12)
    _, _, _, tape = reference.forward(n.cell, n.x, n.weights, n.h, n.c, n.lengths, n.reset)
    lengths = np.full(N, T) if n.lengths is None else n.lengths
    for t in range(T):
        alive = (t < lengths)[:, None]
        # What the steps after t hand back to h_t and c_t, from a run that begins there.
        later = _slice(n, tape, t + 1, T)
        after = reference.backward(later, n.dy[t + 1 :], n.dh, n.dc)
        assert_close(recurrent[t], np.where(alive, after.h, 0), 1e-12)
        # Step t alone, given that.
        dh = after.h
        here = reference.backward(_slice(n, tape, t, t + 1), n.dy[t : t + 1], dh, after.c)
        assert_close(weight_hh[t], here.weight_hh, 1e-12)
        both = [here.weight_ih, here.weight_hh, here.bias_ih, here.bias_hh]
        for i, part in enumerate(both):
            if part is not None:
                assert_close(shares[i][t], part, 1e-12)
            size = np.linalg.norm(shares[i][t])
            assert abs(norms[t, i] - size) <= 1e-12 * max(1, size)
        if dcell is not None:
            o, c = tape.a[t, 3], tape.c[t + 1]
            whole_dc = after.c + (n.dy[t] + dh) * o * (1 - np.tanh(c) ** 2)
            assert_close(dcell[t], np.where(alive, whole_dc, 0), 1e-12)
        if n.cell != "gru_reset_before":
            h_prev = tape.around(t).h_prev
            assert_close(delta[t].T @ h_prev, here.weight_hh, 1e-12)


def _slice(n: Network, tape: reference.Tape, first: int, last: int) -> reference.Tape:
    """A tape of the steps first..last-1 from the states before them."""
    lengths = np.clip(tape.lengths - first, 0, last - first)
    reset = tape.reset[first:last]
    # An ended sequence waits with its last state, which no gradient depends on here.
    h, c = tape.h[first], tape.c[first] if tape.cell.has_c else None
    return reference.forward(n.cell, n.x[first:last], n.weights, h, c, lengths, reset)[3]


@cells
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("N", [1, 3, 40, 600])  # by pairs of sequences, and by the product
def test_norms_by_step_are_those_of_the_steps_own_gradients(cell: str, N: int, dtype: Any) -> None:
    n = network(cell, (3 if N == 600 else 6, N, 3, 17), 4).astype(dtype)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    plain = _core.backward_traced(forward(n).tape, n.dy, None, None, False)
    full = _core.backward_traced(forward(n).tape, n.dy, None, None, True)
    assert plain[4] == (None,) * 4
    for i, share in enumerate(full[4]):
        squares = np.square(share.astype(np.float64)).reshape(len(share), -1).sum(axis=1)
        # In float32 a norm is as exact as the numbers that it is of.
        assert_close(full[3][:, i], np.sqrt(squares), 1e-12 if dtype == np.float64 else 1e-7)
        assert_close(plain[3][:, i], full[3][:, i], tolerance)
    for a, b in zip(plain[0], full[0], strict=True):
        if a is not None:
            assert_close(a, b, tolerance)


@cells
@pytest.mark.parametrize("N", [2, 40])
@pytest.mark.parametrize("size", [2.0**-80, 2.0**80])
def test_norms_of_tiny_and_huge_gradients_are_not_lost(cell: str, N: int, size: float) -> None:
    """Their squares are beyond float32's range."""
    n = network(cell, (4, N, 3, 9), 0, dstate=False).astype(np.float32)

    def norms(dy: Array) -> Array:
        return _core.backward_traced(forward(n).tape, dy, None, None, False)[3]

    assert_close(norms(n.dy * np.float32(size)) / size, norms(n.dy), 1e-5)


@cells
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms_of_steps_without_gradient_are_zero(cell: str, dtype: Any) -> None:
    n = network(cell, (5, 40, 3, 9), 0, dstate=False).astype(dtype)
    n.dy[2:] = 0
    grads, _, _, norms, _, _ = _core.backward_traced(forward(n).tape, n.dy, None, None, False)
    assert (norms[2:] == 0).all()
    assert (norms[:2] > 0).all()
    assert_close(
        reference.Gradients(*grads), expected(n)[1], 1e-12 if dtype == np.float64 else 1e-5
    )


@cells
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_stays_where_it_arose(cell: str, dtype: Any, value: float) -> None:
    """Tiles have rows and columns beyond the matrix: nothing comes from there."""
    n = network(cell, (1, 40, 3, 9), 4, dstate=False).astype(dtype)
    n.dy[0, 7, 4] = value
    tape = forward(n).tape
    plain = _core.backward(tape, cell.split("_")[0], n.dy, None, None, "sum", True)
    grads, _, _, norms, shares, _ = _core.backward_traced(tape, n.dy, None, None, True)
    again = _core.backward_traced(tape, n.dy, None, None, False)[3]
    for i in range(4):
        np.testing.assert_array_equal(np.isnan(grads[3 + i]), np.isnan(plain[3 + i]))
        np.testing.assert_array_equal(np.isinf(grads[3 + i]), np.isinf(plain[3 + i]))
        with np.errstate(over="ignore"):
            norm = np.sqrt(np.square(shares[i][0].astype(np.float64)).sum())
        assert not np.isfinite(norm)
        np.testing.assert_array_equal(norms[0, i], norm)
        np.testing.assert_array_equal(again[0, i], norm)


# ---- by lag --------------------------------------------------------------------------------------


@cells
@settings(max_examples=12)
@given(shape=small, seed=st.integers(0, 10**6), data=st.data())
def test_each_window_equals_an_actual_truncated_run(
    cell: str, shape: Any, seed: int, data: Any
) -> None:
    n = network(cell, shape, seed, dstate=False)
    T, N = shape[:2]
    max_lag = data.draw(st.integers(0, T - 1))
    groups = data.draw(st.integers(1, N))
    cuts = tuple(sorted(data.draw(st.sets(st.integers(1, T))), reverse=True))
    parts, _ = ledger(n, max_lag, groups, cuts)
    assert parts.shape == (groups, max_lag + 2, *n.weights.weight_hh.shape)
    total = parts.sum(axis=0)
    _, whole = expected(n)
    assert_close(total[-1], whole.weight_hh, 1e-12)
    if max_lag == T - 1:
        assert_close(total[:-1].sum(axis=0), whole.weight_hh, 1e-12)
    for w in range(1, max_lag + 2):
        (truncated,) = reference_flow.windows(layers_of(n), n.x, n.dy, w, n.lengths, n.reset)
        assert_close(total[:w].sum(axis=0), truncated, 1e-12)


@cells
def test_groups_are_the_sequences_own(cell: str) -> None:
    n = network(cell, (5, 4, 2, 3), 1, dstate=False)
    parts, _ = ledger(n, 3, groups=4)
    for i in range(4):
        alone, _ = ledger(n.sequence(i), 3)
        assert_close(parts[i], alone[0], 1e-13)


@cells
def test_the_map_is_what_single_losses_send(cell: str) -> None:
    n = network(cell, (6, 3, 2, 4), 0, dstate=False)
    _, found = ledger(n, 4)
    _, _, _, tape = reference.forward(n.cell, n.x, n.weights, n.h, n.c)
    for s in range(6):
        for t in range(max(0, s - 4), s + 1):
            if t == s:
                sent = n.dy[s]
            else:
                dy = np.zeros_like(n.dy[t + 1 : s + 1])
                dy[-1] = n.dy[s]
                sent = reference.backward(_slice(n, tape, t + 1, s + 1), dy).h
            assert_close(found[t, s - t], np.linalg.norm(sent, axis=1), 1e-12)


@cells
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("threads")
def test_bits_do_not_depend_on_the_threads(cell: str, dtype: Any) -> None:
    n = network(cell, (9, 5, 17, 33), 0, dstate=False).astype(dtype)
    n.lengths = np.array([9, 4, 0, 7, 9])
    results = []
    for count in (1, 2, 5):
        bptt.set_num_threads(count)
        grads, *parts = traced(n)
        norms = _core.backward_traced(forward(n).tape, n.dy, None, None, False)[3]
        shares = parts.pop(-2)
        results.append((*ledger(n, 6, 2, (4,)), *grads, *parts, *shares, norms))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            if a is not None:
                assert_same_bits(a, b)


@cells
def test_float32_is_near(cell: str) -> None:
    n = network(cell, (12, 6, 5, 20), 4, dstate=False)
    parts, lag_map = ledger(n, 11, 2)
    single, single_map = ledger(n.astype(np.float32), 11, 2)
    assert_close(single, parts, 2e-5)
    assert_close(single_map, lag_map, 2e-5)


def test_a_scalar_recurrence_in_closed_form() -> None:
    """h_t = w h_{t-1} + x_t, L = sum of g_t h_t: D[k] = w^k sum over t of g_{t+k} h_{t-1}."""
    rng = np.random.default_rng(5)
    T, w = 30, 0.9
    x, g = rng.standard_normal((2, T, 1, 1))
    weights = bptt.Weights(np.ones((1, 1)), np.full((1, 1), w))
    y, _, tape = bptt.rnn_forward(x, weights, nonlinearity="identity")
    its = _core.Ledger(tape, T - 1, 1, False)
    lag_map, _ = its.back(0, g, False, False)
    h = np.concatenate([[0], y[:, 0, 0]])
    for k in range(T):
        wanted = w**k * sum(g[t + k, 0, 0] * h[t] for t in range(T - k))
        assert its.weight_hh[0, k, 0, 0] == pytest.approx(wanted, rel=1e-12, abs=1e-13)
        assert_close(lag_map[: T - k, k, 0], np.abs(w**k * g[k:, 0, 0]), 1e-13)


def test_a_matrix_recurrence_in_closed_form() -> None:
    """D[k] = sum over t of (W^T)^k g_{t+k} h_{t-1}^T."""
    rng = np.random.default_rng(6)
    T, H = 12, 5
    n = draw("rnn_identity", (T, 1, 2, H), rng, biases=False, dstate=False)
    parts, _ = ledger(n, T - 1)
    _, _, _, tape = reference.forward(n.cell, n.x, n.weights, n.h)
    back = n.weights.weight_hh.T
    for k in range(T):
        power = np.linalg.matrix_power(back, k)
        wanted = sum(np.outer(power @ n.dy[t + k, 0], tape.h[t, 0]) for t in range(T - k))
        assert_close(parts[0, k], wanted, 1e-12)


@cells
def test_real_time_recurrent_learning_finds_the_same_gradient(cell: str) -> None:
    n = network(cell, (8, 1, 3, 4), 4, dstate=False)
    c = None if n.c is None else n.c[0]
    gradient = reference_flow.rtrl(cell, n.x[:, 0], n.weights, n.dy[:, 0], n.h[0], c)
    assert_close(ledger(n, 0)[0][0, -1], gradient, 1e-12)
    assert_close(expected(n)[1].weight_hh, gradient, 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [1, 3])
def test_sums_are_those_of_the_parts(dtype: Any, groups: int) -> None:
    """Of weights of more than one strip, of which the last is not whole."""
    layer = bptt.LSTM(3, 21, dtype=dtype, seed=0)
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((6, 5, size)).astype(dtype) for size in (3, 21))
    (tape,) = layer.forward(x)[2].kept.tapes
    its = _core.Ledger(tape, 4, groups, False)
    its.back(0, dy, False, False)
    parts = its.weight_hh.astype(np.float64).reshape(groups, 6, -1)
    of_all = parts.sum(axis=0)
    rest = parts[:, -1:] - np.concatenate(
        [np.zeros((groups, 1, parts.shape[2])), parts[:, :-1].cumsum(axis=1)], axis=1
    )
    rest_of_all = rest.sum(axis=0)
    found = []
    for threads in (1, 2, 5):
        with bptt.num_threads(threads):
            found.append(its.sums())
    lag, left_out = found[0]
    assert_close(lag, np.stack([(of_all**2).sum(axis=1), of_all @ of_all[-1]], axis=1), 1e-12)
    products = [(rest**2).sum(axis=2).T, (rest * rest_of_all).sum(axis=2).T]
    assert_close(left_out, np.stack(products, axis=2), 1e-12)
    for more in found[1:]:
        for a, b in zip(more, found[0], strict=True):
            assert_same_bits(a, b)


# ---- bad input -----------------------------------------------------------------------------------


def test_a_ledger_refuses_what_it_cannot_follow() -> None:
    n = network("gru", (4, 2, 3, 5), 0)
    tape = forward(n).tape
    with pytest.raises(ValueError, match=r"Ledger: max_lag is 4, expected 0 <= max_lag < T = 4"):
        _core.Ledger(tape, 4, 1, False)
    with pytest.raises(ValueError, match=r"Ledger: groups is 3, expected 1 <= groups <= N = 2"):
        _core.Ledger(tape, 1, 3, False)
    with pytest.raises(ValueError, match=r"only_c is true, and the cell is gru, expected lstm"):
        _core.Ledger(tape, 1, 1, True)
    its = _core.Ledger(tape, 1, 1, False)
    with pytest.raises(ValueError, match=r"dy has shape \(4, 2, 4\), expected \(T, N, H\) ="):
        its.back(0, np.zeros((4, 2, 4)), False, False)
    with pytest.raises(ValueError, match=r"dy has shape \(4, 2, 5\), expected \(steps, max_lag"):
        its.back(0, np.zeros((4, 2, 5)), True, False)
    its.back(2, n.dy, False, False)
    with pytest.raises(ValueError, match=r"first is 3, expected 0 <= first <= 2"):
        its.back(3, n.dy, False, False)
    bptt.gru_backward(tape, n.dy)
    with pytest.raises(ValueError, match="tape was consumed"):
        its.back(0, n.dy, False, False)
    with pytest.raises(ValueError, match="tape was consumed"):
        _core.Ledger(tape, 1, 1, False)
