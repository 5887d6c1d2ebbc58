"""`bptt flow`, and the short form of it at the end of `bptt train`."""

from pathlib import Path

import pytest

from bptt import cli
from bptt.charmodel import CharacterModel, measure_flow

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 60
SIZES = ["--embedding", "8", "--hidden", "16", "--batch", "4", "--k1", "8", "--updates", "20"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one small run, and of its text."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    assert cli.main(["train", str(folder / "text.txt"), *SIZES, "--out", str(folder)]) == 0
    return folder


def test_flow_writes_a_table_a_picture_and_a_recommendation(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["flow", str(trained / "model.safetensors"), str(trained / "text.txt")]
    options = ["--steps", "40", "--batch", "3", "--max-lag", "20", "--tolerance", "0.1"]
    assert cli.main([*command, *options, "--out", str(tmp_path / "new")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 pieces of ")
    assert lines[0].endswith(", 40 characters each")
    assert lines[1].startswith("layer 1 (lstm): |dW_hh| = ")
    (found,) = (line for line in lines if "within 10 % of the full gradient" in line)
    assert found.startswith(("window ", "no window up to 21"))
    assert any(line.split()[:1] == ["21"] for line in lines)  # the longest window has a row
    assert (tmp_path / "new" / "flow.png").read_bytes().startswith(b"\x89PNG")


def test_flow_needs_no_matplotlib(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bptt.plot.available", lambda: False)
    command = ["flow", str(trained / "model.safetensors"), str(trained / "text.txt")]
    assert cli.main([*command, "--steps", "9", "--out", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())


def test_train_ends_with_the_short_form(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(trained / "text.txt"), *SIZES, "--k2", "12", "--cell", "gru"]
    assert cli.main([*command, "--out", str(tmp_path)]) == 0
    (line,) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith("gradient flow: ")
    )
    found, rest = line.removeprefix("gradient flow: ").split("; ")
    assert "within 5 % of the full gradient" in found
    assert rest == "trained with 12 (`bptt flow` tells more)"
    # And `bptt flow` tells the same.
    flow = ["flow", str(tmp_path / "model.safetensors"), str(trained / "text.txt")]
    assert cli.main([*flow, "--out", str(tmp_path)]) == 0
    assert found in capsys.readouterr().out.splitlines()


def test_the_pieces_begin_in_the_state_of_what_is_before() -> None:
    model = CharacterModel("".join(set(TEXT)), "rnn", 8, 16, seed=1)
    flow = measure_flow(model, TEXT, 30, 2)
    assert flow.dh.shape == (30, 2, 16)
    assert (flow.h[0] != 0).any()
    whole = measure_flow(model, TEXT[:41], 30, 2)  # 20 steps a piece: nothing is before
    assert whole.dh.shape == (20, 2, 16)
    assert (whole.h[0] == 0).all()


def test_flow_refuses_in_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(trained / "model.safetensors")
    short = tmp_path / "short.txt"
    short.write_text("the fox", encoding="utf-8")
    other = tmp_path / "other.txt"
    other.write_text(TEXT + "ß", encoding="utf-8")
    for command, sentence in (
        ([model, str(short)], "the text is too short: it has 7 characters, expected 17 or more"),
        ([model, str(other)], "the character 'ß' at position 2700 is none of the"),
        ([str(short)], "short.txt is cut short or no safetensors file"),
        ([str(tmp_path / "none")], "No such file"),
    ):
        assert cli.main(["flow", *command]) == 2
        assert sentence in capsys.readouterr().err
    for option, value, sentence in (
        ("--tolerance", "1", "expected a number between 0 and 1, got '1'"),
        ("--tolerance", "x", "expected a number between 0 and 1, got 'x'"),
        ("--max-lag", "0", "expected a whole number from 1 on, got '0'"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["flow", model, option, value])
        assert sentence in capsys.readouterr().err
