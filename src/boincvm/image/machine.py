"""A machine that a build boots from its intermediate results, and programs in it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from boincvm.errors import GuestNeverBootedError
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram, ProgramEnd
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import DEFAULT, open_driver

_SILENCE_LIMIT = 120.0


@asynccontextmanager
async def booted(spec: MachineSpec, limit: float) -> AsyncIterator[GuestLink]:
    """Boot a machine, which ends with the block.

    limit: seconds that the boot may take. Raises GuestError, HypervisorError,
    HypervisorMissingError, HostDiskFullError.
    """
    driver = await open_driver(DEFAULT, spec.kernel)
    machine = driver.machine(spec)
    try:
        link = await GuestLink.open(await machine.start(), silence_limit=_SILENCE_LIMIT)
        try:
            either = (link.ready, link.failure)
            await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if link.failure.done():
                raise link.failure.result()
            if not link.ready.done():
                raise GuestNeverBootedError(f"the guest did not boot within {limit:g} s")
            yield link
        finally:
            link.close()
    finally:
        await machine.destroy()


async def run(
    link: GuestLink,
    argv: Sequence[str],
    environment: Mapping[str, str],
    take: Callable[[str, bytes], None],
) -> ProgramEnd:
    """Run a program to its end. `take` is called with a stream's name and each piece of its output.

    Raises GuestError, ProgramStartError.
    """

    def output(stream: str, data: bytes) -> None:
        take(stream, data)
        program.grant(len(data))

    program = GuestProgram(link, argv, directory="/", environment=environment, output=output)
    program.end_input()
    ended = asyncio.ensure_future(program.wait())
    try:
        await asyncio.wait((ended, link.failure), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return ended.result()
        raise link.failure.result()
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
