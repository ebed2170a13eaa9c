"""A machine that the build of an image boots from its intermediate results."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from boincvm.errors import BoincvmError
from boincvm.guestlink.get import get_tree
from boincvm.guestlink.program import GuestProgram, ProgramEnd
from boincvm.guestlink.put import put_tree
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import DEFAULT, open_driver
from boincvm.image.machine import BuildMachine, RunProgram
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
    async with _session(spec, limit) as session:
        yield partial(_run, session)


@asynccontextmanager
async def booted_with_files(spec: MachineSpec, limit: float) -> AsyncIterator[BuildMachine]:
    """Boot a machine like `booted`, to and from which files can move, too."""
    async with _session(spec, limit) as session:
        yield _BuildMachine(session)


@asynccontextmanager
async def _session(spec: MachineSpec, limit: float) -> AsyncIterator[Session]:
    driver = await open_driver(DEFAULT, spec.kernel)
    settings = Settings(Limits(boot=limit, silence=_SILENCE_LIMIT))
    async with opened(driver, spec, settings=settings) as machine:
        yield machine.session


class _BuildMachine:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        on_output: Callable[[str, bytes], None],
    ) -> ProgramEnd:
        return await _run(self._session, argv, environment, on_output)

    async def put(self, source: Path, destination: PurePosixPath) -> None:
        session = self._session
        path = Path(source.name)
        await session.guard(
            put_tree(
                session.link, session.transfer_disk, path, destination, directory=source.parent
            )
        )

    async def get(self, source: PurePosixPath, destination: Path, most: int) -> None:
        session = self._session
        await session.guard(
            get_tree(
                session.link,
                session.transfer_disk,
                source,
                PurePosixPath(destination.name),
                directory=destination.parent,
                maximum_bytes=most,
            )
        )


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
