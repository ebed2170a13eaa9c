"""Helper programs: finding them, their environment, and running short ones."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def quiet_environment() -> dict[str, str]:
    """Return an environment for helper programs that holds nothing to change what they do.

    A BOINC client, for one, prepends its own directories to LD_LIBRARY_PATH.
    """
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def find_program(name: str) -> str | None:
    """Find the program `name` on PATH. (`shutil.which` would import compression modules.)"""
    for directory in os.get_exec_path():
        path = Path(directory, name)
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
        env=quiet_environment(),
    )
    return done.stdout
