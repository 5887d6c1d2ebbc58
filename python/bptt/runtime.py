"""Threads and instruction sets of the compiled core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bptt import _core, _validate
from bptt._core import get_num_threads, instruction_set, supported_instruction_sets

__all__ = [
    "get_num_threads",
    "instruction_set",
    "num_threads",
    "set_num_threads",
    "supported_instruction_sets",
]


def set_num_threads(threads: int) -> None:
    """How many threads a call may use at most, 1 to 1024. Results have the same bits for all.

    At first it is what OMP_NUM_THREADS says, else the number of processors that the process may
    run on. It holds for the whole process. Raises `TypeError` for what is no integer, `ValueError`
    for an integer out of range.
    """
    _core.set_num_threads(_validate.size("set_num_threads", "threads", threads))


@contextmanager
def num_threads(threads: int) -> Iterator[None]:
    """`with bptt.num_threads(2): ...` sets the number of threads and puts the old one back.

    It holds for the whole process, as `set_num_threads`, and has its errors.
    """
    before = get_num_threads()
    set_num_threads(threads)
    try:
        yield
    finally:
        set_num_threads(before)
