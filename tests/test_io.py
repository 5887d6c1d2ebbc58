"""Files of arrays: round trips, killed writes, foreign files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bptt
from bptt import io


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "0.weight": rng.standard_normal((4, 5)).astype(np.float32),
        "b": rng.standard_normal(3),
        "none": np.zeros((0, 2)),
        "view": rng.standard_normal((4, 6))[:, ::2],
        "turned": rng.standard_normal((4, 6)).T,
    }


def test_what_was_saved_is_loaded(tmp_path: Path):
    path, saved = tmp_path / "m.safetensors", arrays()
    metadata = {"cell": "lstm", "text": 'ä\n"☃"'}
    io.save(path, saved, metadata)
    loaded, its_metadata = io.load(path)
    assert its_metadata == metadata
    assert loaded.keys() == saved.keys()
    for name, array in saved.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)
        loaded[name][...] = 0  # they are the caller's own
    assert np.array_equal(io.load(str(path))[0]["b"], saved["b"])


def test_a_model_goes_through_a_file(tmp_path: Path):
    model, other = (bptt.Sequential(bptt.LSTM(2, 3, seed=s), bptt.Linear(3, 1)) for s in (0, 1))
    io.save(tmp_path / "m", model.parameters)
    loaded, metadata = io.load(tmp_path / "m")
    assert metadata == {}
    other.load_parameters(loaded)
    x = np.ones((4, 2, 2), np.float32)
    assert np.array_equal(other.predict(x)[0], model.predict(x)[0])


def test_nothing_else_is_left_in_the_folder(tmp_path: Path):
    for _ in range(2):
        io.save(tmp_path / "m.safetensors", arrays())
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path):
    io.save(tmp_path / "m", arrays())
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "m").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("at", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_last_file(tmp_path: Path, monkeypatch, at, error):
    path = tmp_path / "m.safetensors"
    io.save(path, {"a": np.ones(3)})

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, at, fail)
        with pytest.raises(error):
            io.save(path, {"a": np.zeros(3)})
    assert os.listdir(tmp_path) == ["m.safetensors"]
    assert io.load(path)[0]["a"].all()


def test_files_that_are_cut_short_are_refused_by_name(tmp_path: Path):
    path = tmp_path / "short.safetensors"
    io.save(path, arrays(), {"a": "b"})
    whole = path.read_bytes()
    for length in [0, 1, 8, 50, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"io.load: .*short.safetensors is cut short or no"):
            io.load(path)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04", b"hello\n" * 100, b"\x80\x04K\x01.", b"\xff" * 99]
)
def test_foreign_files_are_refused_by_name(tmp_path: Path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"io.load: .*foreign is cut short or no safetensors file"):
        io.load(path)


def test_element_types_that_numpy_lacks_are_refused(tmp_path: Path):
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path = tmp_path / "bf16"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match=r"io.load: .*bf16 is"):
        io.load(path)


def test_files_that_can_not_be_read_are_os_errors(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="missing"):
        io.load(tmp_path / "missing")
    with pytest.raises(OSError, match="directory"):
        io.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        io.save(tmp_path / "nowhere" / "m", {})


@pytest.mark.parametrize(
    ("content", "metadata", "sentence"),
    [
        ({"a": [1.0]}, None, r"arrays\['a'\] is a list, expected an array"),
        ({1: np.zeros(1)}, None, r"arrays's name is a int, expected a str"),
        ([np.zeros(1)], None, r"arrays is a list, expected a Mapping"),
        ({}, {"a": 1}, r"metadata\['a'\] is a int, expected a str"),
        ({}, {1: "a"}, r"metadata's key is a int"),
        ({"a": np.zeros(1, object)}, None, r"arrays\['a'\] has dtype object"),
    ],
)
def test_what_does_not_belong_into_a_file_is_refused(tmp_path: Path, content, metadata, sentence):
    with pytest.raises(TypeError, match=rf"^io.save: {sentence}"):
        io.save(tmp_path / "m", content, metadata)
    assert os.listdir(tmp_path) == []
