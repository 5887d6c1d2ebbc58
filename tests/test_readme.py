"""What the README says must be so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_first_example_runs_as_printed_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    match = re.fullmatch(r"loss (\S+), (\S+)% right\n", capsys.readouterr().out)
    assert match is not None
    assert float(match[2]) > 95


def test_ci_runs_the_test_command_as_printed() -> None:
    (command,) = (block.strip() for block in blocks("sh") if "pytest" in block)
    assert f"bash -c '{command}'" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_command_of_the_command_line_is_one() -> None:
    from bptt.cli import parser

    for block in blocks("sh"):
        for line in block.splitlines():
            if line.startswith("bptt "):
                arguments = [part.strip('"') for part in line.split()[1:]]
                assert parser().parse_args(arguments).run is not None


def test_links_lead_to_files() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in link or (ROOT / link).exists(), link
