"""Ownership and write access of files on Linux and macOS; import it through `own_files`."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

assert sys.platform != "win32"

_ROOT = 0
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_MAY_PASS = stat.S_IXGRP | stat.S_IXOTH


def check_owner(path: Path, status: os.stat_result) -> None:
    """Raise HostError if `path` is not this user's own or others can write to it."""
    ours = os.geteuid()
    if status.st_uid not in (ours, _ROOT):
        from boincvm.errors import HostError
        from boincvm.host.users import user_name

        raise HostError(
            f"{path} is not used: it belongs to {user_name(status.st_uid)},"
            f" and this is {user_name(ours)}",
            hint=(
                "use sudo -H, or no sudo: boincvm needs no root; or set BOINCVM_HOME"
                " to a directory of root's own"
            )
            if ours == 0
            else "set BOINCVM_HOME to a directory of your own",
        )
    is_writable = status.st_mode & _OTHERS_MAY_WRITE and not stat.S_ISLNK(status.st_mode)
    if is_writable and _is_reachable(path):
        from boincvm.errors import HostError
        from boincvm.host.users import user_name

        raise HostError(
            f"{path} is not used: users other than {user_name(ours)} can write to it",
            hint=f"make sure that it holds nothing of theirs, then: chmod go-w '{path}'",
        )


def _is_reachable(path: Path) -> bool:
    """Tell whether others can reach `path`: no directory above its real place keeps them out."""
    for directory in Path(os.path.realpath(path)).parents:
        status = directory.stat()
        if status.st_uid in (os.geteuid(), _ROOT) and not status.st_mode & _OTHERS_MAY_PASS:
            return False
    return True
