"""Helper programs: finding them, their environment, and running short ones."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HAS_WINGET = sys.platform == "win32"
"""Whether programs are installed by winget."""
if sys.platform == "win32":
    NO_WINDOW = subprocess.CREATE_NO_WINDOW
    _SUFFIX = ".exe"
    # Without the first one no program can use a socket; the others say where temporary files and
    # libraries of the system are.
    _NEEDED = ("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "TEMP", "TMP")
    _INSTALLED = ("qemu",)
    """Directories of installed programs that are not added to PATH."""
else:
    NO_WINDOW = 0
    """Flag of `subprocess`: a program that is asked something opens no window on Windows."""
    _SUFFIX = ""
    _NEEDED: tuple[str, ...] = ()
    _INSTALLED: tuple[str, ...] = ()


def quiet_environment() -> dict[str, str]:
    """Return an environment for helper programs that holds nothing to change what they do.

    A BOINC client, for one, prepends its own directories to LD_LIBRARY_PATH.
    """
    needed = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **needed}


_PREFERRED = "BOINCVM_QEMU"
"""Names the directory of a QEMU that comes before all others."""


def prefer_programs_of(directory: Path) -> None:
    """Have this process, and those that it starts, take programs from `directory` first."""
    os.environ[_PREFERRED] = str(directory)


def file_name(program: str) -> str:
    """Return the name of a program's file."""
    return program + _SUFFIX


def _installed() -> list[str]:
    root = os.environ.get("PROGRAMFILES")
    return [os.path.join(root, name) for name in _INSTALLED] if root else []  # noqa: PTH118


def find_program(name: str) -> str | None:
    """Find the program `name` on PATH, or where Windows' installers put it.

    Before both come the directory that BOINCVM_QEMU names, and the directory `qemu` beside our
    Python: there a folder for volunteers may have a QEMU of its own.

    `shutil.which` would import compression modules, and look into the current directory first on
    Windows.
    """
    own = os.path.join(os.path.dirname(sys.executable), "qemu")  # noqa: PTH118, PTH120
    preferred = os.environ.get(_PREFERRED)
    first = (preferred, own) if preferred else (own,)
    for directory in (*first, *os.get_exec_path(), *_installed()):
        path = Path(directory, file_name(name))
        if os.access(path, os.X_OK) and path.is_file():  # the first never raises
            return str(path)
    return None


def run_quickly(argv: Sequence[str], *, timeout: float = 30.0) -> str:
    """Run a short helper program and return its output.

    Raises subprocess.CalledProcessError (with `stderr`), subprocess.TimeoutExpired, OSError.
    """
    done = subprocess.run(
        argv,
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,  # we handle a terminal's Ctrl-C
        timeout=timeout,
        creationflags=NO_WINDOW,
        env=quiet_environment(),
    )
    return done.stdout
