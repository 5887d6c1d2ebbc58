"""PyTorch, where it is installed, computes the same numbers from the same weights."""

from typing import Any

import numpy as np
import pytest

from networks import Network, assert_close, backward, draw, forward

torch = pytest.importorskip("torch")

CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")  # PyTorch's GRU resets after
TOLERANCE = {np.float64: 1e-10, np.float32: 2e-5}


def module_of(network: Network) -> Any:
    D, H = network.x.shape[2], network.weights.weight_hh.shape[1]
    options: dict[str, Any] = {"bias": network.weights.bias_ih is not None}
    if network.cell.startswith("rnn"):
        options["nonlinearity"] = network.cell.removeprefix("rnn_")
        kind = torch.nn.RNN
    else:
        kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[network.cell]
    module = kind(D, H, dtype=torch.from_numpy(network.x).dtype, **options)
    with torch.no_grad():
        for name, value in vars(network.weights).items():
            if value is not None:
                getattr(module, f"{name}_l0").copy_(torch.from_numpy(value))
    return module


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("biases", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (9, 4, 5, 7), (25, 16, 33, 64)], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_the_same_numbers(
    cell: str,
    shape: tuple[int, int, int, int],
    biases: bool,
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    network = draw(cell, shape, rng, dtype=dtype, biases=biases)
    run = forward(network)
    grads = backward(network, run.tape)

    def leaf(array: Any) -> Any:
        return torch.from_numpy(array).clone()[None].requires_grad_()

    module = module_of(network)
    x = torch.from_numpy(network.x).clone().requires_grad_()
    state = [leaf(a) for a in (network.h, network.c) if a is not None]
    y, last = module(x, tuple(state) if cell == "lstm" else state[0])
    last = last if cell == "lstm" else (last,)
    dstate = [torch.from_numpy(a)[None] for a in (network.dh, network.dc) if a is not None]
    torch.autograd.backward([y, *last], [torch.from_numpy(network.dy), *dstate])

    tolerance = TOLERANCE[dtype]
    for actual, its in zip((run.h, run.c), last, strict=False):
        assert_close(actual, its.detach().numpy()[0], tolerance)
    assert_close(run.y, y.detach().numpy(), tolerance)
    assert_close(grads.x, x.grad.numpy(), tolerance)
    for actual, its in zip((grads.h, grads.c), state, strict=False):
        assert_close(actual, its.grad.numpy()[0], tolerance)
    for name, value in vars(network.weights).items():
        if value is not None:
            assert_close(
                getattr(grads, name), getattr(module, f"{name}_l0").grad.numpy(), tolerance
            )


@pytest.mark.parametrize("cell", CELLS)
def test_packed_sequences(cell: str, rng: np.random.Generator) -> None:
    # PyTorch's way with lengths; it takes no zeros.
    network = draw(cell, (9, 4, 5, 7), rng, dstate=False).but(lengths=np.array([3, 9, 1, 6]))
    run = forward(network)
    grads = backward(network, run.tape)

    module = module_of(network)
    x = torch.from_numpy(network.x).clone().requires_grad_()
    state = [torch.from_numpy(a)[None] for a in (network.h, network.c) if a is not None]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        x, torch.from_numpy(network.lengths), enforce_sorted=False
    )
    y, last = module(packed, tuple(state) if cell == "lstm" else state[0])
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    y.backward(torch.from_numpy(network.dy))

    assert_close(run.y, y.detach().numpy(), 1e-10)
    assert_close(run.h, (last[0] if cell == "lstm" else last).detach().numpy()[0], 1e-10)
    assert_close(grads.x, x.grad.numpy(), 1e-10)
    assert_close(grads.weight_hh, module.weight_hh_l0.grad.numpy(), 1e-10)
