"""The reference: what bptt computes, in NumPy and as plainly as it can be said.

It never imports bptt, and reads beside the C++ core (cpp/src/kernels): a cell is a policy of
constants and pointwise mathematics, and there is one forward loop and one backward loop for all.
Nothing is fast here: every product is made where it is needed.

    T time steps   N sequences   D input features   H hidden units   G gates

Arrays are time-major and keep their dtype. Weights have PyTorch's shapes and gate order: LSTM gates
i, f, g, o; GRU gates r, z, n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def sigmoid(a: Array) -> Array:
    # The two forms are the same function; each is used where its exponential cannot overflow.
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e))


# ---- cells ---------------------------------------------------------------------------------------
#
# The working row of a step has `columns` columns of H numbers. Before `forward` they hold
# pre-activations: gate g's W_ih x + b_ih was added to column ih_column[g], its W_hh source + b_hh
# to column hh_column[g]. A step has `phases` products with W_hh, one after another; gate g's is in
# phase phase_of[g], and phase p multiplies column source_column[p] (None: h_prev).
#
#   forward(p, a, h_prev, c_prev) -> (h, c)   after the product of phase p: turns a into gates
#   backward(p, a, s, dh, dc, delta)          for p = phases-1 .. 0, each followed by its product:
#       -> (pass, dc_prev)                    fills delta, dL/d(pre-activations)
#
# `pass` is what of dh goes to h_prev beside the product. In `backward` of an earlier phase, dh is
# what the later phases passed, and delta[source_column[p+1]] the gradient of phase p+1's source.
# A cell without c hands on the zeros that it finds.


class Around(NamedTuple):
    """The states around a step."""

    h_prev: Array
    h: Array
    c_prev: Array
    c: Array


class OnePhase:
    """What most cells are: without c, and with one product."""

    has_c = False
    phases = 1
    source_column = (None,)


class Rnn(OnePhase):
    """h = phi(a). The derivative is a function of h."""

    gates = columns = 1
    ih_column = hh_column = phase_of = (0,)

    def __init__(self, phi: Callable[[Array], Array], slope: Callable[[Array], Array]) -> None:
        self.phi, self.slope = phi, slope

    def forward(self, _p, a, _h_prev, c_prev):
        return self.phi(a[0]), c_prev

    def backward(self, _p, _a, s, dh, dc, delta):
        delta[0] = dh * self.slope(s.h)
        return np.zeros_like(dh), dc


class Lstm(OnePhase):
    """i, f, o = sigmoid(a), g = tanh(a); c = f*c_prev + i*g; h = o*tanh(c)."""

    gates = columns = 4
    ih_column = hh_column = (0, 1, 2, 3)
    phase_of = (0, 0, 0, 0)
    has_c = True

    def forward(self, _p, a, _h_prev, c_prev):
        a[:] = sigmoid(a[0]), sigmoid(a[1]), np.tanh(a[2]), sigmoid(a[3])
        i, f, g, o = a
        c = f * c_prev + i * g
        return o * np.tanh(c), c

    def backward(self, _p, a, s, dh, dc, delta):
        i, f, g, o = a
        tanh_c = np.tanh(s.c)
        dc = dc + dh * o * (1 - tanh_c**2)
        delta[0] = dc * g * i * (1 - i)
        delta[1] = dc * s.c_prev * f * (1 - f)
        delta[2] = dc * i * (1 - g**2)
        delta[3] = dh * tanh_c * o * (1 - o)
        return np.zeros_like(dh), dc * f


class Gru(OnePhase):
    """Reset after: n = tanh(a_ih + r*a_hh); h = (1-z)*n + z*h_prev."""

    # Columns: r, z, n's input side (then n), n's hidden side.
    gates, columns = 3, 4
    ih_column, hh_column = (0, 1, 2), (0, 1, 3)
    phase_of = (0, 0, 0)

    def forward(self, _p, a, h_prev, c_prev):
        a[0], a[1] = sigmoid(a[0]), sigmoid(a[1])
        a[2] = np.tanh(a[2] + a[0] * a[3])
        _, z, n, _ = a
        return (1 - z) * n + z * h_prev, c_prev

    def backward(self, _p, a, s, dh, dc, delta):
        r, z, n, n_hh = a
        delta[2] = dh * (1 - z) * (1 - n**2)
        delta[3] = delta[2] * r
        delta[0] = delta[2] * n_hh * r * (1 - r)
        delta[1] = dh * (s.h_prev - n) * z * (1 - z)
        return dh * z, dc


class GruResetBefore:
    """Reset before: n = tanh(a_ih + W_hn (r*h_prev) + b_hn); h = (1-z)*n + z*h_prev."""

    # Columns: r, z, n, and r*h_prev, which is what the second product multiplies.
    gates, columns, phases = 3, 4, 2
    ih_column = hh_column = (0, 1, 2)
    phase_of = (0, 0, 1)
    source_column = (None, 3)
    has_c = False

    def forward(self, p, a, h_prev, c_prev):
        if p == 0:
            a[0], a[1] = sigmoid(a[0]), sigmoid(a[1])
            a[3] = a[0] * h_prev
            return h_prev, c_prev
        a[2] = np.tanh(a[2])
        _, z, n, _ = a
        return (1 - z) * n + z * h_prev, c_prev

    def backward(self, p, a, s, dh, dc, delta):
        r, z, n, _ = a
        if p == 1:
            delta[1] = dh * (s.h_prev - n) * z * (1 - z)
            delta[2] = dh * (1 - z) * (1 - n**2)
            return dh * z, dc
        delta[0] = delta[3] * s.h_prev * r * (1 - r)
        return dh + delta[3] * r, dc


CELLS: dict[str, Any] = {
    "rnn_tanh": Rnn(np.tanh, lambda h: 1 - h**2),
    "rnn_relu": Rnn(lambda a: np.maximum(a, 0), lambda h: (h > 0).astype(h.dtype)),
    "rnn_identity": Rnn(np.copy, np.ones_like),
    "lstm": Lstm(),
    "gru": Gru(),
    "gru_reset_before": GruResetBefore(),
}


# ---- the recurrent layer -------------------------------------------------------------------------


@dataclass
class Weights:
    weight_ih: Array  # (G*H, D)
    weight_hh: Array  # (G*H, H)
    bias_ih: Array | None = None  # (G*H,)
    bias_hh: Array | None = None


@dataclass
class Tape:
    """What `forward` keeps: h and c of T+1 steps (slot 0 is the initial state), and the gates."""

    cell: Any
    x: Array
    weights: Weights
    lengths: Array  # (N,)
    reset: Array  # (T, N)
    h: Array  # (T+1, N, H)
    c: Array  # (T+1, N, H), zero in a cell without c
    a: Array  # (T, columns, N, H)

    def around(self, t: int) -> Around:
        """The states that step t starts from (zero after a reset) and those it leaves."""
        fresh = self.reset[t][:, None]
        h_prev, c_prev = np.where(fresh, 0, self.h[t]), np.where(fresh, 0, self.c[t])
        return Around(h_prev, self.h[t + 1], c_prev, self.c[t + 1])

    def alive(self, t: int) -> Array:
        return (t < self.lengths)[:, None]


@dataclass
class Gradients:
    x: Array
    h: Array  # with respect to the initial state
    c: Array | None
    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None
    bias_hh: Array | None


def forward(
    cell: str,
    x: Array,
    weights: Weights,
    h: Array | None = None,
    c: Array | None = None,
    lengths: Array | None = None,
    reset: Array | None = None,
) -> tuple[Array, Array, Array | None, Tape]:
    """Returns y (T, N, H), each sequence's h and c (N, H) at its own end, and the tape."""
    policy = CELLS[cell]
    T, N, D = x.shape
    G, H = policy.gates, weights.weight_hh.shape[1]
    W_ih, W_hh = weights.weight_ih.reshape(G, H, D), weights.weight_hh.reshape(G, H, H)
    zeros = np.zeros((G, H), x.dtype)
    b_ih = zeros if weights.bias_ih is None else weights.bias_ih.reshape(G, H)
    b_hh = zeros if weights.bias_hh is None else weights.bias_hh.reshape(G, H)
    tape = Tape(
        policy,
        x,
        weights,
        np.full(N, T) if lengths is None else lengths,
        np.zeros((T, N), bool) if reset is None else reset,
        np.zeros((T + 1, N, H), x.dtype),
        np.zeros((T + 1, N, H), x.dtype),
        np.zeros((T, policy.columns, N, H), x.dtype),
    )
    tape.h[0] = 0 if h is None else h
    tape.c[0] = 0 if c is None else c

    for t in range(T):
        a, s = tape.a[t], tape.around(t)
        for g in range(G):
            a[policy.ih_column[g]] += x[t] @ W_ih[g].T + b_ih[g]
        for p in range(policy.phases):
            source = s.h_prev if p == 0 else a[policy.source_column[p]]
            for g in range(G):
                if policy.phase_of[g] == p:
                    a[policy.hh_column[g]] += source @ W_hh[g].T + b_hh[g]
            h_next, c_next = policy.forward(p, a, s.h_prev, s.c_prev)
        # Beyond a sequence's end all is zero: its last state stands in slot lengths[n].
        tape.h[t + 1] = np.where(tape.alive(t), h_next, 0)
        tape.c[t + 1] = np.where(tape.alive(t), c_next, 0)

    ends = (tape.lengths, np.arange(N))
    return tape.h[1:], tape.h[ends], tape.c[ends] if policy.has_c else None, tape


def backward(
    tape: Tape,
    dy: Array | None = None,
    dh: Array | None = None,
    dc: Array | None = None,
    reduction: str = "sum",
    handed: complex = 1.0,
) -> Gradients:
    """Gradients from dL/dy (T, N, H) and dL/d(final state) (N, H); what is None is zero.

    handed: what all that one step hands back to the step before is multiplied with. The result is
    a polynomial of it, whose coefficient k is what was handed back k times.
    """
    policy, x, weights = tape.cell, tape.x, tape.weights
    dtype = np.complex128 if np.iscomplexobj(handed) else x.dtype
    T, N, D = x.shape
    G, H = policy.gates, weights.weight_hh.shape[1]
    W_ih, W_hh = weights.weight_ih.reshape(G, H, D), weights.weight_hh.reshape(G, H, H)
    dW_ih, dW_hh = np.zeros_like(W_ih, dtype), np.zeros_like(W_hh, dtype)
    db_ih, db_hh = np.zeros((G, H), dtype), np.zeros((G, H), dtype)
    dx = np.zeros_like(x, dtype)
    # dL/dh_t as step t+1 hands it back. A sequence that has ended waits with its final state's.
    dh = np.zeros((N, H), dtype) if dh is None else dh
    dc = np.zeros((N, H), dtype) if dc is None else dc

    for t in reversed(range(T)):
        a, s, alive, fresh = tape.a[t], tape.around(t), tape.alive(t), tape.reset[t][:, None]
        delta = np.zeros_like(a, dtype)
        back, dc_prev = dh + (0 if dy is None else dy[t]), dc
        for p in reversed(range(policy.phases)):
            back, dc_prev = policy.backward(p, a, s, back, dc_prev, delta)
            source = s.h_prev if p == 0 else a[policy.source_column[p]]
            through = np.zeros_like(back, dtype)
            for g in range(G):
                if policy.phase_of[g] == p:
                    d = np.where(alive, delta[policy.hh_column[g]], 0)
                    dW_hh[g] += d.T @ source
                    db_hh[g] += d.sum(axis=0)
                    through += d @ W_hh[g]
            if p == 0:
                back = back + through
            else:
                delta[policy.source_column[p]] = through
        for g in range(G):
            d = np.where(alive, delta[policy.ih_column[g]], 0)
            dW_ih[g] += d.T @ x[t]
            db_ih[g] += d.sum(axis=0)
            dx[t] += d @ W_ih[g]
        # Nothing goes back through a reset.
        dh = np.where(alive, np.where(fresh, 0, handed * back), dh)
        dc = np.where(alive, np.where(fresh, 0, handed * dc_prev), dc)

    counts = {"sum": 1, "mean": tape.lengths.sum(), "mean_sequences": (tape.lengths > 0).sum()}
    count = max(1, int(counts[reduction]))
    biases = weights.bias_ih is not None
    return Gradients(
        dx,
        dh,
        dc if policy.has_c else None,
        dW_ih.reshape(G * H, D) / count,
        dW_hh.reshape(G * H, H) / count,
        db_ih.reshape(G * H) / count if biases else None,
        db_hh.reshape(G * H) / count if biases else None,
    )


def truncated_bptt(
    cell: str,
    x: Array,
    weights: Weights,
    dy: Array,
    k1: int,
    k2: int,
    h: Array | None = None,
    c: Array | None = None,
    reset: Array | None = None,
) -> Gradients:
    """Truncated BPTT(k1, k2) by brute force (Williams & Peng 1990).

    Every window ends at e = k1, 2*k1, ... (the last at T). Its losses are those of the steps since
    the window before; their dL/dy goes back to step e-k2, whose state is held constant. Forward is
    run anew from the start for each window, and the windows' gradients are summed. A window that
    begins at 0 reaches the initial state.
    """
    T = len(x)
    total: Gradients | None = None
    ends = [*range(k1, T, k1), T]
    for last, e in zip([0, *ends], ends, strict=False):
        start = max(0, e - k2)
        past, now = slice(0, start), slice(start, e)
        resets = (None, None) if reset is None else (reset[past], reset[now])
        _, h_start, c_start, _ = forward(cell, x[past], weights, h, c, None, resets[0])
        *_, tape = forward(cell, x[now], weights, h_start, c_start, None, resets[1])
        dy_window = dy[now].copy()
        dy_window[: last - start] = 0  # these losses belong to earlier windows
        grads = backward(tape, dy_window)

        whole_dx = np.zeros_like(x)
        whole_dx[now] = grads.x
        grads.x = whole_dx
        if start > 0:
            grads.h = np.zeros_like(grads.h)
            grads.c = None if grads.c is None else np.zeros_like(grads.c)
        total = grads if total is None else add(total, grads)
    assert total is not None
    return total


def add(a: Gradients, b: Gradients) -> Gradients:
    pairs = ((getattr(a, name), getattr(b, name)) for name in vars(a))
    return Gradients(*(None if p is None else p + q for p, q in pairs))


# ---- around the layer ----------------------------------------------------------------------------


def linear_forward(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """y (..., V) = x (..., D) @ weight^T (D, V) + bias (V,)."""
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward(x: Array, weight: Array, dy: Array) -> tuple[Array, Array, Array]:
    """Gradients of x, weight and bias."""
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dy @ weight, drows.T @ rows, drows.sum(axis=0)


def embedding_forward(index: Array, weight: Array) -> Array:
    """y (..., E): row index[...] of weight (V, E)."""
    return weight[index]


def embedding_backward(index: Array, dy: Array, num_embeddings: int) -> Array:
    """The weight's gradient (V, E): every row gets the sum of what its copies got."""
    dweight = np.zeros((num_embeddings, dy.shape[-1]), dy.dtype)
    np.add.at(dweight, index.ravel(), dy.reshape(-1, dy.shape[-1]))
    return dweight


# ---- optimizers: a parameter p and its gradient g; they return p and their own arrays, new -------


def sgd(
    p: Array, g: Array, v: Array, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> tuple[Array, Array]:
    g = g + weight_decay * p
    v = momentum * v + g
    return p - lr * (g + momentum * v if nesterov else v), v


def rmsprop(
    p: Array, g: Array, s: Array, lr: float, alpha: float, eps: float, weight_decay: float
) -> tuple[Array, Array]:
    """Tieleman & Hinton 2012."""
    g = g + weight_decay * p
    s = alpha * s + (1 - alpha) * g**2
    return p - lr * g / (np.sqrt(s) + eps), s


def adagrad(
    p: Array, g: Array, s: Array, lr: float, eps: float, weight_decay: float
) -> tuple[Array, Array]:
    """Duchi et al. 2011."""
    g = g + weight_decay * p
    s = s + g**2
    return p - lr * g / (np.sqrt(s) + eps), s


def adam(
    p: Array, g: Array, m: Array, v: Array, step: int, lr: float, betas: tuple[float, float],
    eps: float, weight_decay: float, decoupled: bool,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Kingma & Ba 2015; decoupled: AdamW, Loshchilov & Hutter 2019. step is 1, 2, ..."""
    if decoupled:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    beta1, beta2 = betas
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def global_norm(arrays: Iterable[Array]) -> float:
    """The square root of the sum of all squares."""
    return float(np.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays)))
