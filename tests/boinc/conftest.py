"""Provide a rig for each test: the real client, of which nothing is left afterwards."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from boincvm.boinc.client_directory import Preferences, Work
from support.boinc.rig import MakeRig, Rig
from support.images import ready_image


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    """Yield a function that makes rigs, not yet started, from the arguments of `Rig` after its
    directory."""
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
    """Return the directory of the image with GMP-ECM, which is built if it is missing."""
    return ready_image(tmp_path_factory, "sci", packages=["gmp-ecm"], shapes=[("--balloon",)])
