"""Holds that no code compiled for one instruction set can be linked into another's place.

    python tests/check_symbols.py BUILD_FOLDER

A linker keeps one of several weak symbols of a name (templates, inline functions). In the object
file of a set each one must therefore carry the set in its name, `bptt::<set>` or, Eigen's own,
`Eigen_<set>`. Otherwise code for a newer processor could run on an older one.
"""

import re
import subprocess
import sys
from pathlib import Path

# Data that every C++ object shares; no instructions.
SHARED_DATA = re.compile(r"DW\.ref\.__gxx_personality_v0$")


def leaks(object_file: Path, instruction_set: str) -> list[str]:
    """Names of the weak symbols that `object_file` defines outside its set's namespaces."""
    listing = subprocess.run(
        ["nm", "-C", "--defined-only", object_file], check=True, capture_output=True, text=True
    ).stdout
    # The second form is for names that nm cannot decode.
    own = re.compile(
        rf"\b(bptt::|Eigen_){instruction_set}::|4bptt{len(instruction_set)}{instruction_set}"
    )
    found = []
    for line in listing.splitlines():
        _, kind, name = line.split(maxsplit=2)
        weak = kind in "WVu"
        if weak and not own.search(name) and not SHARED_DATA.match(name):
            found.append(name)
    return found


def main() -> int:
    build = Path(sys.argv[1])
    objects = sorted(build.rglob("bptt_kernels_*.dir/**/kernels.cpp.o"))
    if not objects:
        print(f"check_symbols: {build} holds no object file of the kernels", file=sys.stderr)
        return 2
    failed = False
    for object_file in objects:
        match = re.search(r"bptt_kernels_(\w+)_(?:float|double)\.dir", str(object_file))
        assert match is not None
        names = leaks(object_file, match[1])
        print(f"{object_file.parts[-5]}: {len(names)} weak symbols that other sets could share")
        for name in names:
            print(f"  {name}")
        failed = failed or bool(names)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
