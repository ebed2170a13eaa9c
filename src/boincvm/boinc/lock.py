"""boinc_lockfile: only one app may run in a slot.

The same lock as that of BOINC's library: an fcntl(2) write lock on the whole file, on Windows the
file opened so that nobody else can open it. It is released when the process that holds it ends,
however it ends. (api/boinc_api.cpp, boinc_init_options_general; lib/filesys.cpp, FILE_LOCK.)
"""

import asyncio
from pathlib import Path

from boincvm.errors import HostError, host_error
from boincvm.host.locks import lock_slot_file, release_slot_file

FILE_NAME = "boinc_lockfile"
USUAL_WAIT = 35.0
"""Seconds to wait for a previous app: longer than an app takes to notice that its client is
gone."""
RETRY_DELAY = 600
"""Seconds after which the client should restart a task whose slot stays locked."""
_PAUSE = 0.1


class SlotBusyError(HostError):
    """Another app runs in the slot: respond with a temporary exit of RETRY_DELAY seconds."""


class SlotLock:
    """The lock on a slot, held from `acquire` to `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    async def acquire(cls, slot: Path, wait: float = USUAL_WAIT) -> "SlotLock":
        """Lock the slot, trying for `wait` seconds. Raises SlotBusyError, HostError."""
        path = slot / FILE_NAME
        limit = asyncio.get_running_loop().time() + wait
        while True:
            try:
                descriptor = lock_slot_file(path)
            except OSError as error:
                raise host_error(f"{FILE_NAME} cannot be locked", error) from error
            if descriptor is not None:
                return cls(path, descriptor)
            if asyncio.get_running_loop().time() >= limit:
                raise SlotBusyError(
                    f"another process has locked the slot and kept it for {wait:g} s",
                    hint="it ends by itself when its BOINC client is gone",
                )
            await asyncio.sleep(_PAUSE)

    def release(self) -> None:
        """Remove the file and release the lock; calling it again is harmless."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        release_slot_file(self._path, descriptor)
