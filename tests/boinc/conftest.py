"""A rig a test: the real client, and nothing left of it afterwards."""

import fcntl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from boincvm.image.store import ImageStore
from support.boinc.installed import WRAPPER
from support.boinc.layout import Preferences, Work
from support.boinc.rig import MakeRig, Rig

BUILD_LIMIT = 900.0
"""Seconds, as for the base image."""


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    """Makes rigs, each not yet started; takes what `Rig` takes after its directory."""
    rigs: list[Rig] = []

    def make(
        work: Work,
        *,
        preferences: Preferences | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Rig:
        root = tmp_path / f"rig{len(rigs)}"
        rigs.append(Rig(root, work, preferences=preferences, environment=environment))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture(scope="session")
def sci_image(base_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the image with GMP-ECM, which is built where it is missing."""
    lock = tmp_path_factory.getbasetemp().parent / "boincvm-image.lock"
    build = ["image", "build", "--if-missing", "--package", "gmp-ecm", "sci"]
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        subprocess.run(
            [WRAPPER.with_name("boincvm"), *build],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=BUILD_LIMIT,
        )
    with ImageStore().open("sci") as image:
        return image.directory
