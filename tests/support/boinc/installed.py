"""Installed programs and images, for tasks of a client with a clean environment."""

import os
import sys
from pathlib import Path

from boincvm.machine.golden.switch import SWITCH
from boincvm.paths import data_directory

WRAPPER = Path(sys.executable).with_name("boincvm-wrapper")


def images() -> dict[str, str]:
    """Return the environment in which a client's tasks find the images of this user.

    It leaves the golden snapshots of the tests as they are.
    """
    return {"XDG_DATA_HOME": str(data_directory().parent), SWITCH: os.environ[SWITCH]}


def path() -> str:
    """Return a PATH on which `boincvm-wrapper` is found, too."""
    return f"{WRAPPER.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
