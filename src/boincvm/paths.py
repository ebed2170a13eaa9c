"""Where boincvm keeps its things, by the XDG base directory specification.

`BOINCVM_HOME`, if set, holds all of it beneath one directory.
"""

import os
from pathlib import Path


def _directory(variable: str, default: str, own: str) -> Path:
    home = os.environ.get("BOINCVM_HOME")
    if home:
        return Path(home).absolute() / own
    base = os.environ.get(variable)
    root = Path(base) if base and base.startswith("/") else Path.home() / default
    return root / "boincvm"


def data_directory() -> Path:
    """Images: kept until somebody removes them."""
    return _directory("XDG_DATA_HOME", ".local/share", "data")


def cache_directory() -> Path:
    """What can be made again: downloaded packages, the acceleration probe's verdict."""
    return _directory("XDG_CACHE_HOME", ".cache", "cache")


def runs_directory() -> Path:
    """One directory a run, mode 0700, gone when the run ends."""
    return cache_directory() / "runs"


def controller_directory() -> Path:
    """The controller's own, mode 0700: its sockets, its token, its machines and what it knows."""
    return data_directory() / "controller"
