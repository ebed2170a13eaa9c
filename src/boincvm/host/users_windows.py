"""The users of Windows; import it through `users`."""

import ctypes
import os
import sys
from pathlib import Path

from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"


def user_id() -> str:
    """Return what distinguishes this user from others on this host."""
    return f"{os.environ.get('USERDOMAIN', '')}/{os.environ.get('USERNAME', '')}"


def user_and_group() -> tuple[int, int]:
    """Return the numbers of the user and group that files of this process get."""
    raise not_yet("numbers of users")


def is_root() -> bool:
    """Tell whether this process runs with the rights of an administrator."""
    return bool(ctypes.WinDLL("shell32").IsUserAnAdmin())


def home_directory() -> str:
    """Return this user's profile directory, or ""."""
    return os.environ.get("USERPROFILE", "")


def data_home() -> Path:
    """Return the directory for this user's program data on this computer.

    Raises RuntimeError if this user has none.
    """
    given = os.environ.get("LOCALAPPDATA")
    if not given:
        raise RuntimeError("this user has no directory for programs' data")
    return Path(given)


def cache_home() -> Path:
    """Return a directory for data that can be made again; Windows has none of its own for it.

    Raises RuntimeError.
    """
    return data_home() / "cache"


def configuration_home() -> Path:
    """Return the directory for this user's preferences, on any computer of the domain.

    Raises RuntimeError if this user has none.
    """
    given = os.environ.get("APPDATA")
    if not given:
        raise RuntimeError("this user has no directory for programs' preferences")
    return Path(given)


def user_name(number: int) -> str:
    """Return the name of a user, for messages."""
    raise not_yet("names of other users")
