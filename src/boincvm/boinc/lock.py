"""boinc_lockfile: only one app may run in a slot.

The same lock that BOINC's library takes: an fcntl(2) write lock on the whole file, which goes
with the process that holds it, however it ends. (api/boinc_api.cpp, boinc_init_options_general;
lib/filesys.cpp, FILE_LOCK.)
"""

import asyncio
import os
from pathlib import Path

from boincvm.errors import HostError, host_error
from boincvm.host.locks import lock_slot_file

FILE_NAME = "boinc_lockfile"
USUAL_WAIT = 35.0
"""Seconds for a former app to go: longer than one needs to miss its client."""
RETRY_DELAY = 600
"""Seconds after which the client should start a task again whose slot stays locked."""
_PAUSE = 0.1


class SlotBusyError(HostError):
    """Another app runs in the slot: make a temporary exit of RETRY_DELAY seconds of it."""


class SlotLock:
    """Held from `acquire` to `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    async def acquire(cls, slot: Path, wait: float = USUAL_WAIT) -> "SlotLock":
        """Tries again for `wait` seconds. Raises SlotBusyError, HostError."""
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
        """Removes the file and lets go of the lock; once is enough, twice does no harm."""
        if self._descriptor < 0:
            return
        # While it is still locked: nobody may lock a file that is about to lose its name.
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1
