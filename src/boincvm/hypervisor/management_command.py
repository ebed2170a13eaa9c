"""Runs a hypervisor's own command, such as `VBoxManage`, for as long as it may take."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError, HypervisorKilledError
from boincvm.host import memory_files
from boincvm.host.processes import ChildProcess
from boincvm.host.signals import ENDING_SIGNALS

_MOST_OUTPUT = 1 << 20
"""Bytes of each stream's end that are read."""


class Answer(NamedTuple):
    """What a command that no signal has ended leaves."""

    status: int
    output: str
    errors: str


async def answer_of(
    argv: Sequence[str], name: str, *, environment: Mapping[str, str], limit: float
) -> Answer:
    """Run a command and return what it printed; `name` is what errors call it.

    If it takes more than `limit` seconds it is killed. Raises HypervisorKilledError if somebody
    kills it, HypervisorError, OSError.
    """
    # No pipes: what it starts, such as a service, may hold them open for ever.
    with (
        os.fdopen(memory_files.create("output"), "w+b") as output,
        os.fdopen(memory_files.create("errors"), "w+b") as errors,
    ):
        process = ChildProcess(
            argv,
            directory=Path("/"),
            stdout=output.fileno(),
            stderr=errors,
            environment=environment,
        )
        try:
            async with asyncio.timeout(limit):
                status = await process.wait()
        except TimeoutError:
            raise HypervisorError(f"{name} did not end within {limit:g} seconds") from None
        finally:
            process.end()
        if status < 0:
            error = HypervisorKilledError if -status in ENDING_SIGNALS else HypervisorError
            raise error(f"signal {-status} ended {name}")
        return Answer(status, *(_end_of(stream.fileno()) for stream in (output, errors)))


def _end_of(descriptor: int) -> str:
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, max(size - _MOST_OUTPUT, 0), os.SEEK_SET)
    return os.read(descriptor, _MOST_OUTPUT).decode(errors="replace")
