"""QEMU's monitor (QMP): commands and events."""

import asyncio
import contextlib
import socket
from base64 import b64encode
from typing import Self

from qemu.qmp import EventListener, QMPClient, QMPError, Runstate

from boincvm.errors import HypervisorError
from boincvm.host.shared_pipes import PipeEnd

LIMIT = 30.0
"""Seconds that a command may take; it takes milliseconds unless QEMU is stuck."""


class Monitor:
    """A connection to QEMU's monitor, made by `open`."""

    def __init__(self) -> None:
        self._client = QMPClient("boincvm")
        # The library takes QEMU's next message for the answer to its negotiation, but a machine
        # that has just loaded its state may send an event first.
        self._client.negotiate = False
        self._process = 0

    @classmethod
    async def open(cls, channel: socket.socket, process: int = 0) -> Self:
        """Connect over `channel`, which it takes over, to the QEMU of that process id.

        Raises HypervisorError; QEMU's log may say more.
        """
        monitor = cls()
        monitor._process = process
        channel.setblocking(False)
        try:
            async with asyncio.timeout(LIMIT):
                await monitor._client.connect(channel)
                await monitor._client.execute("qmp_capabilities")
        except BaseException as error:
            if monitor._client.runstate is not Runstate.IDLE:
                await monitor.close()
            channel.close()
            # The library raises AssertionError if QEMU ends during the greeting.
            if isinstance(error, (QMPError, TimeoutError, AssertionError)):
                raise HypervisorError(str(error) or "its monitor did not answer") from error
            raise
        return monitor

    @property
    def is_gone(self) -> bool:
        """Tell whether the connection has ended, and so QEMU is ending or has ended."""
        return self._client.runstate is not Runstate.RUNNING

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        """Execute a command and return its result. Raises HypervisorError."""
        if self.is_gone:
            raise HypervisorError(f"QEMU has ended, so {command} failed")
        try:
            async with asyncio.timeout(LIMIT):
                return await self._client.execute(command, arguments)
        except (QMPError, TimeoutError) as error:
            raise HypervisorError(f"QEMU refused {command}: {error or 'no answer'}") from error

    async def send_pipe(self, end: PipeEnd, name: str) -> None:
        """Give QEMU an end of a pipe under `name`. Raises HypervisorError."""
        try:
            shared = end.share(self._process)
        except OSError as error:
            raise HypervisorError(f"QEMU cannot be given a pipe: {error}") from error
        if isinstance(shared, int):
            await self.send_descriptor(shared, name)
        else:
            given: dict[str, object] = {"info": b64encode(shared).decode(), "fdname": name}
            await self.execute("get-win32-socket", given)

    async def send_descriptor(self, descriptor: int, name: str) -> None:
        """Give QEMU a copy of the descriptor under `name`. Raises HypervisorError."""
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as error:
            raise HypervisorError(
                f"QEMU has ended, so it accepted no descriptor: {error}"
            ) from error
        await self.execute("getfd", {"fdname": name})

    async def machine_type(self) -> str:
        """Return the machine type with its version, as the short name changes its meaning.

        Raises HypervisorError.
        """
        kind: dict[str, object] = {"path": "/machine", "property": "type"}
        return str(await self.execute("qom-get", kind)).removesuffix("-machine")

    def events(self, *names: str) -> contextlib.AbstractContextManager[EventListener]:
        """Return a listener for these events, to be used as a context manager."""
        return self._client.listener(names)

    async def disk_full(self) -> None:
        """Wait until a write of the guest fails because the host's disk is full."""
        with self._client.listener("BLOCK_IO_ERROR") as errors:
            async for error in errors:
                data = error["data"]
                if isinstance(data, dict) and data.get("nospace"):
                    return

    async def close(self) -> None:
        """Close the connection to a QEMU that has ended."""
        # QEMU may have died before it could disconnect, which the machine's end reports.
        with contextlib.suppress(QMPError, EOFError, OSError):
            await self._client.disconnect()
