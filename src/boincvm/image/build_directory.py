"""A directory for one build, which a later build removes if this one is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boincvm.host.held_directories import abandoned, make_held, remove_held


@contextmanager
def build_directory(builds: Path) -> Iterator[Path]:
    """Make a directory for one build, and first remove those that killed builds left behind."""
    remove_killed_builds(builds)
    directory, held = make_held(builds)
    try:
        yield directory
    finally:
        remove_held(directory)
        os.close(held)


def remove_killed_builds(builds: Path) -> int:
    """Remove the directories of builds that were killed; return how many. Raises OSError."""
    count = 0
    for stale in abandoned(builds):
        with suppress(OSError):  # a file in it may be another user's
            remove_held(stale)
            count += 1
    return count
