"""`boincvm` as a person calls it, with all output captured."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

BOINCVM = Path(sys.executable).with_name("boincvm")
LIMIT = 120.0
"""Seconds until a command is ended, and the test with it."""


def boincvm(
    *arguments: str,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command in `directory`, with `environment` beside what the tests have."""
    return subprocess.run(
        [BOINCVM, *arguments],
        cwd=directory,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
