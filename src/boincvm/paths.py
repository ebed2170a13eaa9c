"""Where boincvm keeps its things, by the XDG base directory specification.

`BOINCVM_HOME`, if set, holds all of it beneath one directory. A run wants its directory before
`pathlib` has been imported, so what it needs is there as text too.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def _place(variable: str, default: str, own: str) -> str:
    """Raises RuntimeError: this user has no home directory."""
    home = os.environ.get("BOINCVM_HOME")
    if home:
        # Not `abspath`: it takes `..` by the name, and the kernel follows links.
        return os.path.join(home if home.startswith("/") else os.path.join(os.getcwd(), home), own)
    root = os.environ.get(variable, "")
    if not root.startswith("/"):
        user = os.path.expanduser("~")
        if not user.startswith("/"):
            raise RuntimeError("this user has no home directory")
        root = os.path.join(user, default)
    return os.path.join(root, "boincvm")


def cache_place() -> str:
    """`cache_directory` as text."""
    return _place("XDG_CACHE_HOME", ".cache", "cache")


def runs_place() -> str:
    """`runs_directory` as text."""
    return os.path.join(cache_place(), "runs")


def data_directory() -> Path:
    """Images: kept until somebody removes them."""
    from pathlib import Path

    return Path(_place("XDG_DATA_HOME", ".local/share", "data"))


def cache_directory() -> Path:
    """What can be made again: downloaded packages, the acceleration probe's verdict."""
    from pathlib import Path

    return Path(cache_place())


def runs_directory() -> Path:
    """One directory a run, mode 0700, gone when the run ends."""
    from pathlib import Path

    return Path(runs_place())


def controller_directory() -> Path:
    """The controller's own, mode 0700: its sockets, its token, its machines and what it knows."""
    return data_directory() / "controller"
