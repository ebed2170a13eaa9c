"""A machine that the build of an image boots from its intermediate results."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from boincvm.errors import BoincvmError
from boincvm.guestlink.program import GuestProgram, ProgramEnd
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import DEFAULT, open_driver
from boincvm.image.machine import RunProgram
from boincvm.job.model import Limits
from boincvm.machine.managed import opened
from boincvm.machine.session import Session
from boincvm.machine.settings import Settings

_SILENCE_LIMIT = 600.0
"""Seconds: packages' scripts may leave the agent little of the only processor."""


@asynccontextmanager
async def booted(spec: MachineSpec, limit: float) -> AsyncIterator[RunProgram]:
    """Boot a machine within `limit` seconds, yield what runs programs in it, and end it.

    Raises GuestError, HypervisorError, HypervisorMissingError, HostDiskFullError.
    """
    driver = await open_driver(DEFAULT, spec.kernel)
    settings = Settings(Limits(boot=limit, silence=_SILENCE_LIMIT))
    async with opened(driver, spec, settings=settings) as machine:
        yield partial(_run, machine.session)


async def _run(
    session: Session,
    argv: Sequence[str],
    environment: Mapping[str, str],
    on_output: Callable[[str, bytes], None],
) -> ProgramEnd:
    def output(stream: str, data: bytes) -> None:
        try:
            on_output(stream, data)
        except BoincvmError as error:
            session.fail(error)
        else:
            program.grant(len(data))

    program = GuestProgram(
        session.link, argv, directory="/", environment=environment, output=output
    )
    program.end_input()
    return await session.guard(program.wait())
