"""Threads and instruction sets of the compiled core."""

from __future__ import annotations

from bptt import _core, _validate
from bptt._core import get_num_threads, instruction_set, supported_instruction_sets

__all__ = ["get_num_threads", "instruction_set", "set_num_threads", "supported_instruction_sets"]


def set_num_threads(threads: int) -> None:
    """How many threads a call may use at most, 1 to 1024. Results have the same bits for all."""
    _core.set_num_threads(_validate.size("set_num_threads", "threads", threads))
