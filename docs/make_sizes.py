"""Measures what bptt weighs in a C++ application, and writes the table of docs/embedding.md.

    python docs/make_sizes.py "COLUMN=PREFIX" ...

Each PREFIX is where a static bptt is installed, COLUMN what stands above its numbers: the sets that
it was compiled for. The programs below are linked with it and stripped.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).with_name("embedding.md")

START = "#include <bptt/bptt.hpp>\nint main(int count, char** arguments) {\n"
LAYER = "const auto layer = bptt::make_recurrent<float>(bptt::Cell::lstm, 1, 16);\n"
STREAM = """const auto& row = layer.rows[0];
bptt::Stream<float> stream(layer.cell, {row.weight_ih, row.weight_hh, row.bias_ih, row.bias_hh});
const float x = static_cast<float>(count);
return stream.step(&x)[0] > 0;
}"""
RUN = """bptt::ModelStream<float> stream(model);
const float x = static_cast<float>(count);
return stream.step(&x)[0] > 0;
}"""
PROGRAMS = {
    "`Stream`: a step of one layer": START + "(void)arguments;\n" + LAYER + STREAM,
    "`load_model`, `ModelStream`": START
    + "const auto model = bptt::load_model<float>(arguments[1]).model;\n"
    + RUN,
    "`load_rtneural`, `ModelStream`": START
    + "const auto model = bptt::load_rtneural<float>(arguments[1]);\n"
    + RUN,
    "the example above, which trains": "",  # the page's own
}

CMAKE = """cmake_minimum_required(VERSION 3.21)
project(sizes LANGUAGES CXX)
find_package(bptt CONFIG REQUIRED)
foreach(i RANGE {last})
  add_executable(program_${{i}} program_${{i}}.cpp)
  target_link_libraries(program_${{i}} PRIVATE bptt::bptt)
  target_link_options(program_${{i}} PRIVATE -s LINKER:--gc-sections)
endforeach()
"""


def sizes(prefix: str, example: str) -> list[float]:
    """Of each program, in megabytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "CMakeLists.txt").write_text(CMAKE.format(last=len(PROGRAMS) - 1))
        for i, text in enumerate(PROGRAMS.values()):
            (folder / f"program_{i}.cpp").write_text(text or example)
        build = folder / "build"
        options = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={prefix}"]
        subprocess.run(["cmake", "-S", folder, "-B", build, *options], check=True)
        subprocess.run(["cmake", "--build", build], check=True)
        return [(build / f"program_{i}").stat().st_size / 1e6 for i in range(len(PROGRAMS))]


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    example = page.split("```cpp\n", 1)[1].split("```", 1)[0]
    columns = {}
    for argument in sys.argv[1:]:
        name, prefix = argument.split("=", 1)
        columns[name] = sizes(prefix, example)
    lines = [f"| MB | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for i, program in enumerate(PROGRAMS):
        lines.append(f"| {program} | {' | '.join(f'{c[i]:.2f}' for c in columns.values())} |")
    table = "<!-- sizes -->\n" + "\n".join(lines) + "\n<!-- end -->"
    page, found = re.subn(r"<!-- sizes -->.*<!-- end -->", lambda _: table, page, flags=re.DOTALL)
    assert found == 1, "the page has lost its table"
    PAGE.write_text(page, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
