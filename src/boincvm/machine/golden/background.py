"""Makes golden snapshots in separate processes that nobody waits for."""

import os
import subprocess
import sys
from pathlib import Path

from boincvm.host.processes import ChildProcess
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import DEFAULT
from boincvm.image.store import Image
from boincvm.job.model import MachineShape
from boincvm.machine.golden.switch import makes_more


def command(shape: MachineShape, store: Path, *, balloon: bool, driver: str = DEFAULT) -> list[str]:
    """Return the command that makes the snapshot for such machines if it does not exist yet."""
    options = [
        "--memory", f"{shape.memory >> 20}M",
        "--cpus", str(shape.cpus),
        *(["--disk", f"{shape.disk >> 20}M"] if shape.disk else []),
        *(["--network"] if shape.network else []),
        *(["--balloon"] if balloon else []),
        "--driver", driver,
        "--store", str(store),
    ]  # fmt: skip
    # -P: do not import modules from the current directory.
    start = [sys.executable, "-P", "-m", "boincvm.cli.main"]
    return [*start, "image", "warm", "--background", *options, "--", shape.image]


class Warmers:
    """Starts processes that make snapshots; they end with this process."""

    def __init__(self) -> None:
        self._processes: list[ChildProcess] = []

    def make(self, image: Image, spec: MachineSpec) -> None:
        """Start making the snapshot for machines like `spec`, unless `BOINCVM_GOLDEN` forbids it.

        Raises OSError.
        """
        if not makes_more():
            return
        shape = MachineShape(image.name, spec.memory, spec.cpus, spec.disk_size, spec.network)
        argv = command(shape, image.golden.parent, balloon=spec.balloon)
        self._processes.append(ChildProcess(argv, directory=Path("/"), environment=os.environ))

    async def close(self) -> None:
        """End the processes that are still running."""
        for process in self._processes:
            process.kill()
            await process.wait()
        self._processes.clear()


def make_in_background(shape: MachineShape, store: Path, driver: str) -> None:
    """Start making the snapshot at the lowest priority, unless `BOINCVM_GOLDEN` forbids it.

    It takes seconds and outlives this process. Raises OSError.
    """
    if not makes_more():
        return
    subprocess.Popen(
        command(shape, store, balloon=False, driver=driver),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
