"""What is installed here, for tasks of a client whose environment is clean."""

import os
import sys
from pathlib import Path

from boincvm.machine.golden.switch import SWITCH
from boincvm.paths import data_directory

WRAPPER = Path(sys.executable).with_name("boincvm-wrapper")


def images() -> dict[str, str]:
    """The environment that lets a client's tasks find the images of this user, and leaves the
    golden snapshots of the tests as they are."""
    return {"XDG_DATA_HOME": str(data_directory().parent), SWITCH: os.environ[SWITCH]}


def path() -> str:
    """One where `boincvm-wrapper` is found too."""
    return f"{WRAPPER.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
