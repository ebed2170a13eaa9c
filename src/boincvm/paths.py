"""Where boincvm keeps its things: where the system has programs keep theirs (host/users.py).

`BOINCVM_HOME`, if set, holds all of it beneath one directory. Directories that are not this user's
own, or that others can write to, are refused (own_files.py).
"""

import os
from collections.abc import Callable
from pathlib import Path

from boincvm.host.own_files import check_directory
from boincvm.host.users import cache_home, data_home


def _directory(root: Callable[[], Path], own: str) -> Path:
    """Raises RuntimeError: this user has no home directory; HostError."""
    home = os.environ.get("BOINCVM_HOME")
    if home:
        # Not `resolve`: it would ask for every link.
        return check_directory(check_directory(Path(home).absolute()) / own)
    return check_directory(root() / "boincvm")


def data_directory() -> Path:
    """Images: kept until somebody removes them."""
    return _directory(data_home, "data")


def cache_directory() -> Path:
    """What can be made again: downloaded packages, the acceleration probe's verdict."""
    return _directory(cache_home, "cache")


def runs_directory() -> Path:
    """One directory a run, mode 0700, gone when the run ends."""
    return check_directory(cache_directory() / "runs")


def controller_directory() -> Path:
    """The controller's own, mode 0700: its sockets, its token, its machines and what it knows."""
    return check_directory(data_directory() / "controller")
