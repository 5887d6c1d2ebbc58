"""Makes docs/cpp.md, the reference of the C++ library, from its public headers.

    python docs/make_cpp_reference.py            writes the page
    python docs/make_cpp_reference.py --check    returns 1 where the page is not theirs

A header is read as the project writes them: an opening comment, then declarations in the namespace
bptt, each behind its own comment. Bodies and what is private are left out.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADERS = ROOT / "cpp" / "include" / "bptt"
PAGE = ROOT / "docs" / "cpp.md"

INTRODUCTION = """# The C++ reference

Made from the headers by `docs/make_cpp_reference.py`. [embedding.md](embedding.md) tells how an
application finds the library and how it is meant to be used. R is float or double.

"""


def end_of_block(text: str, start: int) -> int:
    """Where the braces that open at `start` have closed."""
    depth = 0
    for match in re.compile(r"//[^\n]*|[{}]").finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0 and match[0] == "}":
            return match.end()
    raise ValueError(f"a brace is not closed: {text[start : start + 60]!r}")


def without_bodies(text: str) -> str:
    """Declarations for definitions: each function's body is a semicolon."""
    out, at, head = "", 0, ""
    for match in re.compile(r"//[^\n]*\n?|[{};]|(?:public|private):").finditer(text):
        if match.start() < at:
            continue
        between, token = text[at : match.start()], match[0]
        out, head, at = out + between, head + between, match.end()
        if token.startswith("//"):
            out += token
            continue
        # `= {` and `, {` begin a default value; a body comes after arguments.
        is_type = re.search(r"\b(struct|class|enum)\b", head) and ")" not in head.split("class")[-1]
        if token == "{" and not is_type:
            end = end_of_block(text, match.start())
            if ")" in head and not re.search(r"[=,(]\s*$", head):
                kept = re.sub(r"\)\s*(?:noexcept\s*)?:[^:].*", ")", head.strip(), flags=re.DOTALL)
                out = out[: out.rindex(head.strip())] + kept + ";"
                head = ""
            else:
                out += text[match.start() : end]
                head += "{}"
            at = end
            continue
        out += token
        head = ""
    return out + text[at:]


def without_private(text: str) -> str:
    return re.sub(r"\n+[ ]*private:.*?(?=\n\};)", "", text, flags=re.DOTALL)


def without_marks(text: str) -> str:
    """BPTT_API goes, and the lines that a declaration goes on with move along."""
    mark = "BPTT_API "
    return re.sub(
        rf"{mark}[^;]*",
        lambda match: match[0].replace(mark, "").replace("\n" + " " * len(mark), "\n"),
        text,
    )


def pieces(code: str) -> Iterator[tuple[str, str]]:
    """Each comment and the declarations that it stands before, at the level of the namespace."""
    comment: list[str] = []
    declaration: list[str] = []
    depth = 0
    for line in [*code.splitlines(), ""]:
        outside = depth == 0 and not line.startswith(" ")
        if outside and declaration and (not line or line.startswith("//")):
            yield "\n".join(comment), "\n".join(declaration)
            comment, declaration = [], []
        if outside and line.startswith("//"):
            comment.append(line.removeprefix("//").removeprefix(" "))
        elif line or depth:
            declaration.append(line)
        elif comment:  # a comment of its own: what follows is another
            yield "\n".join(comment), ""
            comment = []
        depth += len(re.findall(r"[{(]", line.split("//")[0])) - len(
            re.findall(r"[})]", line.split("//")[0])
        )


def prose(comment: str) -> str:
    """A comment as Markdown; what is indented in it stays as it stands."""
    out, in_code = [], False
    for line in comment.splitlines():
        is_code = line.startswith("  ") or (in_code and not line)
        if is_code != in_code:
            out.append("```text" if is_code else "```")
            in_code = is_code
        title = re.fullmatch(r"-{4} (.*?) -+", line)
        escaped = "".join(
            part if i % 2 else re.sub(r"([*_<>\[\]])", r"\\\1", part)
            for i, part in enumerate(re.split(r"(`[^`]*`)", line))
        )
        out.append(line if is_code else f"### {title[1]}" if title else escaped)
    return "\n".join([*out, "```"] if in_code else out).replace("\n\n```\n", "\n```\n\n")


def section(header: Path) -> str:
    name = header.name.removesuffix(".in")
    text = header.read_text(encoding="utf-8")
    opening, rest = text.split("#pragma once", 1)
    opening = "\n".join(line.removeprefix("//").removeprefix(" ") for line in opening.splitlines())
    macros = re.findall(r"^#define (BPTT_VERSION\w*)", rest, re.MULTILINE)
    inside = rest.split("namespace bptt {", 1)[1].rsplit("}  // namespace bptt", 1)[0]
    code = without_marks(without_private(without_bodies(inside)))
    out = [f"## bptt/{name}", prose(opening.strip())]
    if macros:
        out.append("Macros: " + ", ".join(f"`{macro}`" for macro in macros) + ".")
    for comment, declaration in pieces(code):
        out += [prose(comment)] if comment else []
        out += [f"```cpp\n{declaration.strip()}\n```"] if declaration.strip() else []
    return "\n\n".join(out) + "\n"


def page() -> str:
    headers = sorted(
        (path for path in HEADERS.iterdir() if path.name != "bptt.hpp"), key=lambda path: path.name
    )
    text = INTRODUCTION + "`bptt/bptt.hpp` includes all of them:\n"
    for header in headers:
        name = header.name.removesuffix(".in")
        text += f"[{name}](#bptt{name.replace('.', '')}),\n"
    return text.rstrip(",\n") + ".\n\n" + "\n".join(section(header) for header in headers)


def main() -> int:
    made = page()
    if "--check" in sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == made
        print(f"{PAGE.name}: {'is' if same else 'IS NOT'} what the headers say")
        return 0 if same else 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
