"""What tests of all kinds share."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.image.store import ImageStore

BUILD_LIMIT = 900.0
"""Seconds that building the base image may take where nothing is downloaded yet."""


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
