"""The users of Linux and macOS; `users` is the face."""

import os
import sys
from pathlib import Path

assert sys.platform != "win32"


def user_id() -> str:
    """What tells this user from others on this host."""
    return str(os.getuid())


def is_root() -> bool:
    """Whether this process may do everything."""
    return os.geteuid() == 0


def home_directory() -> str:
    """This user's, as the system has it, whatever the environment says; empty where it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def data_home() -> Path:
    """The directory for what programs keep for this user (XDG base directory specification).

    Raises RuntimeError: this user has no home directory.
    """
    return _of_xdg("XDG_DATA_HOME", ".local/share")


def cache_home() -> Path:
    """The directory for what programs can make again (XDG base directory specification).

    Raises RuntimeError: this user has no home directory.
    """
    return _of_xdg("XDG_CACHE_HOME", ".cache")


def _of_xdg(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    if given.startswith("/"):
        return Path(given)
    home = Path("~").expanduser()
    if not home.is_absolute():
        raise RuntimeError("this user has no home directory")
    return home / default


def user_name(number: int) -> str:
    """The name of a user, for messages."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def group_of(path: Path) -> str:
    """The name of the group that a file belongs to. Raises KeyError where it has none, OSError."""
    return path.group()
