"""A running machine and its guest link, and the one place that decides why they ended."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from boincvm.errors import GuestDiedError, GuestError, HypervisorError
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.transfer_disk import TransferDisk
from boincvm.hypervisor.contract import Machine, MachineEnd
from boincvm.machine.end import end_error, end_of_guest, end_of_link

T = TypeVar("T")

END_LIMIT = 10.0
"""Seconds that a machine may outlive its agent before only the agent's death is reported."""
_CAUSE_LIMIT = END_LIMIT + 5.0
"""Seconds within which it is known why a link has ended, unless nobody watches the machine."""


class Session:
    """Guards all work in a running machine: the work ends when the machine or its link does."""

    def __init__(self, machine: Machine, link: GuestLink) -> None:
        self.machine = machine
        self.link = link
        disk = machine.transfer_disk
        self.transfer_disk = (
            TransferDisk(disk.descriptor, machine.root_disk) if disk is not None else None
        )
        self.end: MachineEnd | None = None
        """How the machine ended; None while it runs."""
        self._trouble: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    @property
    def is_ending(self) -> bool:
        """Tell whether the machine or its link has ended, even if the cause is not known yet."""
        return self.end is not None or self.link.failure.done()

    def fail(self, error: BaseException) -> None:
        """End the work in progress with `error`, unless it has failed already."""
        if not self._trouble.done():
            self._trouble.set_result(error)

    def conclude(self, end: MachineEnd) -> None:
        """Record how the machine ended, unless that is already known; work in progress fails."""
        if self.end is None:
            self.end = end
        self.fail(end_error(self.end))

    async def guard(self, work: Coroutine[None, None, T]) -> T:
        """Return the result of `work`; raise the error that ended the machine, link or job."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._trouble), return_when=asyncio.FIRST_COMPLETED)
            if task.done() and not await self._has_ended(task):
                return task.result()
            raise self._trouble.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _has_ended(self, task: asyncio.Future[T]) -> bool:
        """Tell whether `task` failed because the machine or its link ended, and wait for why.

        A machine that ends closes its link first, so the work in it may fail before the cause is
        known.
        """
        if task.cancelled() or not isinstance(task.exception(), GuestError | HypervisorError):
            return False
        if self.link.failure.done():
            await asyncio.wait((self._trouble,), timeout=_CAUSE_LIMIT)
        return self._trouble.done()

    async def ended(self) -> MachineEnd:
        """Wait until the machine or its link ends, or raise the error of a `fail` before that."""
        await asyncio.wait((self._trouble,))
        if self.end is None:
            raise self._trouble.result()
        return self.end

    async def watch(self) -> None:
        """Wait until the machine or its link ends, then call `conclude`."""
        try:
            self.conclude(await self._wait_for_end())
        except Exception as error:  # otherwise a caller of `guard` would wait for ever
            self.fail(error)

    async def _wait_for_end(self) -> MachineEnd:
        ended = asyncio.ensure_future(self.machine.ended())
        try:
            await asyncio.wait((ended, self.link.failure), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done() and isinstance(self.link.failure.result(), GuestDiedError):
                await asyncio.wait((ended,), timeout=END_LIMIT)
            if ended.done():
                return end_of_guest(ended.result(), has_answered=self.link.ready.done())
            return end_of_link(self.link.failure.result())
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
