"""A task whose program begins just when its machine is saved."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from boincvm.errors import BoincvmError
from boincvm.guestlink.program import GuestProgram, ProgramEnd
from boincvm.job.model import MachineTask
from boincvm.machine.session import Session
from boincvm.machine.streams import ProgramStreams
from boincvm.machine.task_run import TaskRun
from support.scripted_guest import linked

pytestmark = pytest.mark.timeout(60)
LIMIT = 10.0


@asynccontextmanager
async def no_streams(
    task: MachineTask, consumed: Callable[[int], None], fail: Callable[[BoincvmError], None]
) -> AsyncIterator[ProgramStreams]:
    del task, consumed, fail
    yield cast(
        ProgramStreams,
        SimpleNamespace(write=lambda *_: None, stdin=None, sizes=lambda: {"stdout": 0}),
    )


async def ends(program: GuestProgram) -> ProgramEnd:
    return await program.wait()


async def test_a_program_that_the_guest_has_yet_to_start_is_not_in_what_is_saved(
    tmp_path: Path,
) -> None:
    """Otherwise a run that resumes from that expects a program that the machine does not have."""
    async with linked() as (guest, link):
        session = cast(Session, SimpleNamespace(link=link, fail=lambda _: None))
        run = TaskRun(session, MachineTask(argv=("prog",)), tmp_path, no_streams)
        quiescing = asyncio.ensure_future(link.quiesce(LIMIT))
        await guest.receive("quiesce")
        running = asyncio.ensure_future(run.run(ends))
        await guest.send_message("quiesced")
        await quiescing
        assert run.program is not None
        assert run.state(0, wall=1.0) is None
        attaching = asyncio.ensure_future(link.attach(LIMIT))
        await guest.receive("attach")
        await guest.receive("run")
        await guest.send_message("attached", calls="")
        await attaching
        assert run.state(0, wall=1.0) is not None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
