"""Images that tests use, with golden snapshots for the machines that most of them start."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.image.store import ImageStore
from support.image_home import boincvm_image

BUILD_LIMIT = 900.0
"""Seconds that building an image may take if nothing is downloaded yet."""


def ready_image(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    *,
    packages: Iterable[str] = (),
    shapes: Iterable[tuple[str, ...]] = (),
    architecture: str = "amd64",
    limit: float = BUILD_LIMIT,
) -> Path:
    """Return the image's directory; build it if it is missing or out of date.

    `shapes`: options of `image warm`. Machines of these shapes, and no others, start from golden
    snapshots afterwards. All tests together may have six, which is how many are kept.
    """
    named = [word for package in packages for word in ("--package", package)]
    with alone(tmp_path_factory, name):
        for arguments in (
            ["build", "--if-missing", "--architecture", architecture, *named, name],
            *(["warm", *shape, name] for shape in shapes),
        ):
            subprocess.run(
                [sys.executable, "-m", "boincvm.cli.main", "image", *arguments],
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=limit,
            )
    with ImageStore().open(name) as image:
        return image.directory


@contextmanager
def alone(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[None]:
    """Keep other workers of pytest-xdist from building this image."""
    # Their base directories have a common parent.
    with (tmp_path_factory.getbasetemp().parent / f"image-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def earlier_digest(
    tmp_path_factory: pytest.TempPathFactory, digest: str, name: str, packages: Iterable[str]
) -> str:
    """Return the digest of an earlier build with these packages, which is kept under `name`.

    If it is not `digest`, Debian's packages or the host's tools may have changed since; so it is
    built again.
    """
    packages = tuple(packages)
    if ready_image(tmp_path_factory, name, packages=packages).name == digest:
        return digest
    options = [word for package in packages for word in ("--package", package)]
    return str(boincvm_image(dict(os.environ), "build", *options, name)["digest"])
