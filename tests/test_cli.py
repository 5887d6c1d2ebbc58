"""The command line: what it writes, what it says, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bptt
from bptt import charmodel, cli

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 60
SMALL = ["--embedding", "8", "--hidden", "16", "--batch", "4", "--k1", "8"]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one small run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    command = ["train", str(folder / "text.txt"), *SMALL, "--updates", "150", "--lr", "0.01"]
    assert cli.main([*command, "--out", str(folder / "out")]) == 0
    return folder / "out"


def refusal(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """The one line on stderr of a command that is refused."""
    try:
        code = cli.main([str(part) for part in command])
    except SystemExit as exit_:
        code = exit_.code
    output = capsys.readouterr()
    assert code == 2
    assert output.err.endswith("\n")
    assert output.err.count("\n") == 1
    assert output.err.startswith("bptt")
    return output.err


def test_train_writes_model_picture_and_sample_and_nothing_else(trained: Path) -> None:
    names = sorted(path.name for path in trained.iterdir())
    assert names == ["loss.png", "model.safetensors", "sample.txt"]
    assert (trained / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len((trained / "sample.txt").read_text(encoding="utf-8")) == 500


def test_model_file_has_pytorch_names_vocabulary_and_configuration(trained: Path) -> None:
    arrays, metadata = bptt.io.load(trained / "model.safetensors")
    assert {name: array.shape for name, array in arrays.items()} == {
        "0.weight": (29, 8),
        "1.weight_ih_l0": (64, 8),
        "1.weight_hh_l0": (64, 16),
        "1.bias_ih_l0": (64,),
        "1.bias_hh_l0": (64,),
        "2.weight": (29, 16),
        "2.bias": (29,),
    }
    assert metadata["vocabulary"] == "".join(sorted(set(TEXT)))
    configuration = json.loads(metadata["configuration"])
    assert configuration["cell"] == "lstm"
    assert configuration["training"]["updates"] == 150


def test_train_learns_and_prints_both_figures(
    text_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(text_file), *SMALL, "--out", str(tmp_path / "out"), "--epochs", "5"]
    assert cli.main([*command, "--cell", "gru", "--lr", "0.01", "--k2", "12"]) == 0
    output = capsys.readouterr()
    (line,) = (line for line in output.out.splitlines() if line.startswith("bits per character"))
    training, held_out = (float(part.split()[0]) for part in line.split(": ")[1].split(", "))
    assert 0 < training < 4.5  # log2 of 29 characters is 4.86
    assert 0 < held_out < 4.5
    assert "steps/s" in output.err
    assert "gradient norm" in output.err


def test_same_seed_gives_the_same_model(text_file: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        command = ["train", str(text_file), *SMALL, "--updates", "5", "--cell", "rnn"]
        assert cli.main([*command, "--seed", "7", "--out", str(tmp_path / name)]) == 0
    (a, _), (b, _) = (bptt.io.load(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_minutes_end_a_run(text_file: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    command = ["train", str(text_file), *SMALL, "--minutes", "0.01", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    assert time.perf_counter() - start < 30


def test_without_matplotlib_there_is_no_picture(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bptt.plot.available", lambda: False)
    command = ["train", str(text_file), *SMALL, "--updates", "2", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 0
    assert not (tmp_path / "out" / "loss.png").exists()


def test_sample_begins_with_the_prompt_and_repeats_with_the_seed(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for _ in range(2):
        command = ["sample", str(trained / "model.safetensors"), "--prompt", "the q"]
        assert cli.main([*command, "--length", "40", "--seed", "3"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith("the q")
    assert len(texts[0]) == 5 + 40 + 1


def test_sampling_steps_equal_one_pass(trained: Path) -> None:
    """What `generate` gets step by step is what `predict` gives for the whole text."""
    model = charmodel.CharacterModel.load(trained / "model.safetensors")
    text = model.generate(30, "the ", temperature=1e-6)
    logits, _ = model.network.predict(model.encode(text)[:, None])
    likeliest = logits[3:-1, 0].argmax(axis=-1)
    assert "".join(model.vocabulary[i] for i in likeliest) == text[4:]


def test_help_text_is_that_of_python() -> None:
    from pydoc_data.topics import topics

    assert charmodel.help_text() == "\n".join(topics[key] for key in sorted(topics))
    assert len(charmodel.help_text()) > 300_000


def test_encode_is_the_place_in_the_vocabulary() -> None:
    model = charmodel.CharacterModel("b\U0001f600aä", "gru", 2, 3, seed=0)
    assert model.vocabulary == "abä\U0001f600"
    assert model.encode("\U0001f600ba").tolist() == [3, 1, 0]
    assert model.encode("").size == 0


def test_held_out_bits_are_those_of_the_saved_model(tmp_path: Path) -> None:
    model = charmodel.CharacterModel("".join(set(TEXT)), "lstm", 8, 16, seed=0)
    options = charmodel.Options(batch=2, k1=4, k2=4, updates=10)
    report = charmodel.train(model, TEXT, options, tmp_path / "m", progress=False, save_every=0.0)
    assert len(report.held_out) >= 2
    held_out = TEXT[-(len(TEXT) // 10) :]
    saved = charmodel.CharacterModel.load(tmp_path / "m")
    index = saved.encode(held_out)[:, None]
    # Two streams, each from a zero state.
    half = (len(index) - 1) // 2
    bits = []
    for start in (0, half):
        y, _ = saved.network.predict(index[start : start + half])
        value, _ = bptt.losses.softmax_cross_entropy(y, index[start + 1 : start + half + 1])
        bits.append(value / np.log(2))
    assert report.held_out_bits == pytest.approx(np.mean(bits), rel=1e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_signal_ends_a_run_with_the_model_saved(
    text_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "bptt", "train", str(text_file), *SMALL, "--epochs", "1000000"]
    with subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        while "parameters" not in run.stdout.readline():
            pass
        time.sleep(1)
        run.send_signal(number)
        output, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    assert "Traceback" not in errors
    assert "held out" in output
    assert charmodel.CharacterModel.load(out / "model.safetensors")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_run_leaves_the_last_good_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    program = f"""
from bptt import charmodel
from pathlib import Path
text = {TEXT!r}
model = charmodel.CharacterModel("".join(set(text)), "lstm", 8, 16, seed=0)
options = charmodel.Options(batch=2, k1=8, k2=8, epochs=10**9)
charmodel.train(model, text, options, Path({str(path)!r}), progress=False, save_every=0.0)
"""
    with subprocess.Popen([sys.executable, "-c", program]) as run:
        while not path.exists():
            assert run.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)
        run.kill()
    assert charmodel.CharacterModel.load(path)


def test_divergence_stops_with_update_and_norm_and_keeps_the_last_good_model(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.safetensors"
    model = charmodel.CharacterModel("".join(set(TEXT)), "rnn", 8, 16, seed=0)
    options = charmodel.Options(batch=2, k1=8, k2=8, epochs=10**9)

    def poison() -> bool:
        if path.exists():
            model.network.parameters["2.weight"][:] = np.nan
        return False

    with pytest.raises(ArithmeticError, match=r"diverged.*(update|held-out)"):
        charmodel.train(model, TEXT, options, path, poison, progress=False, save_every=0.0)
    saved, _ = bptt.io.load(path)
    assert all(np.isfinite(array).all() for array in saved.values())


def test_a_run_that_diverges_says_so_in_one_line(
    text_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverge(*_: object) -> None:
        raise bptt.DivergenceError(3, 24, float("nan"), float("inf"))

    monkeypatch.setattr(charmodel, "train", diverge)
    assert cli.main(["train", str(text_file), *SMALL, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "update 3" in error
    assert "gradient norm inf" in error


def test_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").touch()
    assert "empty.txt is empty" in refusal(capsys, "train", tmp_path / "empty.txt")


def test_other_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    message = refusal(capsys, "train", tmp_path / "latin.txt")
    assert "latin.txt is not UTF-8 (byte 0xfc at position 2)" in message


def test_text_too_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.txt").write_text("abc" * 100)
    message = refusal(capsys, "train", tmp_path / "short.txt", "--out", tmp_path / "out")
    assert "270 characters, expected 2049 or more for 32 streams of 64 steps" in message
    (tmp_path / "short.txt").write_text("abc")
    command = ("--batch", 1, "--k1", 1, "--out", tmp_path / "out")
    assert "too short" in refusal(capsys, "train", tmp_path / "short.txt", *command)


def test_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "sample"):
        message = refusal(capsys, command, tmp_path / "none")
        assert message == f"bptt: {tmp_path / 'none'}: No such file or directory\n"
    assert "Is a directory" in refusal(capsys, "train", tmp_path)


def test_out_is_a_file(text_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "File exists" in refusal(capsys, "train", text_file, *SMALL, "--out", text_file)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_model_file_cut_short(
    trained: Path, tmp_path: Path, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (trained / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:kept])
    assert "cut.safetensors is cut short" in refusal(capsys, "sample", tmp_path / "cut.safetensors")


def test_safetensors_file_of_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.safetensors"
    bptt.io.save(path, {"weight": np.zeros(3, np.float32)})
    assert "is no character model" in refusal(capsys, "sample", path)


def test_model_whose_configuration_does_not_fit_its_weights(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays, metadata = bptt.io.load(trained / "model.safetensors")
    path = tmp_path / "other.safetensors"
    for change in ({"hidden": 17}, {"cell": "elman"}, {"embedding": "8"}):
        configuration = {**json.loads(metadata["configuration"]), **change}
        bptt.io.save(path, arrays, {**metadata, "configuration": json.dumps(configuration)})
        assert "is no character model" in refusal(capsys, "sample", path)


def test_unknown_character_in_a_prompt(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("sample", trained / "model.safetensors", "--prompt", "the Ω")
    assert "the character 'Ω' at position 4" in refusal(capsys, *command)


@pytest.mark.parametrize(
    "options",
    [
        ["--hidden", "0"],
        ["--batch", "-1"],
        ["--k1", "1.5"],
        ["--k1", "8", "--k2", "4"],
        ["--lr", "nan"],
        ["--clip", "inf"],
        ["--minutes", "0"],
        ["--seed", "-1"],
        ["--cell", "elman"],
        ["--updates", "3", "--epochs", "3"],
        ["--depth", "2"],
    ],
)
def test_options_that_cannot_be(
    text_file: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(capsys, "train", text_file, "--out", tmp_path / "out", *SMALL, *options)
    assert options[-2].strip("-") in message
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in refusal(capsys)


@pytest.mark.slow
def test_default_run_reaches_its_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1.80 bits per character held out; how long it took is printed, and not a test's business."""
    assert cli.main(["train", "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    words = output.split()
    assert float(words[words.index("training,") + 1]) <= 1.80
