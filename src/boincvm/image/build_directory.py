"""A directory for one build, which a later build removes if this one is killed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.host import locks


@contextmanager
def build_directory(builds: Path) -> Iterator[Path]:
    """Make a directory for one build, and first remove those that killed builds left behind."""
    builds.mkdir(parents=True, exist_ok=True)
    for stale in builds.glob("*.lock"):
        _remove_stale(stale)
    descriptor, lock = tempfile.mkstemp(suffix=".lock", dir=builds)
    try:
        locks.try_lock(descriptor)
        directory = Path(lock).with_suffix("")
        directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            shutil.rmtree(directory)
            Path(lock).unlink()
    finally:
        os.close(descriptor)


def _remove_stale(lock: Path) -> None:
    """Remove a build's directory unless its lock shows that the build is still running."""
    try:
        stream = lock.open("rb")
    except FileNotFoundError:
        return
    with stream:
        if locks.try_lock(stream.fileno()):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
