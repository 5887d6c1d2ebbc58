"""What all tests share: how hypothesis draws, and a few fixtures."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

# No deadline: a shared machine is sometimes slow. In CI the same examples are drawn every time.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than some seconds")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20130522)


@pytest.fixture
def threads() -> Iterator[None]:
    """For a test that sets the number of threads: it is afterwards what it was before."""
    import bptt

    before = bptt.get_num_threads()
    yield
    bptt.set_num_threads(before)
