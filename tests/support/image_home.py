"""A user who builds images, and has none yet."""

import json
import os
import subprocess
import sys
from pathlib import Path

from boincvm.paths import cache_directory


def new_home(directory: Path) -> dict[str, str]:
    """Make an empty BOINCVM_HOME that shares the user's downloaded packages."""
    packages = cache_directory() / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    (directory / "cache").mkdir(parents=True)
    (directory / "cache/packages").symlink_to(packages)
    return {**os.environ, "BOINCVM_HOME": str(directory)}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "boincvm.cli.main", "image", *arguments]


def boincvm_image(environment: dict[str, str], *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        command(*arguments, "--json"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer
