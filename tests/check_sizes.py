"""Holds that what is shipped stays small.

python tests/check_sizes.py --package MEGABYTES           the installed package, packed
python tests/check_sizes.py --program PROGRAM MEGABYTES   a program, stripped
"""

import io
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path


def package_size() -> int:
    """Of the package's files in one archive, compressed as pip and scikit-build-core do it."""
    spec = find_spec("bptt")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(folder))
    return packed.tell()


def stripped_size(program: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder) / "stripped"
        subprocess.run(["strip", "-o", stripped, program], check=True)
        return stripped.stat().st_size


def main() -> int:
    kind, *program, limit = sys.argv[1:]
    size = package_size() if kind == "--package" else stripped_size(*program)
    print(f"{kind[2:]}: {size / 1e6:.2f} MB, allowed {float(limit):.2f} MB")
    return 0 if size <= float(limit) * 1e6 else 1


if __name__ == "__main__":
    sys.exit(main())
