"""QEMU's monitor (QMP): commands, jobs, and the one event that somebody waits for."""

import asyncio
import contextlib
import socket
from typing import Self

from qemu.qmp import ConnectError, Message, QMPClient, QMPError, Runstate

from boincvm.errors import HypervisorError

LIMIT = 30.0
"""Seconds that a command may take; it takes milliseconds unless QEMU is stuck."""
JOB_LIMIT = 300.0
"""Seconds that a job may take, such as writing out the guest's memory."""


class Monitor:
    """Made by `open`."""

    def __init__(self) -> None:
        self._client = QMPClient("boincvm")

    @classmethod
    async def open(cls, channel: socket.socket) -> Self:
        """Takes over `channel`. Raises HypervisorError; QEMU may have said more on its log."""
        monitor = cls()
        channel.setblocking(False)
        try:
            async with asyncio.timeout(LIMIT):
                await monitor._client.connect(channel)
        except (ConnectError, TimeoutError) as error:
            channel.close()
            raise HypervisorError(str(error) or "its monitor did not answer") from error
        return monitor

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        """What QEMU returns. Raises HypervisorError."""
        if self._client.runstate is not Runstate.RUNNING:
            raise HypervisorError(f"QEMU is gone, so there was no {command}")
        try:
            async with asyncio.timeout(LIMIT):
                return await self._client.execute(command, arguments)
        except (QMPError, TimeoutError) as error:
            raise HypervisorError(f"QEMU refused {command}: {error or 'no answer'}") from error

    async def run_job(self, command: str, arguments: dict[str, object]) -> None:
        """Runs the job that `command` starts to its end. Raises HypervisorError."""
        with self._client.listener("JOB_STATUS_CHANGE") as changes:
            await self.execute(command, {"job-id": command, **arguments})
            try:
                async with asyncio.timeout(JOB_LIMIT):
                    async for change in changes:
                        if _has_concluded(change, command):
                            break
            except TimeoutError:
                raise HypervisorError(f"QEMU's {command} took over {JOB_LIMIT:g} s") from None
        jobs = await self.execute("query-jobs")
        await self.execute("job-dismiss", {"id": command})
        for job in jobs if isinstance(jobs, list) else ():
            if job["id"] == command and "error" in job:
                raise HypervisorError(f"QEMU's {command} failed: {job['error']}")

    async def snapshots(self, node: str) -> list[str]:
        """Names of the snapshots in the image behind the block node `node`."""
        nodes = await self.execute("query-named-block-nodes", {"flat": True})
        found: list[str] = []
        for entry in nodes if isinstance(nodes, list) else ():
            if entry.get("node-name") == node:
                found += [str(one["name"]) for one in entry["image"].get("snapshots", ())]
        return found

    async def disk_full(self) -> None:
        """Waits until a write of the guest finds the host's disk full."""
        with self._client.listener("BLOCK_IO_ERROR") as errors:
            async for error in errors:
                data = error["data"]
                if isinstance(data, dict) and data.get("nospace"):
                    return

    async def close(self) -> None:
        """Lets go of a QEMU that has ended."""
        # It may have died before it could say goodbye, which the machine's end tells.
        with contextlib.suppress(QMPError, EOFError, OSError):
            await self._client.disconnect()


def _has_concluded(change: Message, job: str) -> bool:
    data = change["data"]
    return isinstance(data, dict) and data.get("id") == job and data.get("status") == "concluded"
