"""Weights from PyTorch's and Keras's layouts and back, and what is refused."""

import numpy as np
import pytest

import bptt
from bptt.convert import from_keras, from_torch, to_keras, to_torch
from networks import assert_close
from reference import sigmoid

KINDS = [bptt.RNN, bptt.LSTM, bptt.GRU]


def snapshot(layer):
    return {name: p.copy() for name, p in layer.parameters.items()}


def assert_unchanged(layer, before):
    for name, p in layer.parameters.items():
        np.testing.assert_array_equal(p, before[name])


# ---- PyTorch: tests/test_torch_stack.py runs both; here are the names --------------------------


def test_a_state_dict_by_prefixes_survives_a_safetensors_file(tmp_path):
    def make(seed):
        return {
            "model.lstm": bptt.LSTM(3, 4, num_layers=2, seed=seed),
            "head": bptt.Linear(4, 2, seed=seed),
        }

    ours, others = make(1), make(2)
    bptt.io.save(tmp_path / "m.safetensors", to_torch(ours))
    tensors, _ = bptt.io.load(tmp_path / "m.safetensors")
    assert "model.lstm.weight_hh_l1" in tensors
    from_torch(others, tensors)
    for name, layer in ours.items():
        assert_unchanged(others[name], snapshot(layer))


def test_a_chain_has_the_names_of_pytorchs():
    model = bptt.Sequential(bptt.Embedding(5, 3, seed=1), bptt.GRU(3, 4, seed=1))
    other = bptt.Sequential(bptt.Embedding(5, 3, seed=2), bptt.GRU(3, 4, seed=2))
    tensors = to_torch(model)
    assert sorted(tensors)[:2] == ["0.weight", "1.bias_hh_l0"]
    tensors["0.weight"][...] = 3  # a copy
    assert not (model.parameters["0.weight"] == 3).all()
    from_torch(other, tensors)
    assert (other.parameters["0.weight"] == 3).all()


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (
            {"lstm.weight_hr_l0": np.zeros((2, 4), np.float32)},
            ValueError,
            r"tensors has unknown \['lstm.weight_hr_l0'\]",
        ),
        ({"fc.bias": np.zeros(4, np.float32)}, ValueError, r"tensors has unknown \['fc.bias'\]"),
        ({"lstm.bias_hh_l0": None}, TypeError, r"tensors\['lstm.bias_hh_l0'\] is a NoneType"),
        ({"lstm.bias_hh_l0": ...}, ValueError, r"tensors lacks \['lstm.bias_hh_l0'\]"),
        (  # a GRU's gates
            {"lstm.weight_ih_l0": np.zeros((12, 3), np.float32)},
            ValueError,
            r"tensors\['lstm.weight_ih_l0'\] has shape \(12, 3\), expected \(16, 3\)",
        ),
        (
            {"lstm.weight_hh_l0": np.zeros((16, 4))},
            TypeError,
            r"tensors\['lstm.weight_hh_l0'\] has dtype float64, expected float32",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_and_nothing_is_written(change, error, sentence):
    lstm = bptt.LSTM(3, 4, seed=1)
    before = snapshot(lstm)
    tensors = {name: np.zeros_like(a) for name, a in to_torch({"lstm": lstm}).items()} | change
    tensors = {name: a for name, a in tensors.items() if a is not ...}
    with pytest.raises(error, match=f"^convert.from_torch: {sentence}"):
        from_torch({"lstm": lstm}, tensors)
    assert_unchanged(lstm, before)


def test_what_is_no_layer_is_refused():
    lstm = bptt.LSTM(3, 4)
    with pytest.raises(TypeError, match=r"convert.from_torch: layers is a list, expected a layer"):
        from_torch([lstm], {})
    with pytest.raises(TypeError, match=r"convert.to_torch: layers\['a'\] is a int, expected a L"):
        to_torch({"a": 1})
    with pytest.raises(TypeError, match=r"convert.to_torch: a name of layers is a int"):
        to_torch({1: lstm})
    with pytest.raises(TypeError, match=r"convert.from_torch: tensors is a list, expected a Map"):
        from_torch(lstm, [])
    for call in (to_keras, lambda layer: from_keras(layer, [])):
        with pytest.raises(TypeError, match="layer is a Sequential, expected one of RNN, LSTM"):
            call(bptt.Sequential(lstm))
        with pytest.raises(ValueError, match="learn_initial_state=True, expected False"):
            call(bptt.LSTM(3, 4, learn_initial_state=True))


# ---- Keras ---------------------------------------------------------------------------------------


def keras_predict(kind, x, kernel, recurrent, bias, reset_after=True):
    """What Keras's layer computes from its weights, after its source: keras/src/layers/rnn."""
    H = len(recurrent)
    h, c, ys = np.zeros((x.shape[1], H)), np.zeros((x.shape[1], H)), []
    for x_t in x:
        if kind is bptt.RNN:
            h = np.tanh(x_t @ kernel + h @ recurrent + bias)
        elif kind is bptt.LSTM:
            z = np.split(x_t @ kernel + h @ recurrent + bias, 4, axis=1)  # i, f, c, o
            c = sigmoid(z[1]) * c + sigmoid(z[0]) * np.tanh(z[2])
            h = sigmoid(z[3]) * np.tanh(c)
        elif reset_after:
            x_z, x_r, x_h = np.split(x_t @ kernel + bias[0], 3, axis=1)
            h_z, h_r, h_h = np.split(h @ recurrent + bias[1], 3, axis=1)
            z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
            h = z * h + (1 - z) * np.tanh(x_h + r * h_h)
        else:
            x_z, x_r, x_h = np.split(x_t @ kernel + bias, 3, axis=1)
            u_z, u_r, u_h = np.split(recurrent, 3, axis=1)
            z, r = sigmoid(x_z + h @ u_z), sigmoid(x_r + h @ u_r)
            h = z * h + (1 - z) * np.tanh(x_h + (r * h) @ u_h)
        ys.append(h)
    return np.stack(ys)


def keras_weights(kind, D, H, rng, reset_after=True):
    G = {bptt.RNN: 1, bptt.LSTM: 4, bptt.GRU: 3}[kind]
    two = kind is bptt.GRU and reset_after
    bias = rng.standard_normal((2, G * H) if two else G * H)
    return [rng.standard_normal((D, G * H)), rng.standard_normal((H, G * H)), bias]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(bptt.RNN, {}), (bptt.LSTM, {}), (bptt.GRU, {}), (bptt.GRU, {"reset_after": False})],
    ids=["SimpleRNN", "LSTM", "GRU", "GRU reset before"],
)
def test_keras_weights_give_keras_numbers(kind, options, bidirectional, rng):
    D, H = 3, 5
    layer = kind(
        D, H, num_layers=2, bidirectional=bidirectional, dtype=np.float64, seed=0, **options
    )
    d = layer.directions
    parts = [keras_weights(kind, n, H, rng, **options) for n in [D] * d + [d * H] * d]
    weights = [array for part in parts for array in part]
    from_keras(layer, weights)

    x = rng.standard_normal((6, 4, D))
    y = x
    for floor in range(2):
        its = parts[floor * d : (floor + 1) * d]
        ys = [keras_predict(kind, y, *its[0], **options)]
        if bidirectional:  # merge_mode="concat"
            ys.append(keras_predict(kind, y[::-1], *its[1], **options)[::-1])
        y = np.concatenate(ys, axis=2)
    assert_close(layer.predict(x)[0], y, 1e-12)

    back = to_keras(layer)
    for a, e in zip(back, weights, strict=True):
        assert a.shape == e.shape
        assert a.flags.c_contiguous
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_gives_the_same_numbers(kind, rng):
    # Where Keras has one bias, the two become one: the sums are the same.
    layer, other = (
        kind(3, 4, num_layers=2, bidirectional=True, dtype=np.float64, seed=seed) for seed in (1, 2)
    )
    from_keras(other, to_keras(layer))
    x = rng.standard_normal((5, 2, 3))
    assert_close(other.predict(x)[0], layer.predict(x)[0], 1e-14)


def test_keras_dense_and_embedding(rng):
    linear, embedding = bptt.Linear(3, 4, seed=0), bptt.Embedding(5, 2, seed=0)
    kernel, bias = rng.random((3, 4)).astype(np.float32), rng.random(4).astype(np.float32)
    from_keras(linear, [kernel, bias])
    x = rng.random((2, 3)).astype(np.float32)
    np.testing.assert_allclose(linear.predict(x)[0], x @ kernel + bias, rtol=1e-6)
    for a, e in zip(to_keras(linear), [kernel, bias], strict=True):
        np.testing.assert_array_equal(a, e)
    plain = bptt.Linear(3, 4, bias=False)
    from_keras(plain, [kernel])
    assert len(to_keras(plain)) == 1
    table = rng.random((5, 2)).astype(np.float32)
    from_keras(embedding, [table])
    np.testing.assert_array_equal(embedding.predict(np.array([[3]]))[0], table[None, [3]])
    np.testing.assert_array_equal(to_keras(embedding)[0], table)


@pytest.mark.parametrize("kind", KINDS)
def test_without_biases(kind):
    layer = kind(3, 4, bias=False, seed=0)
    weights = to_keras(layer)
    assert [w.shape[0] for w in weights] == [3, 4]
    other = kind(3, 4, bias=False, seed=1)
    from_keras(other, weights)
    assert_unchanged(other, snapshot(layer))


def zeros(*shapes):
    return [np.zeros(shape, np.float32) for shape in shapes]


@pytest.mark.parametrize(
    ("layer", "weights", "error", "sentence"),
    [
        (
            bptt.LSTM(3, 4),
            zeros((3, 16), (4, 16)),
            ValueError,
            "weights has 2 arrays, expected 3: kernel_l0, recurrent_kernel_l0, bias_l0",
        ),
        (
            bptt.LSTM(3, 4, bias=False),
            zeros((3, 16), (4, 16), 16),
            ValueError,
            "weights has 3 arrays, expected 2: kernel_l0, recurrent_kernel_l0",
        ),
        (  # PyTorch's layout
            bptt.LSTM(3, 4),
            zeros((16, 3), (16, 4), 16),
            ValueError,
            r"weights\[0\], kernel_l0, has shape \(16, 3\), expected \(3, 16\)",
        ),
        (  # another cell's gates
            bptt.LSTM(3, 4),
            zeros((3, 12), (4, 12), (2, 12)),
            ValueError,
            r"weights\[0\], kernel_l0, has shape \(3, 12\), expected \(3, 16\)",
        ),
        (
            bptt.GRU(3, 4),
            zeros((3, 12), (4, 12), 12),
            ValueError,
            r"weights\[2\], bias_l0, has shape \(12,\), expected \(2, 12\)",
        ),
        (
            bptt.GRU(3, 4, reset_after=False),
            zeros((3, 12), (4, 12), (2, 12)),
            ValueError,
            r"weights\[2\], bias_l0, has shape \(2, 12\), expected \(12,\)",
        ),
        (
            bptt.RNN(3, 4, bidirectional=True),
            [*zeros((3, 4), (4, 4), 4, (3, 4)), np.zeros((4, 4)), np.zeros(4)],
            TypeError,
            r"weights\[4\], recurrent_kernel_l0_reverse, has dtype float64, expected float32",
        ),
        (
            bptt.RNN(3, 4),
            [*zeros((3, 4), (4, 4)), None],
            TypeError,
            r"weights\[2\], bias_l0, is a NoneType, expected an array",
        ),
        (bptt.RNN(3, 4), {}, TypeError, "weights is a dict, expected a Sequence"),
        (bptt.Linear(3, 4), zeros((4, 3), 4), ValueError, r"weights\[0\], kernel, has shape"),
    ],
)
def test_keras_weights_that_do_not_fit_are_refused(layer, weights, error, sentence):
    before = snapshot(layer)
    with pytest.raises(error, match=f"^convert.from_keras: {sentence}"):
        from_keras(layer, weights)
    assert_unchanged(layer, before)
