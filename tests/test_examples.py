"""Every example runs and prints its figure beside a baseline."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))

# What each prints, a line for each model that it trains.
LINES = {
    "adding": r"adding problem, T = 10, \w+: mean squared error [\d.]+ \(always 1: 0.\d+\), .*",
    "brackets": r"brackets, .*: [\d.]+% of 50 held-out .* \(the commoner class: [\d.]+%\), .*",
    "copy_memory": r"copy memory, .*: [\d.]+% of the symbols recalled \(guessing: 12.5%\), .*",
    "digits": r"digits, .*: [\d.]+% of 50 held-out .* \(the commonest digit: [\d.]+%\), .*",
    "reverse": r"reversing .*: [\d.]+% of the digits right \(guessing: 10.0%\), .*",
    "sunspots": r"sunspots, .* squared error [\d.]+ .*\(of a year before: [\d.]+; .*",
}
SKIPPED = {"digits": "scikit-learn", "sunspots": "pmdarima"}


def test_every_example_is_tested_and_of_one_screen():
    assert {path.stem for path in EXAMPLES} == set(LINES)
    for path in EXAMPLES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 65, path.name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path):
    # One thread: several of these small runs side by side would only wait for each other.
    shown = subprocess.run(
        [sys.executable, path, "--quick"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ).stdout
    name = path.stem
    if "skipped" in shown:
        package = SKIPPED[name]
        assert shown == f"{name}: {package} is not installed (pip install {package}): skipped\n"
        pytest.skip(shown.strip())
    for line in shown.splitlines():
        assert re.fullmatch(LINES[name], line)
