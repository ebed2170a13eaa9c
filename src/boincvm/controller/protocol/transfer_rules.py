"""The rules of file transfers that controller and guest share: names, sizes, errors."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boincvm import tree_entries
from boincvm.errors import DISK_FULL, HostDiskFullError, HostError, UsageError
from boincvm.guestlink.guest_paths import WORK
from boincvm.host.files import free_space
from boincvm.json_value import LARGEST, is_whole

PIECE = 64 << 10
"""Bytes of content in one message."""
MOST_MODE = 0o777
_LONGEST_PATH = 4000
_LONGEST_NAME = 255
_LONGEST_ID = 64
_DIGEST = 64


class Asked(NamedTuple):
    """A request to put a file, or a tree as a tar stream, into the guest."""

    path: str
    is_tree: bool
    mode: int
    """The file's mode."""
    size: int
    """Bytes of the content."""
    digest: str
    """BLAKE2b of the whole content, 256 bits in hexadecimal."""
    modified: int | None = None
    """When a file was modified, in nanoseconds since 1970; the tar stream has it for a tree."""


def guest_path(text: object) -> PurePosixPath:
    """Return a path relative to the guest's work directory. Raises UsageError.

    `/work/a` becomes `a`; any other absolute path is refused. The agent itself checks for links on
    the way.
    """
    path = guest_file(text)
    if path.is_absolute():
        raise UsageError(
            f"{str(path)[:100]!r} is not a path in the guest's {WORK}",
            hint=f"give one that is relative to {WORK}, without `..`",
        )
    return path


def guest_file(text: object) -> PurePosixPath:
    """Return the path of a file or tree anywhere in the guest. Raises UsageError.

    It is relative to the guest's work directory, where the agent reads and writes, or absolute and
    outside it.
    """
    if not isinstance(text, str):
        raise UsageError("a path in the guest must be a string")
    try:
        data = os.fsencode(text)
        path = PurePosixPath(text)
        if path.is_relative_to(WORK):
            path = path.relative_to(WORK)
        parts = tree_entries.components(os.fsencode(path).lstrip(b"/"))
    except ValueError:  # including UnsafePathError and UnicodeError
        parts = None
    if parts is None or (path.is_absolute() and not parts):
        raise UsageError(
            f"{text[:100]!r} is not a path in the guest",
            hint=f"give one that is relative to {WORK} or absolute, without `..`",
        )
    if len(data) > _LONGEST_PATH or any(len(part) > _LONGEST_NAME for part in parts):
        raise UsageError(f"a path in the guest is too long: {text[:100]!r}…")
    return path


def check_transfer_id(value: object) -> str:
    """Return a valid transfer id. Raises UsageError."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and value.isprintable():
        return value
    raise UsageError("a transfer's id is invalid", hint=f"1 to {_LONGEST_ID} printable characters")


def check_whole(table: Mapping[str, object], key: str, most: int = LARGEST) -> int:
    """Return the number from 0 to `most` under `key`. Raises UsageError."""
    value = table.get(key)
    if is_whole(value, most=most):
        return value
    raise UsageError(f"a transfer of files has no valid {key!r}")


def check_time(table: Mapping[str, object]) -> int | None:
    """Return when a file was modified, in nanoseconds since 1970; None if that is not given.

    Times that no system could set are clamped. Raises UsageError.
    """
    value = table.get("modified")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return tree_entries.clamp_time(value)
    raise UsageError("a transfer of files has no valid 'modified'")


def check_digest(value: object) -> str:
    """Return a valid digest. Raises UsageError."""
    if isinstance(value, str) and len(value) == _DIGEST and set(value) <= set("0123456789abcdef"):
        return value
    raise UsageError("a transfer of files has no valid digest")


def check_kind(value: object) -> bool:
    """Return True if a kind is "tree", False if it is "file". Raises UsageError."""
    if value in ("file", "tree"):
        return value == "tree"
    raise UsageError("what is sent must be a file or a tree")


def check_room(directory: Path, size: int) -> None:
    """Check that `size` bytes fit on the disk of `directory`. Raises HostDiskFullError."""
    if free_space(directory) < size:
        raise _disk_full()


@contextmanager
def as_host_errors() -> Iterator[None]:
    """Turn OSError into HostDiskFullError or HostError, in the block."""
    try:
        yield
    except OSError as error:
        if error.errno in (*DISK_FULL, errno.EFBIG):
            raise _disk_full() from error
        raise HostError(
            f"the host cannot store a file in transit: {error.strerror or error}",
            hint="check the disk that holds boincvm's data",
        ) from error


def _disk_full() -> HostDiskFullError:
    return HostDiskFullError(
        "the host's disk is full: no room for a file in transit",
        hint="free some space and send it again",
    )


def open_up(top: Path, *, files: int, directories: int) -> None:
    """Add these bits to the modes of everything at `top`, except links. Raises OSError.

    Nobody else may be able to write there.
    """
    mode = top.lstat().st_mode
    if stat.S_ISLNK(mode):
        return
    wanted = directories if stat.S_ISDIR(mode) else files
    if mode & wanted != wanted:
        top.chmod(stat.S_IMODE(mode) | wanted)
    if stat.S_ISDIR(mode):
        for child in sorted(top.iterdir()):
            open_up(child, files=files, directories=directories)


def remove(top: Path) -> None:
    """Remove everything at `top`, whatever its modes, if it exists. Raises OSError."""
    import shutil

    while os.path.lexists(top):
        try:
            open_up(top, files=0, directories=0o700)
            if top.is_dir() and not top.is_symlink():
                shutil.rmtree(top)
            else:
                top.unlink()
        except FileNotFoundError:
            continue  # something else was removing a part of it
