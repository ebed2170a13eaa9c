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


def user_name(number: int) -> str:
    """The name of a user, for messages."""
    raise not_yet("names of other users")


def group_of(path: Path) -> str:
    """The name of the group that a file belongs to."""
    raise not_yet("groups of files")
