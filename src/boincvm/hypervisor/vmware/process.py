"""VMware's program that runs one machine, `vmware-vmx`, and the serial lines that it connects.

`vmrun` starts it and ends; it is no child of ours. It is known by the sockets that it connects to.
"""

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress

from boincvm.errors import HypervisorError, HypervisorKilledError
from boincvm.host.process_tree import own_usage
from boincvm.host.processes import DeathGuard, kill_opened, open_process
from boincvm.host.sockets import peer_process
from boincvm.hypervisor.boot_loader import MARK
from boincvm.hypervisor.console import Console
from boincvm.hypervisor.contract import EndCause, MachineEnd, Usage
from boincvm.hypervisor.listeners import accept_all, listen_at
from boincvm.hypervisor.process_end import end_of_other
from boincvm.hypervisor.vmware.definition import CONSOLE, LINES, LINK, RECEIPTS
from boincvm.hypervisor.vmware.home import Home
from boincvm.side_thread import in_side_thread

_CONNECT_LIMIT = 60.0
"""Seconds within which a machine that VMware has started has connected its serial lines."""
_END_LIMIT = 60.0
"""Seconds that VMware's program may take to end."""
_REAP_LIMIT = 5.0
"""Seconds that the process whose child it has become may take to reap it."""
_EXIT = re.compile(r"VMX exit \((-?[0-9]{1,6})\)")
"""What the program writes to its log last, unless it was killed."""


class VmxProcess:
    """A running machine; make one with `start`.

    `link` and `receipts` are our ends of its serial lines; the caller that takes them owns them.
    """

    def __init__(
        self,
        home: Home,
        pid: int,
        handle: int,
        lines: list[socket.socket],
        power_off: Callable[[], Awaitable[None]],
        *,
        boots: bool,
    ) -> None:
        self._home = home
        self._handle = handle
        self.pid = pid
        self.link, self.receipts = lines[LINK], lines[RECEIPTS]
        self._power_off = power_off
        self._marks_to_come = 1 if boots else 0
        self._has_rebooted = False
        self._is_to_end = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._guard = DeathGuard(pid, home.name)
        self._console = Console(
            lines[CONSOLE], on_panic=self._is_to_end.set, on_output=self._look_for_mark
        )
        asyncio.get_running_loop().add_reader(handle, self._note_end)

    @classmethod
    async def start(
        cls,
        home: Home,
        power_on: Callable[[], Awaitable[None]],
        power_off: Callable[[], Awaitable[None]],
        *,
        boots: bool,
    ) -> "VmxProcess":
        """Start the machine, whose definition lies in `home`.

        `boots`: it starts from the boot disc, and does not go on from a saved state. Raises
        HypervisorError, HypervisorMissingError, HostDiskFullError, OSError.
        """
        with ExitStack() as stack:
            listeners = [stack.enter_context(listen_at(home.socket_path(line))) for line in LINES]
            try:
                await power_on()
                lines = await accept_all(listeners, _CONNECT_LIMIT)
                try:
                    pid, handle = _open_peer(lines[LINK])
                    home.note_process(pid)
                    return cls(home, pid, handle, lines, power_off, boots=boots)
                except BaseException:
                    for line in lines:
                        line.close()
                    raise
            except BaseException:
                # Whether it has started is not known; `vmrun` says no if it has not.
                with suppress(HypervisorError):
                    await power_off()
                raise

    def _look_for_mark(self, data: bytes) -> None:
        """Have a machine ended whose guest reboots: VMware cannot be told to do that."""
        self._marks_to_come -= data.count(MARK)
        if self._marks_to_come < 0 and not self._is_to_end.is_set():
            self._has_rebooted = True
            self._is_to_end.set()

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        self._has_ended.set()

    @property
    def is_running(self) -> bool:
        return not self._has_ended.is_set()

    async def ended(self) -> MachineEnd:
        """Wait for its end, and return why it ended, as far as VMware and the guest tell."""
        to_end = asyncio.ensure_future(self._is_to_end.wait())
        end = asyncio.ensure_future(self._has_ended.wait())
        try:
            await asyncio.wait((to_end, end), return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                await self.power_off()
            await end
        finally:
            to_end.cancel()
            end.cancel()
        self._guard.end()
        if panic := self._console.panic_line():
            return MachineEnd(EndCause.PANICKED, panic)
        if self._has_rebooted:
            return MachineEnd(EndCause.POWERED_OFF, "")
        return await self._reason(self._home.log())

    async def _reason(self, log: str) -> MachineEnd:
        """Return why a machine has ended that nobody has told to."""
        exits = _EXIT.findall(log)
        if not exits:  # it was killed, or it crashed, or its log has been removed since
            # The thread has a handle of its own: `close` may come first.
            handle = os.dup(self._handle) if self._handle >= 0 else None
            return await in_side_thread(_end_of, handle)
        if exits[-1] == "0":
            return MachineEnd(EndCause.POWERED_OFF, "")
        return MachineEnd(EndCause.FAILED, f"VMware's program ended with {exits[-1]}: see its log")

    async def power_off(self) -> None:
        """End it now, and wait for its end. Raises HypervisorError if it does not end."""
        refused: HypervisorError | None = None
        if self.is_running:
            try:
                await self._power_off()
            except HypervisorError as error:
                refused = error
                self._kill()
        try:
            async with asyncio.timeout(_END_LIMIT):
                await self._has_ended.wait()
        except TimeoutError:
            raise refused or HypervisorError(
                f"VMware has not ended the machine within {_END_LIMIT:g} s"
            ) from None

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # it ends, or it runs as root
            kill_opened(self._handle)

    async def wait(self) -> None:
        """Wait for its end, which is near. Raises HypervisorError."""
        try:
            async with asyncio.timeout(_END_LIMIT):
                await self._has_ended.wait()
        except TimeoutError:
            raise HypervisorError("VMware's program has not ended with its machine") from None

    def usage(self) -> Usage | None:
        """Return what it uses, or None if it has ended."""
        return Usage(*own_usage(self.pid)) if self.is_running else None

    def close(self) -> None:
        """Release a machine that has ended. Idempotent."""
        self._guard.end()
        self._console.close()
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1


def _end_of(handle: int | None) -> MachineEnd:
    """Return how VMware's program has ended; close `handle`."""
    try:
        return end_of_other(handle, "VMware's program", _REAP_LIMIT)
    finally:
        if handle is not None:
            os.close(handle)


def _open_peer(line: socket.socket) -> tuple[int, int]:
    """Return the id of the process at the line's other end, and a handle of it.

    Raises HypervisorError.
    """
    pid = peer_process(line)
    if not pid:
        raise HypervisorError("VMware's program that runs the machine is not known")
    try:
        handle = open_process(pid)
    except ProcessLookupError:
        raise HypervisorKilledError("VMware's program ended as soon as it had started") from None
    if handle is None:
        raise HypervisorError("this system cannot report when VMware's program ends")
    return pid, handle
