"""Changes of files on Linux: inotify(7)."""

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

assert sys.platform == "linux"

_MODIFY = 0x2
"""IN_MODIFY of sys/inotify.h."""
_ROOM = 1 << 12
"""Bytes for the events that are read at once."""
_libc = ctypes.CDLL(None, use_errno=True)


class FileWatch:
    """Calls `on_change` in the running event loop after each write to a file, until `close`."""

    def __init__(self, path: Path, on_change: Callable[[], None]) -> None:
        """Begin to watch. Raises OSError, for example if there is no such file."""
        self._on_change = on_change
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(path), _MODIFY))
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _read(self) -> None:
        try:
            os.read(self._descriptor, _ROOM)
        except BlockingIOError:
            return
        self._on_change()

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _checked(result: int) -> int:
    """Return the result of a call of the C library. Raises OSError if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
