"""What tests of all kinds share."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from boincvm.host.inherited import reset_inherited_state
from boincvm.image.store import ImageStore
from support.bench import Bench

# The tests' programs begin as from a terminal, though the tests may not: `nohup make test &`.
reset_inherited_state()

# Tests boot their machines, and nothing is made behind their backs; those of golden snapshots
# say otherwise.
os.environ["BOINCVM_GOLDEN"] = "no"

# How long an example takes says something of the host alone.
settings.register_profile("boincvm", deadline=None)
settings.load_profile("boincvm")

BUILD_LIMIT = 900.0
"""Seconds that building the base image may take where nothing is downloaded yet."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first: the image of scientists' packages, while others run."""
    items.sort(key=lambda item: item.path.name != "test_image_science.py")


@pytest.fixture(scope="session")
def base_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the base image, which is built where it is missing or out of date."""
    # One for all workers of pytest-xdist: their base directories have a common parent.
    lock = tmp_path_factory.getbasetemp().parent / "boincvm-image.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        subprocess.run(
            [sys.executable, "-m", "boincvm.cli.main", "image", "build", "--if-missing", "base"],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=BUILD_LIMIT,
        )
    with ImageStore().open("base") as image:
        return image.directory


@pytest.fixture
def kernel(base_image: Path) -> Path:
    """The base image's kernel."""
    return base_image / "kernel"


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
