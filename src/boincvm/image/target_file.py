"""The check of a file that an image is written to."""

from pathlib import Path

from boincvm.errors import UsageError


def check_target(path: Path, *, force: bool) -> None:
    """Raise UsageError if `path` exists; `force` allows that if it is a file."""
    if path.exists() and not (force and path.is_file()):
        raise UsageError(
            f"{path} already exists",
            hint="name another file" + (", or give --force" if path.is_file() else ""),
        )
