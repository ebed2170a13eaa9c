"""A booted machine with its agent, as `boincvm run` has it, for benchmarks of the link."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from benchmarks.bare_machine import MEMORY
from boincvm.guestlink.guest_paths import ENVIRONMENT, WORK
from boincvm.guestlink.program import GuestProgram, Output
from boincvm.hypervisor.contract import Driver, MachineSpec
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.image.store import Image
from boincvm.machine.managed import opened
from boincvm.machine.session import Session


def booted(image: Image, accelerator: str, scratch: Path) -> AbstractAsyncContextManager[Session]:
    """Boot a machine of QEMU and yield its session; the machine ends with the block."""
    return booted_by(QemuDriver(accelerator), image, scratch, ephemeral=True)


@asynccontextmanager
async def booted_by(
    driver: Driver,
    image: Image,
    scratch: Path,
    *,
    memory: int = MEMORY,
    balloon: bool = False,
    ephemeral: bool = False,
) -> AsyncIterator[Session]:
    """Boot a machine of any driver and yield its session; the machine ends with the block."""
    with tempfile.TemporaryDirectory(prefix="machine-", dir=scratch) as directory:
        spec = MachineSpec(
            directory=Path(directory),
            kernel=image.kernel,
            initrd=image.initrd,
            root=image.root,
            memory=memory,
            cpus=1,
            balloon=balloon,
            ephemeral=ephemeral,
        )
        async with opened(driver, spec) as machine:
            yield machine.session


def start_program(session: Session, argv: list[str], output: Output) -> GuestProgram:
    """Start `argv` in the guest as `boincvm run` does."""
    return GuestProgram(
        session.link, argv, directory=str(WORK), environment=ENVIRONMENT, output=output
    )
