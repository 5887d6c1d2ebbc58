"""What it costs to have bptt: the time of its import, the size of its wheel, the time of a fresh
`pip install .`.

    python benchmarks/install.py [--only-import] [--repeats 15]

The import is that of the installed package, beyond NumPy's own, each time in a new process. The
install is that of this checkout into a new virtual environment, its build requirements downloaded
anew as far as pip's cache does not hold them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]

IMPORT = """
import time
start = time.perf_counter()
import numpy
between = time.perf_counter()
import bptt
print(between - start, time.perf_counter() - between)
"""


def import_times(repeats: int) -> tuple[list[float], list[float]]:
    """NumPy's and bptt's, in ms, sorted."""
    pairs = []
    for _ in range(repeats + 1):
        run = subprocess.run(
            [sys.executable, "-c", IMPORT], check=True, stdout=subprocess.PIPE, text=True
        )
        pairs.append([1e3 * float(part) for part in run.stdout.split()])
    numpy, own = zip(*pairs[1:], strict=True)  # the first has read the files from the disk
    return sorted(numpy), sorted(own)


def told(times: list[float]) -> str:
    return f"{statistics.median(times):.1f} ms ({times[0]:.1f} to {times[-1]:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only-import", action="store_true", help="build and install nothing")
    parser.add_argument("--repeats", type=int, default=15, metavar="N", help="imports")
    chosen = parser.parse_args()
    numpy, own = import_times(chosen.repeats)
    print(f"import numpy: {told(numpy)}")
    print(f"import bptt, beyond it: {told(own)}", flush=True)
    if chosen.only_import:
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        venv.create(environment, with_pip=True)
        scripts = "Scripts" if sys.platform == "win32" else "bin"
        pip = [environment / scripts / "python", "-m", "pip"]
        start = time.perf_counter()
        subprocess.run([*pip, "install", "-q", str(ROOT)], check=True)
        print(
            f"pip install . in a new environment: {time.perf_counter() - start:.0f} s", flush=True
        )
        start = time.perf_counter()
        subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        size = wheel.stat().st_size / 1e6
        print(f"wheel: {size:.2f} MB, built in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
