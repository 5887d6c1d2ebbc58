"""Runs the code of gradients.md from top to bottom: makes its pictures, and tells where a printed
result is not what the page says. With --write it puts the results into the page."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("gradients.md")
BLOCK = re.compile(r"```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", re.DOTALL)


def run(folder: Path) -> list[tuple[str, str]]:
    """What each block should print and what it did; pictures go to `folder`."""
    results = []
    names: dict[str, Any] = {"__name__": "gradients"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for code, wanted in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, PAGE.name, "exec"), names)
            results.append((wanted, printed.getvalue()))
    finally:
        os.chdir(before)
    return results


def main() -> int:
    pictures = PAGE.with_name("pictures")
    pictures.mkdir(exist_ok=True)
    results = iter(run(pictures))
    if "--write" in sys.argv:

        def with_result(match: re.Match[str]) -> str:
            printed = next(results)[1]
            return f"```python\n{match[1]}```\n" + (f"```text\n{printed}```\n" if printed else "")

        PAGE.write_text(BLOCK.sub(with_result, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    differ = [(wanted, printed) for wanted, printed in results if wanted != printed]
    for wanted, printed in differ:
        print(f"the page says:\n{wanted}the code says:\n{printed}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
