"""A machine that computes while checkpoints of it are made and measured."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple, cast

from benchmarks.booted import booted_by, start_program
from benchmarks.guest_overhead import NUMBER
from boincvm.guestlink.program import GuestProgram
from boincvm.hypervisor.contract import Checkpoint
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.hypervisor.qemu.machine import QemuMachine
from boincvm.image.store import Image
from boincvm.machine.session import Session

LIMIT = 300.0
COMPUTES = f"while :; do echo {NUMBER} | ecm -q -sigma 1:42 -c 1 50000 >/dev/null; done"
_SAMPLE_PERIOD = 0.001
"""Seconds between two samples of the processor time."""


class Made(NamedTuple):
    """One checkpoint and its costs."""

    checkpoint: Checkpoint
    gap: float
    """Seconds; the longest time for which the guest's processor stood still."""
    seconds: float
    """From the first message until the guest communicates again."""


@asynccontextmanager
async def machine(
    image: Image, accelerator: str, scratch: Path, memory: int, *, balloon: bool = True
) -> AsyncIterator[tuple[Session, QemuMachine]]:
    """Boot a machine like those under the client; it ends with the block."""
    driver = QemuDriver(accelerator)
    async with booted_by(driver, image, scratch, memory=memory, balloon=balloon) as session:
        yield session, cast(QemuMachine, session.machine)


def compute(session: Session, command: str = COMPUTES) -> GuestProgram:
    """Start a program that computes until the machine ends."""
    return start_program(session, ["sh", "-c", command], lambda *_: None)


async def make_checkpoint(session: Session, made: QemuMachine, number: int) -> Made:
    """Make a checkpoint as the wrapper does."""
    begin = monotonic()
    with StandStill(made) as still:
        await session.link.quiesce(LIMIT)
        checkpoint = await made.checkpoint(number)
        await session.link.attach(LIMIT)
    return Made(checkpoint, still.longest, monotonic() - begin)


class StandStill:
    """Measures the longest time for which the guest's processor does not advance.

    The guest cannot see that itself, because its clocks stand still as well. Time taken away by the
    host's scheduler counts too.
    """

    def __init__(self, made: QemuMachine) -> None:
        (pid,) = made.process_ids()
        tasks = Path(f"/proc/{pid}/task")
        times = {task: _used(task) for task in tasks.iterdir()}
        self._processor = max(times, key=lambda task: times[task])
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.longest = 0.0

    def _sample(self) -> None:
        used, since = _used(self._processor), monotonic()
        while not self._is_over.is_set():
            sleep(_SAMPLE_PERIOD)
            now = _used(self._processor)
            if now != used:
                used, since = now, monotonic()
            else:
                self.longest = max(self.longest, monotonic() - since)

    def __enter__(self) -> "StandStill":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def _used(task: Path) -> int:
    """Return the thread's processor time in nanoseconds."""
    return int((task / "schedstat").read_text().split()[0])


async def let_run(seconds: float) -> None:
    """Let the guest work for a while."""
    await asyncio.sleep(seconds)
