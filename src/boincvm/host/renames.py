"""Renaming and removing files that another process may hold open for a moment.

On Windows a file that a virus scanner or an indexer reads can often be neither replaced nor
removed until that has closed it; it is tried again, unless the error is one that stays.
"""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from boincvm.host.patience import patiently

_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION = 5, 32, 33


def replace(source: str | Path, target: str | Path) -> None:
    """Rename `source` to `target`, in place of a file that has that name. Raises OSError."""
    _when_free(
        lambda: os.replace(source, target),  # noqa: PTH105 - MoveFileEx, which replaces
        target,
    )


def rename(source: Path, target: Path) -> None:
    """Rename `source`, which may be a directory. Raises OSError."""
    _when_free(lambda: source.rename(target))


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises OSError."""
    _when_free(lambda: path.unlink(missing_ok=True), path)


def _when_free(action: Callable[[], object], file: str | Path | None = None) -> None:
    """Do `action` until nobody holds its files open; `file` is the one that it removes, if any."""
    if sys.platform != "win32":
        action()
    else:
        busy = (_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION)
        patiently(action, lambda error: error.winerror in busy and not _stays(file))


def _stays(file: str | Path | None) -> bool:
    """Tell whether Windows never lets a file be removed: it is read-only, or a directory."""
    if sys.platform == "win32" and file is not None:
        try:
            attributes = os.lstat(file).st_file_attributes
        except OSError:
            return False
        return bool(attributes & (stat.FILE_ATTRIBUTE_READONLY | stat.FILE_ATTRIBUTE_DIRECTORY))
    return False
