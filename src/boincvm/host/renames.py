"""Renaming and removing files that another process may hold open for a moment.

On Windows a file that a virus scanner or an indexer reads can often be neither replaced nor
removed until that has closed it; it is tried again for PATIENCE seconds, unless the error is one
that stays.
"""

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

PATIENCE = 2.0
"""Seconds."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION = 5, 32, 33


def replace(source: str | Path, target: str | Path) -> None:
    """Rename `source` to `target`, in place of a file that has that name. Raises OSError."""
    _patiently(
        lambda: os.replace(source, target),  # noqa: PTH105 - MoveFileEx, which replaces
        target,
    )


def rename(source: Path, target: Path) -> None:
    """Rename `source`, which may be a directory. Raises OSError."""
    _patiently(lambda: source.rename(target))


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises OSError."""
    _patiently(lambda: path.unlink(missing_ok=True), path)


def _patiently(action: Callable[[], object], file: str | Path | None = None) -> None:
    """Do `action` until nobody holds its files open; `file` is the one that it removes, if any."""
    if sys.platform != "win32":
        action()
    else:
        limit = time.monotonic() + PATIENCE
        pause = _FIRST_PAUSE
        while True:
            try:
                action()
            except PermissionError as error:
                busy = (_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION)
                if error.winerror not in busy or _stays(file) or time.monotonic() >= limit:
                    raise
            else:
                return
            Event().wait(pause)  # Windows tells nobody when a file becomes free
            pause = min(2 * pause, _LONGEST_PAUSE)


def _stays(file: str | Path | None) -> bool:
    """Tell whether Windows never lets a file be removed: it is read-only, or a directory."""
    if sys.platform == "win32" and file is not None:
        try:
            attributes = os.lstat(file).st_file_attributes
        except OSError:
            return False
        return bool(attributes & (stat.FILE_ATTRIBUTE_READONLY | stat.FILE_ATTRIBUTE_DIRECTORY))
    return False
