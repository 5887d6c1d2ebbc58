"""The chapter on gradients says what its code does."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "gradients.md").read_text(encoding="utf-8")


def test_the_chapters_code_runs_and_prints_what_the_page_says(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("make_pictures", DOCS / "make_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = module.run(tmp_path)
    assert len(results) == PAGE.count("```python")
    for wanted, printed in results:
        assert printed == wanted
    shown = set(re.findall(r"\(pictures/(\w+\.png)\)", PAGE))
    assert shown == {path.name for path in tmp_path.iterdir()}
    assert shown == {path.name for path in (DOCS / "pictures").iterdir()}


def test_links_of_the_docs_lead_to_files() -> None:
    for page in DOCS.glob("*.md"):
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert "://" in link or (DOCS / link).exists(), f"{page.name}: {link}"
