"""Folders for volunteers, made once for all tests and kept in the cache, and how they are run."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from boincvm.image.progress import Progress
from boincvm.project.bundle.build import build_folder, build_qemu

PAGES = Path(__file__).parents[2] / "docs"
LINUX = "x86_64-pc-linux-gnu"
ARM64 = "aarch64-unknown-linux-gnu"
_LIMIT = 60.0


def made_folder(platform: str) -> Path:
    """Return the folder for `platform`, which no test may change."""
    return build_folder(platform, PAGES, None, Progress(None))


def made_qemu(platform: str = LINUX) -> Path:
    """Return the folder with QEMU for `platform`, which no test may change."""
    return build_qemu(platform, None, Progress(None))


def run_alone(
    folder: Path, command: Sequence[str], *options: str, within: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run a program in a root that holds nothing but `folder`, as /app, and what `options` add.

    `within`: a command that starts what follows.
    """
    root = [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--clearenv",
        "--ro-bind",
        folder,
        "/app",
    ]
    return subprocess.run(
        [*within, *root, *options, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=_LIMIT,
        text=True,
    )
