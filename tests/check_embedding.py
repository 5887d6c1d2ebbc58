"""Holds that docs/embedding.md's ways of finding the package are ways to find it.

    python tests/check_embedding.py EXAMPLE ARGUMENTS...

Each of the page's blocks of CMake becomes an application that compiles EXAMPLE, the page's first
program. Those that take an installed library are built, those that would compile it are configured.
ARGUMENTS are CMake's.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = """cmake_minimum_required(VERSION 3.21)
project(app LANGUAGES CXX)
add_executable(app app.cpp)
"""


def main() -> int:
    example, *arguments = sys.argv[1:]
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```cmake\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 3, "the page has lost its blocks"
    for block in blocks:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "CMakeLists.txt").write_text(START + block, encoding="utf-8")
            (folder / "app.cpp").write_bytes(Path(example).read_bytes())
            (folder / "third_party").mkdir()
            (folder / "third_party" / "bptt").symlink_to(ROOT)
            build = folder / "build"
            subprocess.run(["cmake", "-S", folder, "-B", build, *arguments], check=True)
            if "find_package" in block:
                subprocess.run(["cmake", "--build", build], check=True)
                subprocess.run([build / "app"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
