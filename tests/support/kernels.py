"""Guest kernels of our own that tests use: built once, and kept in the user's own directory."""

import json
import subprocess
import sys
from pathlib import Path

BUILD_LIMIT = 2300.0
"""Seconds that a build may take on two processors that others use, too."""


def ready_kernel(*options: str) -> Path:
    """Return the path of the kernel; build it if it is missing or of other rules.

    Workers of pytest-xdist wait for each other, as builds of one kernel do.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "boincvm.cli.main", "image", "kernel", "build"),
            *("--if-missing", "--json", *options),
        ],
        stdout=subprocess.PIPE,
        check=True,
        timeout=BUILD_LIMIT,
    )
    return Path(json.loads(done.stdout)["path"])
