"""The C++ library within the installed package: headers, CMake files, and what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

import bptt

HEADERS = Path(__file__).parents[1] / "cpp" / "include" / "bptt"


def test_the_package_has_every_header_as_it_is_in_the_source() -> None:
    installed = Path(bptt.get_include()) / "bptt"
    for header in HEADERS.glob("*.hpp"):
        assert (installed / header.name).read_bytes() == header.read_bytes(), header.name
    names = {path.name for path in HEADERS.glob("*.hpp")} | {"version.hpp"}
    assert {path.name for path in installed.iterdir()} == names


def test_the_headers_version_is_the_packages() -> None:
    text = (Path(bptt.get_include()) / "bptt" / "version.hpp").read_text(encoding="utf-8")
    numbers = re.findall(r"^#define BPTT_VERSION_(MAJOR|MINOR|PATCH) (\d+)$", text, re.MULTILINE)
    assert [name for name, _ in numbers] == ["MAJOR", "MINOR", "PATCH"]
    assert ".".join(number for _, number in numbers) == bptt.__version__
    assert f'#define BPTT_VERSION "{bptt.__version__}"\n' in text


def test_cmakes_files_are_there_and_of_this_version() -> None:
    folder = Path(bptt.get_cmake_dir())
    assert (folder / "bpttConfig.cmake").is_file()
    assert (folder / "bpttTargets.cmake").is_file()
    version = (folder / "bpttConfigVersion.cmake").read_text(encoding="utf-8")
    assert f'set(PACKAGE_VERSION "{bptt.__version__}")' in version


def test_no_file_of_the_package_names_the_place_where_it_was_built() -> None:
    for path in Path(bptt.get_cmake_dir()).parent.parent.rglob("*"):
        if path.suffix in (".cmake", ".pc"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w}])/(?:home|root|tmp|usr|var|work)/", text), path.name


def test_the_package_may_be_moved(tmp_path: Path) -> None:
    # The extension finds the library next to itself, not where it was installed.
    package = Path(bptt.__file__).parent
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    subprocess.run(["cp", "-r", package, moved / "bptt"], check=True)
    program = "import bptt; print(bptt.__file__, bptt.runtime.instruction_set())"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(moved)},
        capture_output=True,
        text=True,
        check=True,
    )
    maps = "import bptt; print(open('/proc/self/maps').read())"
    assert run.stdout.startswith(str(moved))
    if Path("/proc/self/maps").exists():
        run = subprocess.run(
            [sys.executable, "-c", maps],
            env={**os.environ, "PYTHONPATH": str(moved)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"{moved}/bptt/lib/libbptt" in run.stdout
        assert f"{package}/lib/libbptt" not in run.stdout
