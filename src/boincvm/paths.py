"""Where boincvm keeps its things, by the XDG base directory specification.

`BOINCVM_HOME`, if set, holds all of it beneath one directory. Directories that are not this user's
own, or that others can write to, are refused (own_files.py).
"""

import os
from pathlib import Path

from boincvm.host.own_files import check_directory


def _directory(variable: str, default: str, own: str) -> Path:
    """Raises RuntimeError: this user has no home directory; HostError."""
    home = os.environ.get("BOINCVM_HOME")
    if home:
        directory = check_directory(
            Path(home).absolute()
        )  # not `resolve`: it would ask for every link
        return check_directory(directory / own)
    root = os.environ.get(variable, "")
    if root.startswith("/"):
        return check_directory(Path(root) / "boincvm")
    user = Path("~").expanduser()
    if not user.is_absolute():
        raise RuntimeError("this user has no home directory")
    return check_directory(user / default / "boincvm")


def data_directory() -> Path:
    """Images: kept until somebody removes them."""
    return _directory("XDG_DATA_HOME", ".local/share", "data")


def cache_directory() -> Path:
    """What can be made again: downloaded packages, the acceleration probe's verdict."""
    return _directory("XDG_CACHE_HOME", ".cache", "cache")


def runs_directory() -> Path:
    """One directory a run, mode 0700, gone when the run ends."""
    return check_directory(cache_directory() / "runs")


def controller_directory() -> Path:
    """The controller's own, mode 0700: its sockets, its token, its machines and what it knows."""
    return check_directory(data_directory() / "controller")
