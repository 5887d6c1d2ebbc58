"""The pages' examples run and print what stands under them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["reductions.md", "training.md"])
def test_examples_print_what_the_page_says(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for the files that they write
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```(python|text)\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, object] = {}
    for language, block in blocks:
        if language == "python":
            exec(compile(block, page, "exec"), names)
        else:
            assert capsys.readouterr().out == block
    assert capsys.readouterr().out == ""
    assert len(blocks) >= 2


@pytest.mark.parametrize("page", ["truncation.md"])
def test_examples_run_and_what_they_assert_is_so(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, page, "exec"), names)


def test_embedding_begins_with_a_program_of_a_few_lines():
    text = (DOCS / "embedding.md").read_text(encoding="utf-8")
    program = text.split("```cpp\n")[1].split("```")[0]
    assert len(program.splitlines()) <= 15  # it is compiled and run by tests/cpp


def test_the_cpp_reference_is_what_the_headers_say():
    script = DOCS / "make_cpp_reference.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert run.returncode == 0, f"python docs/{script.name} makes it anew"
