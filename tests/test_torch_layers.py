"""Layers beside PyTorch's, with PyTorch's parameters: the same numbers forward and backward."""

import numpy as np
import pytest

import bptt
from networks import assert_close

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_recurrent_layers_equal_pytorchs(kind, bias, rng):
    T, N, D, H = 7, 3, 4, 6
    theirs = getattr(torch.nn, kind)(D, H, bias=bias, dtype=torch.float64)
    ours = getattr(bptt, kind)(D, H, bias=bias, dtype=np.float64)
    ours.load_parameters({name: p.numpy() for name, p in theirs.state_dict().items()})

    x, dy = rng.standard_normal((T, N, D)), rng.standard_normal((T, N, H))
    states = [rng.standard_normal((1, N, H)) for _ in range(2 if kind == "LSTM" else 1)]
    dstates = [rng.standard_normal((1, N, H)) for _ in states]

    def one_or_pair(arrays):
        return tuple(arrays) if kind == "LSTM" else arrays[0]

    y, state, tape = ours.forward(x, one_or_pair(states))
    grads = ours.backward(tape, dy, one_or_pair(dstates))

    leaves = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    y_t, state_t = theirs(leaves[0], one_or_pair(leaves[1:]))
    finals = state_t if kind == "LSTM" else (state_t,)
    value = (y_t * torch.tensor(dy)).sum()
    for final, d in zip(finals, dstates, strict=True):
        value = value + (final * torch.tensor(d)).sum()
    value.backward()

    assert_close(y, y_t.detach().numpy(), 1e-10)
    for a, e in zip(state if kind == "LSTM" else (state,), finals, strict=True):
        assert_close(a, e.detach().numpy(), 1e-10)
    assert_close(grads.x, leaves[0].grad.numpy(), 1e-10)
    dinitial = grads.state if kind == "LSTM" else (grads.state,)
    for a, leaf in zip(dinitial, leaves[1:], strict=True):
        assert_close(a, leaf.grad.numpy(), 1e-10)
    for name, p in theirs.named_parameters():
        assert_close(grads.parameters[name], p.grad.numpy(), 1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["tanh", "relu", "sigmoid", "elu", "softmax"])
def test_activations_equal_pytorchs(name, dtype, rng):
    x, dy = 3 * rng.standard_normal((2, 5, 4, 19)).astype(dtype)
    layer = bptt.Activation(name)
    y, _, tape = layer.forward(x)
    leaf = torch.tensor(x, requires_grad=True)
    options = {"dim": -1} if name == "softmax" else {}
    y_t = getattr(torch.nn.functional, name)(leaf, **options)
    y_t.backward(torch.tensor(dy))
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    assert_close(y, y_t.detach().numpy(), tolerance)
    assert_close(layer.backward(tape, dy).x, leaf.grad.numpy(), tolerance)


class Chain(torch.nn.Sequential):
    """torch.nn.Sequential hands the LSTM's (y, state) on as it is; this one hands on y."""

    def forward(self, x):
        for layer in self:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


def test_a_character_model_equals_pytorchs_over_several_updates(rng):
    V = 13
    theirs = Chain(
        torch.nn.Embedding(V, 5, dtype=torch.float64),
        torch.nn.LSTM(5, 8, dtype=torch.float64),
        torch.nn.Linear(8, V, dtype=torch.float64),
    )
    ours = bptt.Sequential(
        bptt.Embedding(V, 5, dtype=np.float64),
        bptt.LSTM(5, 8, dtype=np.float64),
        bptt.Linear(8, V, dtype=np.float64),
    )
    ours.load_parameters({name: p.numpy() for name, p in theirs.state_dict().items()})
    adam, adam_t = bptt.optim.Adam(lr=1e-2), torch.optim.Adam(theirs.parameters(), lr=1e-2)
    for _ in range(5):
        x, target = rng.integers(0, V, (6, 4)), rng.integers(0, V, (6, 4))
        y, _, tape = ours.forward(x)
        value, dy = bptt.losses.softmax_cross_entropy(y, target)
        grads = ours.backward(tape, dy)
        norm = bptt.optim.clip_by_global_norm(grads.parameters, 0.3)
        adam.step(ours.parameters, grads.parameters)

        adam_t.zero_grad()
        y_t = theirs(torch.tensor(x))
        value_t = torch.nn.functional.cross_entropy(
            y_t.reshape(-1, V), torch.tensor(target).reshape(-1)
        )
        value_t.backward()
        # By hand: PyTorch's own clipping divides by norm + 1e-6.
        norm_t = torch.sqrt(sum(p.grad.pow(2).sum() for p in theirs.parameters()))
        for p in theirs.parameters():
            p.grad *= min(1.0, 0.3 / norm_t.item())
        adam_t.step()
        assert value == pytest.approx(value_t.item(), rel=1e-9)
        assert norm == pytest.approx(norm_t.item(), rel=1e-9)
    for name, p in theirs.state_dict().items():
        assert_close(ours.parameters[name], p.numpy(), 1e-7)
