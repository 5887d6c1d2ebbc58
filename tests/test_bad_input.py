"""Bad input to the recurrent functions: an error that names the argument, the expected and the
given, and nothing done before it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bptt
from networks import CELLS, PUBLIC, Network, assert_close, assert_same_bits, backward, draw, forward

T, N, D, H = 4, 3, 5, 6


def family(network: Network) -> str:
    return network.cell.partition("_")[0]


@pytest.fixture(params=CELLS)
def network(request: pytest.FixtureRequest, rng: np.random.Generator) -> Network:
    return draw(request.param, (T, N, D, H), rng)


def refusal(error: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    return str(caught.value)


def call_forward(network: Network, **changes: Any) -> Any:
    """The public forward function, with some of its arguments replaced."""
    run, _, variant = PUBLIC[network.cell]
    arguments: dict[str, Any] = {
        "x": network.x,
        "weights": bptt.Weights(*vars(network.weights).values()),
        "state": (network.h, network.c) if network.cell == "lstm" else network.h,
        **variant,
    }
    fields = {name: changes.pop(name) for name in [*changes] if name in bptt.Weights._fields}
    arguments["weights"] = arguments["weights"]._replace(**fields)
    return run(**(arguments | changes))


def call_backward(network: Network, tape: Any, **changes: Any) -> Any:
    _, run, _ = PUBLIC[network.cell]
    state = (network.dh, network.dc) if network.cell == "lstm" else network.dh
    return run(**({"tape": tape, "dy": network.dy, "dstate": state} | changes))


def f8(*shape: int) -> Any:
    return np.zeros(shape)


# ---- shapes and values ---------------------------------------------------------------------------

# G*H differs from cell to cell and is written {GH} here.
BAD_SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"x": f8(N, D)}, "x has shape (3, 5), expected (T, N, D)"),
    ({"x": f8(1, T, N, D)}, "x has shape (1, 4, 3, 5), expected (T, N, D)"),
    ({"x": f8()}, "x has shape (), expected (T, N, D)"),
    ({"x": f8(T, N, 4)}, "weight_ih has shape ({GH}, 5), expected (G*H, D) = ({GH}, 4)"),
    ({"x": f8(T, N, 0)}, "x: D is 0, expected at least 1"),
    ({"weight_ih": f8(7, D)}, "weight_ih has shape (7, 5), expected (G*H, D) = ({GH}, 5)"),
    ({"weight_ih": f8(D)}, "weight_ih has shape (5,), expected (G*H, D)"),
    ({"weight_ih": None}, "weight_ih is missing"),
    ({"weight_hh": f8(7, H)}, "weight_hh has shape (7, 6), expected (G*H, H) = ({GH}, 6)"),
    ({"weight_hh": f8(H)}, "weight_hh has shape (6,), expected (G*H, H)"),
    ({"weight_hh": f8(0, 0)}, "weight_hh: H is 0, expected at least 1"),
    ({"weight_hh": None}, "weight_hh is missing"),
    ({"bias_ih": f8(2)}, "bias_ih has shape (2,), expected (G*H,) = ({GH},)"),
    ({"bias_hh": f8(1, 2)}, "bias_hh has shape (1, 2), expected (G*H,) = ({GH},)"),
    ({"bias_ih": None}, "bias_hh is given without bias_ih"),
    ({"bias_hh": None}, "bias_ih is given without bias_hh"),
    ({"lengths": np.array([1, 2])}, "lengths has shape (2,), expected (N,) = (3,)"),
    ({"lengths": np.array([[1, 2, 3]])}, "lengths has shape (1, 3), expected (N,) = (3,)"),
    ({"lengths": np.array([1, 2, 5])}, "lengths[2] is 5, expected 0 <= length <= T = 4"),
    ({"lengths": np.array([1, -2, 4])}, "lengths[1] is -2, expected 0 <= length <= T = 4"),
    ({"reset": np.zeros((N, T), bool)}, "reset has shape (3, 4), expected (T, N) = (4, 3)"),
    ({"reset": np.zeros(N, bool)}, "reset has shape (3,), expected (T, N) = (4, 3)"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_SHAPES, ids=[s for _, s in BAD_SHAPES])
def test_shapes_and_values(network: Network, changes: Any, sentence: str) -> None:
    expected = sentence.replace("{GH}", str(len(network.weights.weight_ih)))
    said = refusal(ValueError, lambda: call_forward(network, **changes))
    assert said == f"{family(network)}_forward: {expected}"


def test_state(network: Network) -> None:
    where = f"{family(network)}_forward"
    wrong = f8(2, H)
    if network.cell == "lstm":
        for state, name in (((wrong, None), "state[0]"), ((network.h, wrong), "state[1]")):
            said = refusal(ValueError, lambda state=state: call_forward(network, state=state))
            assert said == f"{where}: {name} has shape (2, 6), expected (N, H) = (3, 6)"
        said = refusal(TypeError, lambda: call_forward(network, state=network.h))
        assert said == f"{where}: state is a ndarray, expected a pair (h, c)"
        said = refusal(ValueError, lambda: call_forward(network, state=(network.h,)))
        assert said == f"{where}: state has 1 entries, expected a pair (h, c)"
    else:
        said = refusal(ValueError, lambda: call_forward(network, state=wrong))
        assert said == f"{where}: state has shape (2, 6), expected (N, H) = (3, 6)"
        said = refusal(TypeError, lambda: call_forward(network, state=(network.h, network.h)))
        assert said == f"{where}: state is a tuple, expected an array (N, H)"


def test_backward(network: Network) -> None:
    where = f"{family(network)}_backward"
    tape = forward(network).tape
    for dy in (f8(2, N, H), f8(N, H)):
        said = refusal(ValueError, lambda dy=dy: call_backward(network, tape, dy=dy))
        assert said == f"{where}: dy has shape {dy.shape}, expected (T, N, H) = (4, 3, 6)"
    wrong = f8(N, 2)
    if network.cell == "lstm":
        for state, name in (((wrong, None), "dstate[0]"), ((None, wrong), "dstate[1]")):
            said = refusal(ValueError, lambda s=state: call_backward(network, tape, dstate=s))
            assert said == f"{where}: {name} has shape (3, 2), expected (N, H) = (3, 6)"
        said = refusal(TypeError, lambda: call_backward(network, tape, dstate=network.dh))
        assert said == f"{where}: dstate is a ndarray, expected a pair (h, c)"
    else:
        said = refusal(ValueError, lambda: call_backward(network, tape, dstate=wrong))
        assert said == f"{where}: dstate has shape (3, 2), expected (N, H) = (3, 6)"
    said = refusal(ValueError, lambda: call_backward(network, tape, reduction="median"))
    names = '"mean", "sum" or "mean_sequences"'
    assert said == f'{where}: reduction is "median", expected {names}'
    said = refusal(TypeError, lambda: call_backward(network, tape, reduction=None))
    assert said == f"{where}: reduction is a NoneType, expected a str"
    # None of these calls used the tape up.
    assert not tape.consumed
    call_backward(network, tape)


# ---- dtypes --------------------------------------------------------------------------------------


def test_x_decides_the_dtype(network: Network) -> None:
    where = f"{family(network)}_forward"
    single = network.astype(np.float32)
    arguments = {**vars(network.weights), "state": network.h, "x": network.x}
    state_name = "state"
    if network.cell == "lstm":
        arguments["state"], state_name = (network.h, network.c), "state[0]"
    for name, value in arguments.items():
        if name == "x":
            continue
        said = refusal(TypeError, lambda n=name, v=value: call_forward(single, **{n: v}))
        named = state_name if name == "state" else name
        assert said == f"{where}: {named} has dtype float64, expected float32"
    tape = forward(single).tape
    said = refusal(TypeError, lambda: call_backward(single, tape, dy=network.dy))
    assert said == f"{family(network)}_backward: dy has dtype float64, expected float32"


@pytest.mark.parametrize("dtype", ["int64", "bool", "float16", "complex128", "object", ">f8", "U3"])
def test_dtypes_that_are_none_of_ours(network: Network, dtype: str) -> None:
    bad = network.x.astype(dtype)
    given = str(bad.dtype)
    said = refusal(TypeError, lambda: call_forward(network, x=bad))
    assert said == f"{family(network)}_forward: x has dtype {given}, expected float32 or float64"
    bad = network.weights.weight_hh.astype(dtype)
    said = refusal(TypeError, lambda: call_forward(network, weight_hh=bad))
    assert said == f"{family(network)}_forward: weight_hh has dtype {bad.dtype}, expected float64"
    tape = forward(network).tape
    bad = network.dy.astype(dtype)
    said = refusal(TypeError, lambda: call_backward(network, tape, dy=bad))
    assert said == f"{family(network)}_backward: dy has dtype {bad.dtype}, expected float64"


def test_lengths_are_integers_and_reset_is_bool(network: Network) -> None:
    where = f"{family(network)}_forward"
    for dtype in ("float64", "bool"):
        lengths = np.array([1, 0, 1], dtype)
        said = refusal(TypeError, lambda a=lengths: call_forward(network, lengths=a))
        assert said == f"{where}: lengths has dtype {dtype}, expected integers"
    for dtype in ("uint8", "int64", "float64"):
        reset = np.zeros((T, N), dtype)
        said = refusal(TypeError, lambda a=reset: call_forward(network, reset=a))
        assert said == f"{where}: reset has dtype {dtype}, expected bool"


@pytest.mark.parametrize("name", ["x", "weight_ih", "bias_hh", "lengths", "reset"])
def test_what_is_no_array(network: Network, name: str) -> None:
    for value in ([1.0, 2.0, 3.0], 1.0, "x"):
        said = refusal(TypeError, lambda v=value: call_forward(network, **{name: v}))
        kind = type(value).__name__
        assert said == f"{family(network)}_forward: {name} is a {kind}, expected a NumPy array"


def test_weights_are_weights(network: Network) -> None:
    bare = tuple(vars(network.weights).values())
    said = refusal(TypeError, lambda: call_forward(network, weights=bare))
    assert said == f"{family(network)}_forward: weights is a tuple, expected a Weights"


def test_variants(rng: np.random.Generator) -> None:
    rnn, gru = (draw(cell, (T, N, D, H), rng) for cell in ("rnn_tanh", "gru"))
    options = "expected one of 'tanh', 'relu', 'identity'"
    said = refusal(ValueError, lambda: call_forward(rnn, nonlinearity="elu"))
    assert said == f"rnn_forward: nonlinearity is 'elu' (str), {options}"
    said = refusal(TypeError, lambda: call_forward(rnn, nonlinearity=None))
    assert said == f"rnn_forward: nonlinearity is None (NoneType), {options}"
    said = refusal(TypeError, lambda: call_forward(gru, reset_after=1))
    assert said == "gru_forward: reset_after is 1 (int), expected True or False"


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_non_contiguous_arrays_work_as_copies(cell: str, rng: np.random.Generator) -> None:
    plain = draw(cell, (T, N, D, H), rng, lengths=True, reset=True)

    def strided(a: Any) -> Any:
        """The same numbers, every second of a larger array's and in another order of memory."""
        if a is None:
            return None
        wide = np.zeros(tuple(2 * s for s in a.shape), a.dtype, order="F")
        view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
        view[...] = a
        assert not view.flags.c_contiguous
        return view

    names = ("x", "h", "c", "lengths", "reset", "dy", "dh", "dc")
    other = plain.but(
        weights=type(plain.weights)(*map(strided, vars(plain.weights).values())),
        **{name: strided(getattr(plain, name)) for name in names},
    )
    run, its_run = forward(plain), forward(other)
    assert_same_bits(its_run, run)
    assert_same_bits(backward(other, its_run.tape), backward(plain, run.tape))

    reversed_x = plain.but(x=plain.x[::-1, :, ::-1][::-1, :, ::-1])
    assert_same_bits(forward(reversed_x), run)


def test_unaligned_arrays_work(network: Network) -> None:
    raw = np.zeros(network.x.nbytes + 1, np.uint8)
    x = raw[1:].view(network.x.dtype).reshape(network.x.shape)
    x[...] = network.x
    assert not x.flags.aligned
    assert_close(forward(network.but(x=x)), forward(network), 0)


def test_broadcast_arrays_work_as_what_they_show(network: Network) -> None:
    row = np.broadcast_to(network.dy[0], network.dy.shape)  # strides of zero
    run = forward(network)
    flat = backward(network.but(dy=row), run.tape, retain=True)
    assert_same_bits(flat, backward(network.but(dy=row.copy()), run.tape))


# ---- tapes ---------------------------------------------------------------------------------------


def test_a_tape_is_used_once(network: Network) -> None:
    tape = forward(network).tape
    assert not tape.consumed
    backward(network, tape, retain=True)
    assert not tape.consumed
    backward(network, tape)
    assert tape.consumed
    said = refusal(ValueError, lambda: backward(network, tape))
    assert said == (
        f"{family(network)}_backward: tape was consumed by an earlier backward call; "
        "call that one with retain=True"
    )


def test_a_tape_of_another_cell(network: Network) -> None:
    tape = forward(network).tape
    for other in ("rnn", "lstm", "gru"):
        if other == family(network):
            continue
        run = getattr(bptt, f"{other}_backward")
        said = refusal(ValueError, lambda run=run: run(tape, network.dy))
        assert (
            said == f"{other}_backward: tape is of the cell {network.cell}, expected one of {other}"
        )
    backward(network, tape)


def test_what_is_no_tape(network: Network) -> None:
    for value in (None, network.x, "tape"):
        said = refusal(TypeError, lambda v=value: call_backward(network, v))
        kind = type(value).__name__
        assert said == f"{family(network)}_backward: tape is a {kind}, expected a Tape"


def test_a_tape_is_made_by_forward_alone() -> None:
    with pytest.raises(TypeError):
        bptt.Tape()


# ---- threads -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [0, -1, 1025, 10**30])
def test_numbers_of_threads_out_of_range(count: int) -> None:
    before = bptt.get_num_threads()
    with pytest.raises(ValueError, match=re.escape("set_num_threads: threads is ")):
        bptt.set_num_threads(count)
    assert bptt.get_num_threads() == before


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1.5, 2.0, True, "2", None])
def test_numbers_of_threads_that_are_no_integers(count: Any) -> None:
    before = bptt.get_num_threads()
    with pytest.raises(TypeError, match=re.escape("set_num_threads: threads is ")):
        bptt.set_num_threads(count)
    assert bptt.get_num_threads() == before


@pytest.mark.usefixtures("threads")
def test_numbers_of_threads() -> None:
    for count in (1, 2, 1024, np.int64(3)):
        bptt.set_num_threads(count)
        assert bptt.get_num_threads() == count


def in_a_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def test_an_instruction_set_that_cannot_be_had_is_an_error_at_import() -> None:
    done = in_a_new_process("import bptt", BPTT_INSTRUCTION_SET="mmx")
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        'ImportError: bptt: BPTT_INSTRUCTION_SET is "mmx", expected one of basel'
    )


def test_every_instruction_set_of_this_machine_can_be_forced() -> None:
    for name in bptt.runtime.supported_instruction_sets():
        code = "import bptt; print(bptt.runtime.instruction_set())"
        done = in_a_new_process(code, BPTT_INSTRUCTION_SET=name)
        assert done.stdout == f"{name}\n", done.stderr
