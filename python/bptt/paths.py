"""Where the C++ library that this package holds is to be found, for applications without Python."""

from __future__ import annotations

from pathlib import Path

__all__ = ["get_cmake_dir", "get_include"]

_PACKAGE = Path(__file__).resolve().parent


def get_include() -> str:
    """The folder of the C++ headers: what `#include "bptt/bptt.hpp"` starts from."""
    return str(_PACKAGE / "include")


def get_cmake_dir() -> str:
    """The folder of bpttConfig.cmake: `cmake -Dbptt_DIR=...` finds `bptt::bptt` there."""
    return str(_PACKAGE / "lib" / "cmake" / "bptt")
