"""A directory for one build, which a later build removes if this one is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from boincvm.host.held_directories import abandoned, make_held, remove_held
from boincvm.image.progress import Progress


@contextmanager
def build_directory(builds: Path, progress: Progress | None = None) -> Iterator[Path]:
    """Make a directory for one build, and first remove those that killed builds left behind.

    progress: shows the removal of the build's own, which takes seconds if it has many files.
    """
    remove_killed_builds(builds)
    directory, held = make_held(builds)
    step = "cleaning up"
    try:
        yield directory
        step = "removing temporary files"
    finally:
        with nullcontext() if progress is None else progress.step(step):
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
