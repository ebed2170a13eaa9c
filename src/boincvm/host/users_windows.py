"""The users of Windows; `users` is the face."""

import os
from pathlib import Path

from boincvm.host.not_yet import not_yet


def user_id() -> str:
    """What tells this user from others on this host."""
    return f"{os.environ.get('USERDOMAIN', '')}/{os.environ.get('USERNAME', '')}"


def is_root() -> bool:
    """Whether this process may do everything."""
    raise not_yet("whether this user is an administrator")


def home_directory() -> str:
    """This user's profile; empty where there is none."""
    return os.environ.get("USERPROFILE", "")


def data_home() -> Path:
    """The directory for what programs keep for this user, on this computer alone.

    Raises RuntimeError: this user has none.
    """
    given = os.environ.get("LOCALAPPDATA")
    if not given:
        raise RuntimeError("this user has no directory for programs' data")
    return Path(given)


def cache_home() -> Path:
    """The same: Windows has none for what can be made again. Raises RuntimeError."""
    return data_home() / "cache"


def user_name(number: int) -> str:
    """The name of a user, for messages."""
    raise not_yet("names of other users")


def group_of(path: Path) -> str:
    """The name of the group that a file belongs to."""
    raise not_yet("groups of files")
