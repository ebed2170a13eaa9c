"""Files and directories that boincvm keeps for itself: used only if nobody else can have made them.

What lies in the cache and in the data directory is believed: which accelerator works, which image
was found sound, where a machine is in its life. So it must be this user's own (or root's, who may
do everything anyway), and nobody else may be able to write to it.
"""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

_ROOT = 0
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_MAY_PASS = stat.S_IXGRP | stat.S_IXOTH


def check_directory(path: Path) -> Path:
    """`path`, which need not exist. Raises HostError where it is a directory that is not this
    user's own, or that others can write to."""
    try:
        link, status = path.lstat(), path.stat()
    except OSError:
        return path  # whoever wants something in it hears why not
    for one in (link, status):
        _check(path, one)
    return path


def open_own(path: Path) -> FileIO:
    """The regular file `path`, for reading; no link is followed, nothing waited for.

    Raises OSError, and HostError where it is not this user's own, or others can write to it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path.name} is no regular file")
        _check(path, status)
    except BaseException:
        os.close(descriptor)
        raise
    return FileIO(descriptor)


def make_directory(path: Path) -> None:
    """Makes the directory `path`, and those above that are missing, for this user alone. Raises
    OSError."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


def _check(path: Path, status: os.stat_result) -> None:
    ours = os.geteuid()
    if status.st_uid not in (ours, _ROOT):
        from boincvm.errors import HostError

        raise HostError(
            f"{path} is not used: it belongs to {_name(status.st_uid)}, and this is {_name(ours)}",
            hint=(
                "with sudo give -H, or do without sudo: boincvm needs no root; or set BOINCVM_HOME"
                " to a directory of root's own"
            )
            if ours == 0
            else "set BOINCVM_HOME to a directory of your own",
        )
    is_writable = status.st_mode & _OTHERS_MAY_WRITE and not stat.S_ISLNK(status.st_mode)
    if is_writable and _is_reachable(path):
        from boincvm.errors import HostError

        raise HostError(
            f"{path} is not used: others than {_name(ours)} can write to it",
            hint=f"see that it holds nothing of theirs, then: chmod go-w '{path}'",
        )


def _is_reachable(path: Path) -> bool:
    """Whether no directory above, where it really lies, keeps others out."""
    for directory in Path(os.path.realpath(path)).parents:
        status = directory.stat()
        if status.st_uid in (os.geteuid(), _ROOT) and not status.st_mode & _OTHERS_MAY_PASS:
            return False
    return True


def _name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
