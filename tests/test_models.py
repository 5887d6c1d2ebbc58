"""Whole models in files: round trips, other versions, broken descriptions; the same in C++."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import io

EVERY = {
    "an embedding and a stack": lambda dtype: [
        bptt.Embedding(5, 3, dtype=dtype),
        bptt.LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.25, dtype=dtype),
        bptt.Linear(8, 2, dtype=dtype),
    ],
    "learned states": lambda dtype: [
        bptt.GRU(3, 4, num_layers=2, learn_initial_state=True, dtype=dtype),
        bptt.LSTM(4, 2, learn_initial_state=True, bias=False, dtype=dtype),
    ],
    "every cell": lambda dtype: [
        bptt.RNN(3, 2, dtype=dtype),
        bptt.RNN(2, 2, nonlinearity="relu", dtype=dtype),
        bptt.RNN(2, 2, nonlinearity="identity", dtype=dtype),
        bptt.GRU(2, 2, reset_after=False, dtype=dtype),
        bptt.Linear(2, 1, bias=False, dtype=dtype),
    ],
    "every activation": lambda dtype: [
        bptt.Activation("tanh"),
        bptt.Linear(2, 3, dtype=dtype),
        *map(bptt.Activation, ("relu", "sigmoid", "elu", "softmax")),
    ],
}


def models() -> list[Any]:
    return [
        pytest.param(layers, dtype, id=f"{name}, {dtype}")
        for name, layers in EVERY.items()
        for dtype in ("float32", "float64")
    ]


def same(model: bptt.Sequential, other: bptt.Sequential) -> bool:
    return repr(model) == repr(other) and all(
        array.dtype == other.parameters[name].dtype
        and array.tobytes() == other.parameters[name].tobytes()
        for name, array in model.parameters.items()
    )


@pytest.mark.parametrize(("layers", "dtype"), models())
def test_what_was_saved_is_loaded(tmp_path: Path, layers, dtype):
    model = bptt.Sequential(*layers(dtype))
    bptt.save_model(tmp_path / "m", model, {"text": "ä\n"})
    loaded, metadata = bptt.load_model(tmp_path / "m")
    assert metadata == {"text": "ä\n"}
    assert same(model, loaded)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    for layer, its_own in zip(loaded.layers, model.layers, strict=True):
        for option in ("nonlinearity", "reset_after", "dropout", "bias"):
            assert getattr(layer, option, None) == getattr(its_own, option, None)


@pytest.mark.skipif("BPTT_CPP_TESTS" not in os.environ, reason="the C++ tests are not built")
@pytest.mark.parametrize("layers", EVERY.values(), ids=EVERY)
def test_cpp_loads_what_python_saves_and_the_other_way_round(tmp_path: Path, layers):
    model = bptt.Sequential(*layers("float32"))
    bptt.save_model(tmp_path / "here", model, {"text": 'ä\n"\\'})
    program = Path(os.environ["BPTT_CPP_TESTS"]) / "model_io"
    subprocess.run([program, tmp_path / "here", tmp_path / "there"], check=True)
    loaded, metadata = bptt.load_model(tmp_path / "there")
    assert metadata == {"text": 'ä\n"\\'}
    assert same(model, loaded)


def changed(path: Path, arrays: Any = None, **description: Any) -> None:
    """The file with other arrays, or with other entries in its description or its first layer."""
    old, metadata = io.load(path)
    plain = json.loads(metadata["bptt_model"])
    plain |= {key: value for key, value in description.items() if key in plain}
    of_layer = {key: value for key, value in description.items() if key not in plain}
    if of_layer:
        plain["layers"][0] |= of_layer
    io.save(path, old if arrays is None else arrays(old), {"bptt_model": json.dumps(plain)})


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        ({"format": 2}, "is of format 2, expected 1"),
        ({"layers": [{"name": "0"}]}, "bptt_model lacks the entry 'type'"),
        ({"layers": []}, "no layers"),
        ({"layers": 3}, "not iterable"),
        (
            {"layers": [{"name": "0", "type": "Activation", "nonlinearity": "swish"}]},
            "Activation: nonlinearity is 'swish'",
        ),
        (
            {"layers": [{"name": "0", "type": "Activation"}]},
            "layer '0': its entry lacks ['nonlinearity']",
        ),
        ({"type": "Transformer"}, "layer '0' has type 'Transformer', expected one of Embedding"),
        ({"peephole": True}, "has unknown ['peephole']"),
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000, and its weights have 3"),
        ({"input_size": 10**12}, "input_size is 1000000000000, and its weights have 2"),
        ({"num_layers": 10**12}, "num_layers is 1000000000000, and the file has 6 tensors"),
        ({"num_layers": 2}, "weight_hh_l1"),
        ({"bias": False}, "has unknown ['0.bias_hh_l0', '0.bias_ih_l0']"),
        ({"bias": 1}, "bias is 1"),
        ({"dropout": 2.0}, "dropout is 2.0"),
        ({"name": "first"}, "'first.weight_hh_l0' is missing"),
        ({"arrays": lambda a: a | {"x": np.zeros(1)}}, "has unknown ['x']"),
        ({"arrays": lambda a: a | {"1.bias": np.zeros(1)}}, "has dtype float64, expected float32"),
        (
            {"arrays": lambda a: a | {"1.bias": np.array([np.nan], np.float32)}},
            "1.bias[0] is nan, expected a finite number",
        ),
        ({"arrays": lambda a: {n: v for n, v in a.items() if n != "1.bias"}}, "lacks ['1.bias']"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, description, sentence):
    path = tmp_path / "m"
    bptt.save_model(path, bptt.Sequential(bptt.LSTM(2, 3), bptt.Linear(3, 1)))
    changed(path, **description)
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        bptt.load_model(path)
    assert str(error.value).startswith(f"load_model({str(path)!r}): ")


def test_layers_of_a_file_that_do_not_fit_each_other_are_refused(tmp_path: Path):
    model = bptt.Sequential(bptt.LSTM(2, 3), bptt.Linear(3, 1))
    bptt.save_model(tmp_path / "m", model)
    arrays, metadata = io.load(tmp_path / "m")
    plain = json.loads(metadata["bptt_model"])
    plain["layers"][1]["in_features"] = 4
    arrays["1.weight"] = np.zeros((1, 4), np.float32)
    io.save(tmp_path / "m", arrays, {"bptt_model": json.dumps(plain)})
    sentence = r"load_model\(.*\): Sequential: layers\[1\]: .* reads 4 numbers a step, expected 3"
    with pytest.raises(ValueError, match=sentence):
        bptt.load_model(tmp_path / "m")
    plain["layers"] = [{"name": "0", "type": "Activation", "nonlinearity": "elu"}]
    io.save(tmp_path / "m", {}, {"bptt_model": json.dumps(plain)})
    with pytest.raises(ValueError, match="the layers are activations, expected one"):
        bptt.load_model(tmp_path / "m")


def test_files_of_something_else_are_refused(tmp_path: Path):
    io.save(tmp_path / "m", {"a": np.zeros(1)})
    with pytest.raises(ValueError, match="the metadata has no bptt_model"):
        bptt.load_model(tmp_path / "m")
    io.save(tmp_path / "m", {"a": np.zeros(1)}, {"bptt_model": "[" * 100_000})
    with pytest.raises(ValueError, match="load_model"):
        bptt.load_model(tmp_path / "m")
    (tmp_path / "m").write_bytes(b"short")
    with pytest.raises(ValueError, match="cut short or no safetensors file"):
        bptt.load_model(tmp_path / "m")
    with pytest.raises(FileNotFoundError):
        bptt.load_model(tmp_path / "missing")


def test_what_can_not_be_loaded_is_not_saved(tmp_path: Path):
    model = bptt.Sequential(bptt.Linear(2, 1))
    model.parameters["0.weight"][0, 1] = np.inf
    with pytest.raises(ValueError, match=re.escape("0.weight[0, 1] is inf")):
        bptt.save_model(tmp_path / "m", model)
    with pytest.raises(ValueError, match="metadata has 'bptt_model'"):
        bptt.save_model(tmp_path / "m", bptt.Sequential(bptt.Linear(1, 1)), {"bptt_model": ""})
    with pytest.raises(ValueError, match="the layers are activations"):
        bptt.save_model(tmp_path / "m", bptt.Sequential(bptt.Activation("tanh")))
    with pytest.raises(TypeError, match="model is a Linear, expected a Sequential"):
        bptt.save_model(tmp_path / "m", bptt.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layer 0 is a Sequential, expected one of Embedding"):
        bptt.save_model(tmp_path / "m", bptt.Sequential(model))
    assert os.listdir(tmp_path) == []
