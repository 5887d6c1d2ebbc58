"""Stacks and directions beside PyTorch's, with PyTorch's parameters and its packed sequences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bptt
from networks import assert_close
from stacks import arrays_of, draw

torch = pytest.importorskip("torch")
rnn = torch.nn.utils.rnn


@pytest.mark.parametrize("name", ["RNN", "RNN relu", "LSTM", "GRU"])
@settings(max_examples=40)
@given(
    # PyTorch has no sequences of length zero.
    shape=st.tuples(*(st.integers(1, 12) for _ in range(4))),
    seed=st.integers(0, 2**32 - 1),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    packed=st.booleans(),
)
def test_equals_pytorch(name, shape, seed, num_layers, bidirectional, bias, packed):
    T, N, D, H = shape
    case = draw(name, shape, seed, num_layers=num_layers, bidirectional=bidirectional, bias=bias)
    if packed:
        case.lengths = np.random.default_rng(seed).integers(1, T, N, endpoint=True)
        case.lengths[0] = T
    options = {"nonlinearity": "relu"} if name == "RNN relu" else {}
    theirs = getattr(torch.nn, type(case.layer).__name__)(
        D,
        H,
        num_layers,
        bias=bias,
        bidirectional=bidirectional,
        dtype=torch.float64,
        **options,
    )
    with torch.no_grad():
        for parameter, p in theirs.named_parameters():
            p.copy_(torch.from_numpy(case.layer.parameters[parameter]))
    assert list(case.layer.parameters) == [parameter for parameter, _ in theirs.named_parameters()]

    leaves = [torch.tensor(a, requires_grad=True) for a in (case.x, *arrays_of(case.state))]
    x_t = leaves[0]
    if packed:
        x_t = rnn.pack_padded_sequence(x_t, torch.tensor(case.lengths), enforce_sorted=False)
    y_t, state_t = theirs(x_t, tuple(leaves[1:]) if name == "LSTM" else leaves[1])
    if packed:
        y_t, _ = rnn.pad_packed_sequence(y_t, total_length=T)
    finals = arrays_of(state_t)
    value = (y_t * torch.tensor(case.dy)).sum()
    for final, d in zip(finals, arrays_of(case.dstate), strict=True):
        value = value + (final * torch.tensor(d)).sum()
    value.backward()

    y, state, grads, _ = case.run()
    assert_close(y, y_t.detach().numpy(), 1e-10)
    for a, e in zip(arrays_of(state), finals, strict=True):
        assert_close(a, e.detach().numpy(), 1e-10)
    for a, leaf in zip([grads.x, *arrays_of(grads.state)], leaves, strict=True):
        assert_close(a, leaf.grad.numpy(), 1e-10)
    for parameter, p in theirs.named_parameters():
        assert_close(grads.parameters[parameter], p.grad.numpy(), 1e-10)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_state_dict_goes_there_and_back(kind, rng):
    theirs = torch.nn.ModuleDict(
        {
            "encoder": getattr(torch.nn, kind)(4, 6, 2, bidirectional=True, dtype=torch.float64),
            "head": torch.nn.Linear(12, 3, dtype=torch.float64),
        }
    )
    ours = {
        "encoder": getattr(bptt, kind)(4, 6, 2, bidirectional=True, dtype=np.float64),
        "head": bptt.Linear(12, 3, dtype=np.float64),
    }
    state_dict = {name: p.numpy() for name, p in theirs.state_dict().items()}
    bptt.convert.from_torch(ours, state_dict)
    x = rng.standard_normal((7, 3, 4))
    y, _ = ours["encoder"].predict(x)
    y, _ = ours["head"].predict(y)
    with torch.no_grad():
        y_t = theirs["head"](theirs["encoder"](torch.tensor(x))[0])
    assert_close(y, y_t.numpy(), 1e-10)

    for p in ours["encoder"].parameters.values():
        p += 1
    back = bptt.convert.to_torch(ours)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in back.items()})
    y, _ = ours["head"].predict(ours["encoder"].predict(x)[0])
    with torch.no_grad():
        y_t = theirs["head"](theirs["encoder"](torch.tensor(x))[0])
    assert_close(y, y_t.numpy(), 1e-10)
