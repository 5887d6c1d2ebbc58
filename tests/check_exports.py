"""Holds that a shared library gives away what its headers declare, and nothing else.

    python tests/check_exports.py LIBRARY

Every name that other programs could bind to must be one of the namespace bptt that a public header
marks BPTT_API; every such name must be there.
"""

import re
import subprocess
import sys
from pathlib import Path

HEADERS = Path(__file__).parents[1] / "cpp" / "include" / "bptt"


def declared() -> set[str]:
    """Names of the functions and classes marked BPTT_API, and of classes with marked members."""
    names = set()
    for header in [*HEADERS.glob("*.hpp"), *HEADERS.glob("*.hpp.in")]:
        text = re.sub(r"//.*", "", header.read_text(encoding="utf-8"))
        marked = re.findall(r"^([ ]*)BPTT_API\s([^;{(]*)", text, re.MULTILINE)
        names |= {
            declaration.split()[-1].lstrip("*&") for indent, declaration in marked if not indent
        }
        names |= set(re.findall(r"^(?:class|struct) BPTT_API (\w+)", text, re.MULTILINE))
        # A class of which single members are marked.
        for name, body in re.findall(
            r"^class (\w+)[^;{]*\{(.*?)^\};", text, re.DOTALL | re.MULTILINE
        ):
            if "BPTT_API" in body:
                names.add(name)
    return names


def exported(library: Path) -> tuple[set[str], list[str]]:
    """Names within bptt, the first part of each, and what else the library gives away."""
    listing = subprocess.run(
        ["nm", "-DC", "--defined-only", library], check=True, capture_output=True, text=True
    ).stdout
    names, others = set(), []
    for line in listing.splitlines():
        symbol = line.split(maxsplit=2)[2]
        # A template's symbol begins with what it returns.
        plain, inner = symbol, 1
        while inner:
            plain, inner = re.subn(r"<[^<>]*>", "", plain)
        match = re.match(r"(?:[\w:]+[*&]? )*(?:[\w:]+ const[*&] )?bptt::(\w+)", plain.split("(")[0])
        if match is None:
            others.append(symbol)
        else:
            names.add(match[1])
    return names, others


def main() -> int:
    names, others = exported(Path(sys.argv[1]))
    wanted = declared()
    for symbol in others:
        print(f"not of bptt: {symbol}")
    for name in sorted(names - wanted):
        print(f"given away, but no header says BPTT_API: {name}")
    for name in sorted(wanted - names):
        print(f"BPTT_API in a header, but not in the library: {name}")
    print(f"{len(names)} names of bptt leave the library")
    return 1 if others or names != wanted else 0


if __name__ == "__main__":
    sys.exit(main())
