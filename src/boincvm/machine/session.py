"""A booted machine and its link, and the one place that tells why they ended."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestError,
    GuestNeverBootedError,
    GuestPanickedError,
    GuestPoweredOffError,
    HostDiskFullError,
    HypervisorError,
)
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.window import TransferWindow
from boincvm.hypervisor.contract import Driver, EndCause, Machine, MachineEnd, MachineSpec
from boincvm.job.model import Limits
from boincvm.machine.golden.snapshots import Golden, discard_golden
from boincvm.machine.spec import fresh_for

T = TypeVar("T")

END_LIMIT = 10.0
"""Seconds that a machine may outlive its agent before the agent's death alone is reported."""


class Session:
    """What is done with the machine goes through `guard`, so that it ends when the machine does."""

    def __init__(self, machine: Machine, link: GuestLink) -> None:
        self.machine = machine
        self.link = link
        window = machine.transfer_window
        self.window = TransferWindow(window) if window is not None else None
        self._trouble: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """What is going on ends with `error`, unless something was wrong before."""
        if not self._trouble.done():
            self._trouble.set_result(error)

    async def guard(self, work: Coroutine[None, None, T]) -> T:
        """The result of `work`, or the error that ended the machine, the link or the job."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._trouble), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._trouble.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def watch(self) -> None:
        """Until the machine or its link ends: then says why, by `fail`."""
        try:
            self.fail(await self._why_it_ended())
        except Exception as error:  # whoever is in `guard` would wait for ever
            self.fail(error)

    async def _why_it_ended(self) -> BoincvmError:
        ended = asyncio.ensure_future(self.machine.ended())
        try:
            await asyncio.wait((ended, self.link.failure), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done() and isinstance(self.link.failure.result(), GuestDiedError):
                await asyncio.wait((ended,), timeout=END_LIMIT)
            if ended.done():
                return self._end_error(ended.result())
            return self.link.failure.result()
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    def _end_error(self, end: MachineEnd) -> BoincvmError:
        if end.cause is EndCause.HOST_DISK_FULL:
            return HostDiskFullError(
                "the host's disk is full, so the machine was ended",
                hint="free some space and run again",
            )
        if end.cause is EndCause.KILLED:
            return HypervisorError(
                f"the virtual machine was killed from outside: {end.detail}",
                hint="the host may have run out of memory: see its system log",
            )
        if end.cause is EndCause.FAILED:
            return HypervisorError(f"the hypervisor gave up: {end.detail}")
        has_panicked = end.cause is EndCause.PANICKED
        what = f"the guest's kernel panicked: {end.detail}"
        if not has_panicked:
            what = "the guest turned itself off or rebooted"
        if not self.link.ready.done():
            return GuestNeverBootedError(f"before its agent had answered, {what}")
        return GuestPanickedError(what) if has_panicked else GuestPoweredOffError(what)


@asynccontextmanager
async def open_session(
    machine: Machine,
    limits: Limits,
    link_state: Mapping[str, object] | None = None,
    *,
    is_asked: bool = False,
) -> AsyncIterator[Session]:
    """`machine`, started, and its agent has answered; it is gone after the block.

    `link_state`: of the guest link, for the copy of a golden snapshot; `is_asked`: it has been
    sent the link's first word. Raises HypervisorError,
    HypervisorMissingError, HostDiskFullError, GuestError.
    """
    link: GuestLink | None = None
    try:
        await machine.create()
        channel = await machine.start()
        link = await GuestLink.open(
            channel,
            silence_limit=limits.silence,
            attach_to=link_state,
            is_asked=is_asked,
            host_name=machine.spec.host_name,
        )
        session = Session(machine, link)
        watcher = asyncio.ensure_future(session.watch())
        try:
            if link_state is None:
                await session.guard(_wait_for_agent(link, limits.boot))
            else:
                await session.guard(link.attach(limits.boot, fresh_for(machine.spec)))
            link.expect_beats(limits.silence)
            yield session
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
    finally:
        if link is not None:
            link.close()
        await machine.destroy()


async def start_session(
    stack: AsyncExitStack,
    driver: Driver,
    spec: MachineSpec,
    limits: Limits,
    golden: Golden | None,
    *,
    is_asked: bool = False,
) -> tuple[Session, str]:
    """A session that `stack` ends: the machine is a copy of `golden`, or it boots. If a copy was
    to be had and was of no use, the second item says why, and the snapshot is gone. `is_asked`:
    the driver's next copy has been sent the link's first word.

    Raises what `open_session` raises.
    """
    reason = ""
    if golden is not None:
        machine = driver.clone(spec, golden.directory)
        try:
            opened = open_session(machine, limits, golden.link, is_asked=is_asked)
            return await stack.enter_async_context(opened), ""
        except (HypervisorError, GuestError) as error:
            reason = error.message
        discard_golden(golden.directory)
        spec.directory.mkdir(mode=0o700, exist_ok=True)
    return await stack.enter_async_context(open_session(driver.machine(spec), limits)), reason


async def _wait_for_agent(link: GuestLink, limit: float) -> None:
    try:
        async with asyncio.timeout(limit):
            await link.ready
    except TimeoutError:
        raise GuestNeverBootedError(
            f"the guest's agent said nothing within {limit:g} s of the start",
            hint="give it more time with --boot-limit",
        ) from None
