"""Stacks and directions beside PyTorch's, with PyTorch's parameters and its packed sequences."""

import inspect
import re
from itertools import pairwise
from pathlib import Path

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
    T, N = shape[:2]
    case = draw(name, shape, seed, num_layers=num_layers, bidirectional=bidirectional, bias=bias)
    if packed:
        case.lengths = np.random.default_rng(seed).integers(1, T, N, endpoint=True)
        case.lengths[0] = T

    def run(theirs, x, state):
        if packed:
            x = rnn.pack_padded_sequence(x, torch.tensor(case.lengths), enforce_sorted=False)
        y, final = theirs(x, tuple(state) if name == "LSTM" else state[0])
        return rnn.pad_packed_sequence(y, total_length=T)[0] if packed else y, arrays_of(final)

    check(case, run)


@pytest.mark.parametrize("name", ["RNN", "RNN relu", "LSTM", "GRU"])
@settings(max_examples=25)
@given(
    shape=st.tuples(*(st.integers(1, 8) for _ in range(4))),
    seed=st.integers(0, 2**32 - 1),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    bias=st.booleans(),
    lengths=st.booleans(),
)
def test_resets_and_lengths_equal_pytorch_run_piece_by_piece(name, shape, seed, **options):
    case = draw(name, shape, seed, reset=True, **options)
    T, N, _, H = shape
    lengths = np.full(N, T) if case.lengths is None else case.lengths

    def run(theirs, x, state):
        reverse = [bool(i % case.layer.directions) for i in range(len(state[0]))]
        ys, finals = [], []
        for n, length in enumerate(lengths):
            cuts = [0, *(np.flatnonzero(case.reset[1:length, n]) + 1), length]
            y, final = [], [s[:, n] for s in state]
            for a, b in pairwise(cuts) if length else ():
                at_start, at_end = a == 0 and not case.reset[0, n], b == length
                is_given = torch.tensor([at_end if r else at_start for r in reverse])[:, None]
                is_final = torch.tensor([a == 0 if r else at_end for r in reverse])[:, None]
                begin = [torch.where(is_given, s[:, n], 0.0)[:, None] for s in state]
                piece, end = theirs(x[a:b, n : n + 1], tuple(begin) if name == "LSTM" else begin[0])
                ends = zip(arrays_of(end), final, strict=True)
                final = [torch.where(is_final, e[:, 0], f) for e, f in ends]
                y.append(piece[:, 0])
            y.append(torch.zeros(T - length, case.layer.directions * H, dtype=x.dtype))
            ys.append(torch.cat(y))
            finals.append(final)
        return torch.stack(ys, 1), [torch.stack(f, 1) for f in zip(*finals, strict=True)]

    check(case, run)


def check(case, run):
    """That bptt's layer gives the numbers of PyTorch's, which `run(theirs, x, state)` gives: y and
    the list of final states."""
    layer = case.layer
    theirs = getattr(torch.nn, type(layer).__name__)(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        bias=layer.bias,
        bidirectional=layer.bidirectional,
        dtype=torch.float64,
        **({"nonlinearity": "relu"} if case.name == "RNN relu" else {}),
    )
    with torch.no_grad():
        for parameter, p in theirs.named_parameters():
            p.copy_(torch.from_numpy(layer.parameters[parameter]))
    assert list(layer.parameters) == [parameter for parameter, _ in theirs.named_parameters()]

    leaves = [torch.tensor(a, requires_grad=True) for a in (case.x, *arrays_of(case.state))]
    y_t, finals = run(theirs, leaves[0], leaves[1:])
    value = (y_t * torch.tensor(case.dy)).sum()
    for final, d in zip(finals, arrays_of(case.dstate), strict=True):
        value = value + (final * torch.tensor(d)).sum()
    value.backward()

    y, state, grads, _ = case.run()
    assert_close(y, y_t.detach().numpy(), 1e-10)
    for a, e in zip(arrays_of(state), finals, strict=True):
        assert_close(a, e.detach().numpy(), 1e-10)

    def gradient(leaf):  # None where no step has a part of it
        return np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()

    for a, leaf in zip([grads.x, *arrays_of(grads.state)], leaves, strict=True):
        assert_close(a, gradient(leaf), 1e-10)
    for parameter, p in theirs.named_parameters():
        assert_close(grads.parameters[parameter], gradient(p), 1e-10)


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


def test_the_docs_name_every_option_of_pytorchs_layers():
    page = (Path(__file__).parents[1] / "docs" / "layers.md").read_text(encoding="utf-8")
    table = page.partition("`torch.nn.RNN`, `LSTM`, `GRU`:")[2].partition("\n## ")[0]
    named = set(
        re.findall(r"`(\w+)", "".join(line.split("|")[1] for line in table.split("\n")[2:-1]))
    )
    options = set(inspect.signature(torch.nn.RNNBase.__init__).parameters) - {"self", "mode"}
    options |= {"nonlinearity", "input", "hx"}
    assert len(options) > 10
    assert options <= named
