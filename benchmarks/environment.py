"""The environment of our measured processes."""

import os
import sys
from pathlib import Path

PYTHON = sys.executable
BOINCVM = str(Path(sys.executable).with_name("boincvm"))


def clean_environment() -> dict[str, str]:
    """Return the environment without variables that slow Python down.

    They make it compile at every start or flush at every line.
    """
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in unwanted}
