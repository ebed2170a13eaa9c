"""The directories where boincvm keeps its files, by the system's conventions (host/users.py).

`BOINCVM_HOME`, if set, puts all of them beneath one directory. Directories that are not this user's
own, or that others can write to, are refused (own_files.py).
"""

import os
from collections.abc import Callable
from pathlib import Path

from boincvm.host.own_files import check_directory
from boincvm.host.users import cache_home, configuration_home, data_home


def _directory(root: Callable[[], Path], own: str) -> Path:
    """Return the directory beneath BOINCVM_HOME, or else the system's.

    Raises HostError, and RuntimeError if this user has no home directory.
    """
    home = os.environ.get("BOINCVM_HOME")
    if home:
        # Not `resolve`, which would look up every link.
        return check_directory(check_directory(Path(home).absolute()) / own)
    return check_directory(root() / "boincvm")


def data_directory() -> Path:
    """Return the directory for images, which are kept until somebody removes them."""
    return _directory(data_home, "data")


def cache_directory() -> Path:
    """Return the directory for what can be made again: packages, the acceleration verdict."""
    return _directory(cache_home, "cache")


def configuration_directory() -> Path:
    """Return the directory for what a user has written for boincvm to read."""
    return _directory(configuration_home, "configuration")


def runs_directory() -> Path:
    """Return the directory with one subdirectory (mode 0700) per run, removed when the run ends."""
    return check_directory(cache_directory() / "runs")


def jobs_directory() -> Path:
    """Return the directory of jobs that can be resumed, which are kept until they have ended."""
    return check_directory(data_directory() / "jobs")


def controller_directory() -> Path:
    """Return the controller's directory (mode 0700): its sockets, token, machines and state."""
    return check_directory(data_directory() / "controller")


def kernels_directory() -> Path:
    """Return the directory of the guest kernels that were built here (image/kernels/store.py)."""
    return check_directory(data_directory() / "kernels")


def guest_kernel(name: str) -> Path:
    """Return the path of the guest kernel `name`, which exists if it was built here."""
    return check_directory(kernels_directory() / name) / "kernel"
