"""Has golden snapshots made by another process, which nobody waits for."""

import os
import subprocess
import sys
from pathlib import Path

from boincvm.job.model import MachineShape

SWITCH = "BOINCVM_GOLDEN"
"""The environment variable that turns golden snapshots off, if it is `no`."""


def is_wanted() -> bool:
    """Whether machines may start from golden snapshots."""
    return os.environ.get(SWITCH) != "no"


def command(shape: MachineShape, store: Path, *, balloon: bool) -> list[str]:
    """The command that makes the snapshot for machines of this shape, unless there is one."""
    options = [
        "--memory", f"{shape.memory >> 20}M",
        "--cpus", str(shape.cpus),
        *(["--disk", f"{shape.disk >> 20}M"] if shape.disk else []),
        *(["--network"] if shape.network else []),
        *(["--balloon"] if balloon else []),
        "--store", str(store),
    ]  # fmt: skip
    # -P: no module of the directory that we happen to be in.
    start = [sys.executable, "-P", "-m", "boincvm.cli.main"]
    return [*start, "image", "warm", "--background", *options, "--", shape.image]


def make_in_background(shape: MachineShape, store: Path) -> None:
    """Begins to make the snapshot, at the least priority; it takes seconds and outlives us.

    Raises OSError.
    """
    subprocess.Popen(
        command(shape, store, balloon=False),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
