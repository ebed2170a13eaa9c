"""What libvirt tells of a domain, until it has ended, and why it did."""

import asyncio
import os
from contextlib import suppress
from typing import TypeVar

import libvirt

from boincvm.host.processes import kill_opened, open_process
from boincvm.hypervisor.contract import EndCause, MachineEnd
from boincvm.hypervisor.process_end import end_of_other

T = TypeVar("T")
_GONE = MachineEnd(
    EndCause.KILLED,
    "the connection to libvirt's daemon broke, and a machine does not outlive it",
    "the daemon was stopped, or it crashed: see its log",
)


class Watch:
    """Follows one domain."""

    def __init__(self) -> None:
        self._end: asyncio.Future[MachineEnd] = asyncio.get_running_loop().create_future()
        self._was_asked_to_end = False
        self._is_disk_full = False
        self._handle: int | None = None
        self._paused_at = 0.0
        self._pause: asyncio.Future[float] | None = None
        self._disk_job: asyncio.Future[int] | None = None
        self.process = 0
        """The id of the process that runs the machine; 0 if it is not known."""

    def follow(self, process: int | None) -> None:
        """Note the process that runs the domain, if it is one of this host that we can see."""
        if process and self._handle is None:
            with suppress(ProcessLookupError):
                self._handle = open_process(process)
                self.process = process

    @property
    def has_ended(self) -> bool:
        return self._end.done()

    def process_end(self) -> MachineEnd:
        """Return how the process has ended, of which libvirt tells nothing.

        libvirt waits until it was reaped before it tells that it has ended at all.
        """
        return end_of_other(self._handle, "the hypervisor's process")

    def on_lifecycle(self, event: int, detail: int, at: float) -> None:
        """Take an event of the domain (virDomainEventType); `at` is the monotonic clock's time."""
        if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED:
            self._paused_at = at
        elif event == libvirt.VIR_DOMAIN_EVENT_RESUMED and self._paused_at:
            _resolve(self._pause, at - self._paused_at)
        elif event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
            self._was_asked_to_end = detail == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self._conclude(self._reason(detail))

    def on_disk_job(self, status: int) -> None:
        """Take the new status of a job of the root disk (virConnectDomainEventBlockJobStatus)."""
        _resolve(self._disk_job, status)

    def next_pause(self) -> asyncio.Future[float]:
        """Return the seconds of the domain's next pause, to be awaited after its end."""
        self._paused_at = 0.0
        self._pause = asyncio.get_running_loop().create_future()
        return self._pause

    def next_disk_event(self) -> asyncio.Future[int]:
        """Return the next status of a job of the root disk; FAILED if the domain ends."""
        self._disk_job = asyncio.get_running_loop().create_future()
        if self.has_ended:
            self._disk_job.set_result(libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED)
        return self._disk_job

    def on_disk_full(self) -> None:
        """End the machine, which the hypervisor has stopped, and nothing would ever resume."""
        self._is_disk_full = True
        self.kill()

    def on_close(self) -> None:
        """End what the daemon that has gone cannot end any more."""
        if not self.has_ended:
            self.kill()
            self._conclude(_GONE)

    def kill(self) -> None:
        """Kill the machine's process, if it is known and still runs."""
        if self._handle is not None:
            with suppress(ProcessLookupError):
                kill_opened(self._handle)

    async def ended(self) -> MachineEnd:
        """Wait for the end, also of the process."""
        end = await asyncio.shield(self._end)
        if self._handle is not None:
            await _readable(self._handle)
        return end

    def close(self) -> None:
        """Follow it no longer. Idempotent."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _conclude(self, end: MachineEnd) -> None:
        _resolve(self._end, end)
        _resolve(self._disk_job, libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED)

    def _reason(self, detail: int) -> MachineEnd:
        if self._is_disk_full:
            return MachineEnd(EndCause.HOST_DISK_FULL, "the host's disk is full")
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
            if self._was_asked_to_end:
                return MachineEnd(EndCause.KILLED, "somebody asked the hypervisor to end")
            return MachineEnd(EndCause.POWERED_OFF, "")
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
            return MachineEnd(EndCause.KILLED, "somebody else ended the machine through libvirt")
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED:
            return self.process_end()
        return MachineEnd(EndCause.FAILED, f"libvirt reports that it ended for the reason {detail}")


def _resolve(future: "asyncio.Future[T] | None", result: T) -> None:
    if future is not None and not future.done():
        future.set_result(result)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def conclude() -> None:
        if not done.done():
            done.set_result(None)

    loop.add_reader(descriptor, conclude)
    try:
        await done
    finally:
        loop.remove_reader(descriptor)
