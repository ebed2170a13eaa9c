"""The users of Linux and macOS; import it through `users`."""

import os
import sys
from pathlib import Path

assert sys.platform != "win32"


def user_id() -> str:
    """Return what distinguishes this user from others on this host."""
    return str(os.getuid())


def user_and_group() -> tuple[int, int]:
    """Return the numbers of the user and group that files of this process get."""
    return os.geteuid(), os.getegid()


def is_root() -> bool:
    """Tell whether this process runs as root."""
    return os.geteuid() == 0


def home_directory() -> str:
    """Return this user's home by the system's database, not the environment; "" if it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def data_home() -> Path:
    """Return the directory for this user's program data (XDG base directory specification).

    Raises RuntimeError if this user has no home directory.
    """
    return _of_xdg("XDG_DATA_HOME", ".local/share")


def cache_home() -> Path:
    """Return the directory for data that can be made again (XDG base directory specification).

    Raises RuntimeError if this user has no home directory.
    """
    return _of_xdg("XDG_CACHE_HOME", ".cache")


def configuration_home() -> Path:
    """Return the directory for this user's preferences (XDG base directory specification).

    Raises RuntimeError if this user has no home directory.
    """
    return _of_xdg("XDG_CONFIG_HOME", ".config")


def _of_xdg(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    if given.startswith("/"):
        return Path(given)
    home = Path("~").expanduser()
    if not home.is_absolute():
        raise RuntimeError("this user has no home directory")
    return home / default


def user_name(number: int) -> str:
    """Return the name of a user, for messages."""
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
