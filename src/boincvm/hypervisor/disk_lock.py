"""A lock on a machine's disk that its hypervisor's process holds until it has ended.

When the process that started a hypervisor is killed, the hypervisor ends a moment later, or much
later if it waits for a slow disk of the host. Until then nobody else may write to the machine's
disk, which would be damaged.
"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from boincvm.errors import HypervisorError
from boincvm.host.files import read_at, write_at
from boincvm.host.lock_queue import wait_for_lock
from boincvm.host.locks import open_lock, try_lock
from boincvm.host.processes import kill_opened, open_process
from boincvm.hypervisor.disks import disk_failure

FILE = "disk.lock"
"""In the machine's directory. It holds the process id, in decimal, of who has it locked."""
LIMIT = 60.0
"""Seconds that a killed hypervisor may take to end."""


class DiskLock:
    """The lock, which we hold until `close`, and a process that inherits `descriptor` as well."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    async def take(cls, directory: Path) -> Self:
        """Take the lock on the disk of the machine in `directory`.

        Another process that has it is killed, and its end is waited for. Raises HypervisorError,
        HostDiskFullError.
        """
        path = directory / FILE
        try:
            _kill_holder(path)
            async with asyncio.timeout(LIMIT):
                descriptor = await wait_for_lock(path)
            os.truncate(descriptor, 0)  # its former holder's id may be another process's by now
        except TimeoutError:
            raise HypervisorError(
                f"the machine's last hypervisor was killed, but has not ended within {LIMIT:g} s",
                hint="it may be waiting for the host's disk: try again later",
            ) from None
        except OSError as error:
            raise disk_failure(error) from error
        return cls(descriptor)

    def note(self, process: int) -> None:
        """Note which process has inherited the lock.

        On a full disk it is not noted; the next one to take the lock only waits for it then.
        """
        with suppress(OSError):
            write_at(self.descriptor, str(process).encode(), 0)

    def close(self) -> None:
        """Leave the lock to the process that has inherited it, if there is one."""
        os.close(self.descriptor)


def _kill_holder(path: Path) -> None:
    """Kill the process that has the file locked, if it is known. Raises OSError."""
    descriptor = open_lock(path)
    try:
        noted = read_at(descriptor, 16, 0)
        if try_lock(descriptor) or not noted.isdigit():
            return
        with suppress(ProcessLookupError):
            handle = open_process(int(noted))
            if handle is None:
                return  # what ends it with its parent will do so
            try:
                if not try_lock(descriptor):  # or it has ended, and its id is another's by now
                    kill_opened(handle)
            finally:
                os.close(handle)
    finally:
        os.close(descriptor)
