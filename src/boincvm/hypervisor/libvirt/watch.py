"""What libvirt tells of a domain, until it has ended, and why it did."""

import asyncio
import os
from contextlib import suppress

import libvirt

from boincvm.host.processes import kill_opened, open_process
from boincvm.hypervisor.contract import EndCause, MachineEnd

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
        self.process = 0
        """The id of the process that runs the machine; 0 if it is not known."""

    def follow(self, process: int | None) -> None:
        """Note the process that runs the domain, if it is one of this host that we can see."""
        if process:
            with suppress(ProcessLookupError):
                self._handle = open_process(process)
                self.process = process

    @property
    def has_ended(self) -> bool:
        return self._end.done()

    def on_lifecycle(self, event: int, detail: int) -> None:
        """Take an event of the domain (virDomainEventType)."""
        if event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
            self._was_asked_to_end = detail == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self._conclude(self._reason(detail))

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
        if not self._end.done():
            self._end.set_result(end)

    def _reason(self, detail: int) -> MachineEnd:
        if self._is_disk_full:
            return MachineEnd(EndCause.HOST_DISK_FULL, "the host's disk is full")
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
            if self._was_asked_to_end:
                return MachineEnd(EndCause.KILLED, "somebody told the hypervisor to end")
            return MachineEnd(EndCause.POWERED_OFF, "")
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
            return MachineEnd(EndCause.KILLED, "somebody else ended the machine by libvirt")
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED:
            return MachineEnd(
                EndCause.KILLED, "the hypervisor's process ended: it was killed, or it crashed"
            )
        return MachineEnd(EndCause.FAILED, f"libvirt tells that it ended for its reason {detail}")


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
