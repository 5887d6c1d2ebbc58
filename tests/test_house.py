"""The house holds itself to its rules: who may know whom, one version, files of one reading."""

import ast
import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bptt
from bptt import _core

ROOT = Path(__file__).parents[1]
CPP = ROOT / "cpp"
PYTHON = ROOT / "python" / "bptt"


# ---- C++: who includes whom ----------------------------------------------------------------------

# One way only; the first line that matches a file counts. Patterns are of what stands in quotes.
MAY_INCLUDE = {
    "include/bptt/types.hpp": [],
    "include/bptt/bptt.hpp": ["bptt/*"],
    "include/bptt/ledger.hpp": ["bptt/recurrent.hpp"],
    "include/bptt/layers.hpp": ["bptt/optim.hpp", "bptt/recurrent.hpp"],
    "include/bptt/model_io.hpp": ["bptt/layers.hpp"],
    "include/bptt/model_stream.hpp": ["bptt/handover.hpp", "bptt/layers.hpp"],
    "include/bptt/truncation.hpp": ["bptt/layers.hpp", "bptt/losses.hpp"],
    "include/bptt/*": ["bptt/types.hpp"],
    "examples/*": ["bptt/*", "training.hpp"],
    "bindings/*": ["bptt/*", "bind.hpp", "numpy.hpp", "reduction.hpp", "tape.hpp"],
    "src/kernels/cells/*": [
        "kernels/cells/cell.hpp",
        "kernels/elementary.hpp",
        "kernels/nonlinearities.hpp",
    ],
    "src/kernels/nonlinearities.hpp": ["kernels/elementary.hpp"],
    "src/kernels/products.hpp": ["kernels/coming.hpp"],
    "src/kernels/coming.hpp": ["kernels/vector.hpp"],
    "src/kernels/elementary.hpp": ["kernels/vector.hpp"],
    "src/kernels/vector.hpp": ["kernels/common.hpp"],
    "src/kernels/table.hpp": ["bptt/types.hpp"],
    "src/kernels/*": ["kernels/*", "bptt/types.hpp", "memory.hpp", "runtime.hpp"],
    "src/runtime.cpp": ["bptt/*", "meetings.hpp", "memory.hpp", "runtime.hpp"],
    "src/meetings.hpp": [],
    "src/arrays.hpp": ["bptt/types.hpp"],
    "src/validate.hpp": ["bptt/*"],
    "src/validate_layers.hpp": ["bptt/*", "validate.hpp"],
    "src/validate_models.hpp": ["bptt/*", "validate_layers.hpp"],
    "src/json.*": ["json.hpp"],
    "src/files.*": ["files.hpp"],
    "src/safetensors.*": ["bptt/*", "json.hpp", "safetensors.hpp", "validate.hpp"],
    "src/model_io.cpp": ["bptt/*", "files.hpp", "json.hpp", "safetensors.hpp", "validate*.hpp"],
    "src/rtneural.cpp": ["bptt/*", "files.hpp", "rtneural.hpp"],
    "src/rtneural.hpp": ["bptt/*", "json.hpp", "validate_models.hpp"],
    "src/rtneural_*": ["arrays.hpp", "rtneural.hpp"],
    "src/calls.*": ["bptt/*", "calls.hpp", "dispatch.hpp"],
    "src/recurrent.cpp": ["bptt/*", "arrays.hpp", "calls.hpp", "dispatch.hpp", "validate.hpp"],
    "src/stack.cpp": ["bptt/*", "calls.hpp", "dispatch.hpp", "validate_layers.hpp"],
    "src/dispatch.*": ["bptt/*", "dispatch.hpp", "kernels/table.hpp"],
    "src/*": ["bptt/*", "arrays.hpp", "validate*.hpp", "dispatch.hpp", "memory.hpp", "runtime.hpp"],
}

# What stands in angle brackets and is not of the standard library, and who alone may include it.
ONLY_IN = {
    "Eigen/*": ["src/kernels/vector.hpp"],
    "omp.h": ["src/kernels/threads.hpp"],
    "pybind11/*": ["bindings/numpy.hpp"],
    "immintrin.h": ["src/kernels/threads.hpp"],
    "sched.h": ["src/kernels/threads.hpp", "src/runtime.cpp"],
    "unistd.h": ["src/files.cpp"],
    "pthread.h": ["src/runtime.cpp"],
    "sys/mman.h": ["src/memory.cpp"],
}

# Kernels are compiled once per instruction set: of the standard library they use types only, so
# that no function of one set can be linked into another's place.
STANDARD_IN_KERNELS = {"cstddef", "cstdint", "new", "type_traits"}

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def cpp_files() -> list[str]:
    files = (p for p in CPP.rglob("*") if p.suffix in (".hpp", ".cpp"))
    return sorted(p.relative_to(CPP).as_posix() for p in files)


def includes(file: str) -> tuple[list[str], list[str]]:
    """What a file includes in quotes and in angle brackets."""
    found = INCLUDE.findall((CPP / file).read_text(encoding="utf-8"))
    return [quoted for quoted, _ in found if quoted], [angled for _, angled in found if angled]


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@pytest.mark.parametrize("file", cpp_files())
def test_who_includes_whom(file: str) -> None:
    allowed = next(may for who, may in MAY_INCLUDE.items() if fnmatchcase(file, who))
    quoted, angled = includes(file)
    for name in quoted:
        assert matches(name, allowed), f"{file} may not include {name}"
    for name in angled:
        if re.fullmatch(r"[a-z_]+", name):  # the standard library's
            in_kernels = file.startswith("src/kernels/")
            assert not in_kernels or name in STANDARD_IN_KERNELS, f"{file} may not include {name}"
        else:
            alone = [who for pattern, who in ONLY_IN.items() if fnmatchcase(name, pattern)]
            assert alone, f"{file} includes {name}: say in ONLY_IN who may"
            assert file in alone[0], f"{file} may not include {name}"


def test_only_the_list_of_cells_knows_the_cells() -> None:
    for file in cpp_files():
        of_cells = [n for n in includes(file)[0] if fnmatchcase(n, "kernels/cells/*")]
        if file != "src/kernels/kernels.cpp":
            assert of_cells in ([], ["kernels/cells/cell.hpp"]), file
    assert len([n for n in includes("src/kernels/kernels.cpp")[0] if "/cells/" in n]) >= 3


def test_includes_have_no_circle() -> None:
    folders = ("include", "src", "bindings", "examples")

    def resolve(name: str) -> str:
        made = f"include/{name}.in"  # by CMake
        found = [f"{folder}/{name}" for folder in folders if (CPP / folder / name).exists()]
        return found[0] if found or not (CPP / made).exists() else made

    graph = {file: {resolve(name) for name in includes(file)[0]} for file in cpp_files()}
    assert list(TopologicalSorter(graph).static_order())


# ---- Python: who imports whom --------------------------------------------------------------------

# One way only: every module names what it may import of bptt.
MAY_IMPORT = {
    "_core": set(),
    "_validate": set(),
    "runtime": {"_core", "_validate"},
    "functions": {"_core", "_validate"},
    "losses": {"_core", "_validate"},
    "optim": {"_core", "_validate"},
    "io": {"_validate"},
    "plot": {"io"},
    "layers.base": {"_validate"},
    "layers.dense": {"_core", "_validate", "layers.base"},
    "layers.recurrent": {"_core", "_validate", "functions", "layers.base"},
    "layers.sequential": {"_validate", "layers.base"},
    "init": {"_validate", "layers", "layers.recurrent"},
    "convert": {"_validate", "layers", "layers.base", "layers.recurrent"},
    "layers": {"layers.base", "layers.dense", "layers.recurrent", "layers.sequential"},
    "stream": {"_core", "_validate", "layers", "layers.base"},
    "schedule": {"_validate", "layers", "layers.base", "losses", "states"},
    "lr": {"_validate"},
    "metrics": set(),
    "paths": set(),
    "average": {"_validate", "layers"},
    "history": {"_validate"},
    "data": {"_validate", "layers", "layers.base", "losses", "schedule", "states"},
    "callbacks": {"_validate", "dynamics", "history", "layers", "progress"},
    "progress": {"data", "history", "schedule"},
    "configuration": {"layers"},
    "checkpoint": {
        "_validate",
        "average",
        "callbacks",
        "configuration",
        "history",
        "io",
        "layers",
        "layers.base",
        "lr",
        "optim",
        "schedule",
    },
    "trainer": {
        "_validate",
        "average",
        "callbacks",
        "checkpoint",
        "configuration",
        "data",
        "history",
        "layers",
        "losses",
        "lr",
        "optim",
        "progress",
        "schedule",
    },
    "states": {"layers", "layers.base"},
    "truncation": {"_validate", "layers", "layers.base", "losses", "optim", "schedule", "states"},
    "plan": {"_validate"},
    "longsequence": {
        *("_core", "_validate", "layers", "layers.base", "losses"),
        *("plan", "schedule", "states"),
    },
    "dynamics": {"_validate", "layers", "layers.base", "states"},
    "flow.stages": {"_core", "layers", "layers.recurrent"},
    "flow.pictures": {"io"},
    "flow.report": set(),
    "flow.result": {"_validate", "flow.pictures", "flow.report"},
    "flow.lags": {"_core", "flow.result", "flow.stages"},
    "flow.measure": {
        "_core",
        "_validate",
        "flow.lags",
        "flow.result",
        "flow.stages",
        "layers",
        "layers.base",
        "losses",
    },
    "flow": {"flow.measure", "flow.result"},
    "models": {"_validate", "io", "layers"},
    "charmodel": {"flow", "layers", "losses", "models", "optim", "schedule", "trainer"},
    "bench": {"layers", "layers.base", "runtime"},
    "cli": {"bench", "charmodel", "io", "plot", "runtime"},
    "__main__": {"cli"},
    "": {
        *("_core", "average", "callbacks", "convert", "data", "dynamics", "flow", "functions"),
        *("init", "io", "layers", "longsequence", "losses", "lr", "metrics", "models", "optim"),
        *("paths", "plan", "runtime", "schedule", "stream", "trainer", "truncation"),
    },
}


def modules() -> dict[str, Path]:
    """Every module of the package by its name within it; the package itself is ""."""
    found = {}
    for path in [*PYTHON.rglob("*.py"), *PYTHON.rglob("*.pyi")]:
        parts = path.relative_to(PYTHON).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """The modules of bptt that a file imports, wherever in it that stands."""
    known = modules()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n if n.removeprefix("bptt.") in known else str(node.module) for n in whole]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "bptt":
                yield name.removeprefix("bptt").removeprefix(".")


def test_every_module_says_whom_it_may_import() -> None:
    assert set(modules()) == set(MAY_IMPORT)
    assert list(TopologicalSorter(MAY_IMPORT).static_order())


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_who_imports_whom(module: str) -> None:
    imported = set(imports(modules()[module]))
    assert imported <= MAY_IMPORT[module]
    # What is allowed and not used would soon be wrong.
    assert MAY_IMPORT[module] <= imported


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests").glob("reference*.py")), ids=lambda p: p.name
)
def test_the_reference_is_numpys_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    standard = {"__future__", "collections.abc", "dataclasses", "typing"}
    own = {p.stem for p in path.parent.glob("reference*.py")}
    assert imported <= standard | own | {"numpy", "numpy.typing"}


# ---- the stub of the compiled module -------------------------------------------------------------


def stub() -> dict[str, ast.stmt]:
    tree = ast.parse((PYTHON / "_core.pyi").read_text(encoding="utf-8"))
    named = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    variables = {
        n.target.id: n
        for n in tree.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    return named | variables


def test_the_stub_names_what_the_module_has() -> None:
    public = {name for name in dir(_core) if not name.startswith("_")}
    assert set(stub()) == public | {"__version__"}


@pytest.mark.parametrize(
    "name", [name for name, node in stub().items() if isinstance(node, ast.FunctionDef)]
)
def test_the_stubs_arguments_are_the_modules(name: str) -> None:
    node = stub()[name]
    assert isinstance(node, ast.FunctionDef)
    # pybind11 begins a docstring with the signature.
    signature = re.match(rf"{name}\((.*)\) -> ", getattr(_core, name).__doc__)
    assert signature is not None
    assert re.findall(r"(\w+): ", signature[1]) == [a.arg for a in node.args.args]


def test_the_stubs_classes_are_the_modules() -> None:
    for name, node in stub().items():
        if isinstance(node, ast.ClassDef):
            members = {n.name for n in node.body if isinstance(n, ast.FunctionDef)} - {"__init__"}
            public = {n for n in vars(getattr(_core, name)) if not n.startswith("_")}
            assert members == public, name


# ---- one version, short files --------------------------------------------------------------------


def test_the_version_is_the_same_everywhere_and_stands_once() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "([^"]+)"$', text, re.MULTILINE)
    assert bptt.__version__ == version
    assert _core.__version__ == version
    with suppress(importlib.metadata.PackageNotFoundError):  # a build that is not installed
        assert importlib.metadata.version("bptt") == version
    sources = [p for p in [*CPP.rglob("*"), *PYTHON.rglob("*.py*")] if p.is_file()]
    for path in [*sources, ROOT / "CMakeLists.txt"]:
        if "__pycache__" not in path.parts:
            assert version not in path.read_text(encoding="utf-8"), path


def test_no_file_is_longer_than_500_lines() -> None:
    suffixes = {".py", ".pyi", ".hpp", ".cpp", ".cmake", ".in", ".txt", ".sh"}
    for folder in ("cpp", "python", "tests", "benchmarks", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes:
                lines = len(path.read_text(encoding="utf-8").splitlines())
                assert lines <= 500, f"{path.relative_to(ROOT)} has {lines} lines"
