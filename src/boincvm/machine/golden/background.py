"""Makes golden snapshots in separate processes that nobody waits for."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from boincvm.byte_text import decoded, one_line
from boincvm.host.own_files import make_directory, open_own
from boincvm.host.processes import ChildProcess
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import DEFAULT
from boincvm.image.store import GOLDEN, Image
from boincvm.job.model import MachineShape
from boincvm.machine.golden.snapshots import remove_unfinished
from boincvm.machine.golden.switch import makes_more
from boincvm.side_thread import in_side_thread

ERRORS = "maker.errors"
"""The file beside the snapshots with what the last of these processes wrote to standard error."""
_MOST_ERRORS = 4096


def command(
    shape: MachineShape,
    store: Path,
    *,
    balloon: bool,
    durable: bool = False,
    driver: str = DEFAULT,
) -> list[str]:
    """Return the command that makes the snapshot for such machines if it does not exist yet."""
    options = [
        "--memory", f"{shape.memory >> 20}M",
        "--cpus", str(shape.cpus),
        *(["--disk", f"{shape.disk >> 20}M"] if shape.disk else []),
        *(["--network"] if shape.network else []),
        *(["--balloon"] if balloon else []),
        *(["--controller"] if durable else []),
        "--driver", driver,
        "--store", str(store),
    ]  # fmt: skip
    # -P: do not import modules from the current directory.
    start = [sys.executable, "-P", "-m", "boincvm.cli.main"]
    return [*start, "image", "warm", "--background", *options, "--", shape.image]


class Warmers:
    """Starts processes that make snapshots; they end with this process."""

    def __init__(self) -> None:
        self._processes: list[tuple[ChildProcess, Path]] = []
        """Each with the directory of its store's snapshots."""

    def make(self, image: Image, spec: MachineSpec) -> None:
        """Start making the snapshot for machines like `spec`, unless `BOINCVM_GOLDEN` forbids it.

        Raises OSError.
        """
        if not makes_more():
            return
        shape = MachineShape(image.name, spec.memory, spec.cpus, spec.disk_size, spec.network)
        argv = command(shape, image.golden.parent, balloon=spec.balloon, durable=spec.durable)
        with _errors(image.golden) as errors:
            process = ChildProcess(argv, directory=Path("/"), stderr=errors, environment=os.environ)
        self._processes.append((process, image.golden))

    async def close(self) -> None:
        """End the processes that are still running, and remove what they had begun."""
        for process, golden in self._processes:
            was_running = process.is_running
            process.kill()
            await process.wait()
            if was_running:
                with suppress(OSError):  # the next one that is made removes it
                    await in_side_thread(remove_unfinished, golden)
        self._processes.clear()


def make_in_background(shape: MachineShape, store: Path, driver: str) -> None:
    """Start making the snapshot at the lowest priority, unless `BOINCVM_GOLDEN` forbids it.

    It takes seconds and outlives this process. Raises OSError.
    """
    if not makes_more():
        return
    with _errors(store / GOLDEN) as errors:
        subprocess.Popen(
            command(shape, store, balloon=False, driver=driver),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )


def last_failure(golden: Path) -> str:
    """Return in one line why the last process that made a snapshot here failed, or "".

    Raises OSError, and HostError if the file is not this user's own.
    """
    try:
        with open_own(golden / ERRORS) as file:
            return one_line(decoded(file.read(_MOST_ERRORS))).strip()
    except FileNotFoundError:
        return ""


def _errors(golden: Path) -> BinaryIO:
    make_directory(golden)
    return (golden / ERRORS).open("wb")
