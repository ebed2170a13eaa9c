"""What the conformance suite for drivers (tests/hypervisor) does with a machine of any driver."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from boincvm.guestlink.clone_identity import clone_identity
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram, ProgramEnd
from boincvm.hypervisor.contract import Driver, Machine
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeGuest
from support.virtualbox.golden import STATES

LIMIT = 120.0
"""Seconds to wait for a machine, at most."""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


async def _cat(_: FakeGuest, call: FakeCall) -> int:
    """Copy standard input to standard output as it arrives, like `cat`."""
    written = 0
    while not (call.stdin_ended.is_set() and written == len(call.stdin)):
        if written < len(call.stdin):
            data = bytes(call.stdin[written:])
            call.write("stdout", data)
            written += len(data)
        await asyncio.sleep(0)
    return 0


def add_programs(driver: Driver) -> None:
    """Give a fake driver's guests the suite's programs that test the driver itself."""
    if isinstance(driver, FakeDriver):
        driver.programs["cat"] = _cat


def runs_linux(driver: Driver) -> bool:
    """Tell whether the machines' guests run the image's Linux."""
    return not isinstance(driver, FakeDriver)


class Running:
    """A program in a guest, and what it has written."""

    def __init__(self, link: GuestLink, *argv: str, directory: str = "/work") -> None:
        self.output = {"stdout": bytearray(), "stderr": bytearray()}
        self._news = asyncio.Event()
        self.program = GuestProgram(
            link, argv, directory=directory, environment=ENVIRONMENT, output=self._take
        )

    @classmethod
    def attached(cls, link: GuestLink, state: Mapping[str, object]) -> "Running":
        """Attach to a program that ran before its machine was saved."""
        self = cls.__new__(cls)
        self.output = {"stdout": bytearray(), "stderr": bytearray()}
        self._news = asyncio.Event()
        self.program = GuestProgram.attached(link, dict(state), output=self._take)
        return self

    def _take(self, stream: str, data: bytes) -> None:
        self.output[stream] += data
        self.program.grant(len(data))
        self._news.set()

    async def until(self, length: int) -> bytes:
        """Wait until its standard output has that many bytes, and return it."""
        async with asyncio.timeout(LIMIT):
            while len(self.output["stdout"]) < length:
                self._news.clear()
                await self._news.wait()
        return bytes(self.output["stdout"])

    async def feed(self, data: bytes) -> None:
        """Send `data` to its standard input, in frames that a link accepts."""
        for at in range(0, len(data), 1 << 16):
            self.program.feed(data[at : at + (1 << 16)])
            await asyncio.sleep(0)

    async def end(self) -> ProgramEnd:
        async with asyncio.timeout(LIMIT):
            return await self.program.wait()


class Ran(NamedTuple):
    """A program that has ended."""

    end: ProgramEnd
    stdout: str
    stderr: str


async def run(link: GuestLink, *argv: str) -> Ran:
    """Run a program without input to its end, in a directory that exists in each guest."""
    running = Running(link, *argv)
    running.program.end_input()
    end = await running.end()
    text = {name: data.decode() for name, data in running.output.items()}
    return Ran(end, text["stdout"], text["stderr"])


async def shell(link: GuestLink, script: str) -> str:
    """Run a script in the guest's shell, check that it succeeds, and return its output."""
    ran = await run(link, "/bin/sh", "-c", script)
    assert ran.end.code == 0, ran
    return ran.stdout


@asynccontextmanager
async def answering(
    machine: Machine, link_state: Mapping[str, object] | None = None
) -> AsyncIterator[GuestLink]:
    """Start the machine and yield the link to its guest.

    The guest boots, or waits as it was left in `link_state`. The caller ends the machine. A copy
    of the VirtualBox that tests share begins to run, as if it had booted.
    """
    copied = STATES.get(machine) if link_state is None else None
    channel = await machine.start()
    link = await GuestLink.open(channel, silence_limit=LIMIT, attach_to=copied or link_state)
    try:
        if copied is not None:
            await link.attach(LIMIT, clone_identity(network=False), let_run=machine.resume)
        elif link_state is None:
            async with asyncio.timeout(LIMIT):
                await asyncio.wait((link.ready, link.failure), return_when=asyncio.FIRST_COMPLETED)
            assert link.ready.done(), link.failure.result()
        yield link
    finally:
        link.close()
