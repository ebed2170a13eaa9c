"""Fixtures of the tests that boot real machines."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench


@pytest.fixture
def bench(base_image: Path, tmp_path: Path) -> Iterator[Bench]:
    """An empty place to run in; after the test nothing of any run may be left there."""
    bench = Bench(tmp_path / "bench")
    try:
        yield bench
        left = bench.left_overs()
    finally:
        bench.stop_all()
    assert left == []
