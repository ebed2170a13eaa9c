"""A machine that runs and its link to the guest, and the one place that tells why they ended."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from boincvm.errors import GuestDiedError
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.transfer_disk import TransferWindow
from boincvm.hypervisor.contract import Machine, MachineEnd
from boincvm.machine.end import end_error, end_of_guest, end_of_link

T = TypeVar("T")

END_LIMIT = 10.0
"""Seconds that a machine may outlive its agent before the agent's death alone is reported."""


class Session:
    """Guard all work in a machine that runs: the work ends when the machine or its link does."""

    def __init__(self, machine: Machine, link: GuestLink) -> None:
        self.machine = machine
        self.link = link
        disk = machine.transfer_disk
        self.window = TransferWindow(disk.descriptor) if disk is not None else None
        self.end: MachineEnd | None = None
        """How the machine ended, once it has."""
        self._trouble: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """End what is going on with `error`, unless something was wrong before."""
        if not self._trouble.done():
            self._trouble.set_result(error)

    def conclude(self, end: MachineEnd) -> None:
        """Take note that the machine has ended so, unless it is known how; what goes on fails."""
        if self.end is None:
            self.end = end
        self.fail(end_error(self.end))

    async def guard(self, work: Coroutine[None, None, T]) -> T:
        """Return the result of `work`; raise the error that ended the machine, link or job."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._trouble), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._trouble.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def ended(self) -> MachineEnd:
        """Wait for the end of the machine, of its link, or a `fail`, whose error is raised then."""
        await asyncio.wait((self._trouble,))
        if self.end is None:
            raise self._trouble.result()
        return self.end

    async def watch(self) -> None:
        """Wait until the machine or its link ends, then `conclude`."""
        try:
            self.conclude(await self._wait_for_end())
        except Exception as error:  # whoever is in `guard` would wait for ever
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
