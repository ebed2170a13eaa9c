"""Files by which a task on the host reports its progress: written by the program, read by us.

The program may do anything with them, so no link is followed, no read waits, and no file is read
whole.
"""

import math
import os
import re
import stat
from pathlib import Path

from boincvm.host.files import open_descriptor, read_at
from boincvm.wrapper.log import log

_TAIL = 4096
_NUMBER = re.compile(rb"[ \t]*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")


class FractionFile:
    """Reads the fraction done from the last line of a file that begins with a number."""

    def __init__(self, path: Path) -> None:
        """Remove the file that an earlier start of the task has left.

        What cannot be removed, a directory for example, stays and reports nothing.
        """
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log(f"{path} cannot be removed, so it cannot report the progress: {error.strerror}")
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._fraction: float | None = None

    def read(self) -> float | None:
        """Return 0.0 to 1.0, or None before the first number.

        Reads the file only if it has changed.
        """
        try:
            status = self._path.lstat()
        except OSError:
            return self._fraction  # perhaps it is being replaced
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if version != self._version and stat.S_ISREG(status.st_mode):
            self._version = version
            found = last_number(self._tail())
            if found is not None:
                self._fraction = min(max(found, 0.0), 1.0)
        return self._fraction

    def _tail(self) -> bytes:
        """Return the complete lines among the last bytes of the file."""
        try:
            descriptor = open_descriptor(self._path, follow_links=False, wait=False)
        except OSError:
            return b""
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return b""
            start = max(status.st_size - _TAIL, 0)
            data = read_at(descriptor, _TAIL, start)
        finally:
            os.close(descriptor)
        return data.partition(b"\n")[2] if start else data


class CheckpointFile:
    """Takes each new modification time of a file for a checkpoint."""

    def __init__(self, path: Path) -> None:
        """Begin at the start of a task; the file as it is now is not a new checkpoint."""
        self._path = path
        self._time = self._modified()

    def has_news(self) -> bool:
        """Tell whether the program has made a checkpoint since the last call."""
        time = self._modified()
        is_new = time is not None and time != self._time
        if is_new:
            self._time = time
        return is_new

    def _modified(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return None


def last_number(data: bytes) -> float | None:
    """Return the number of the last line that begins with one, or None."""
    for line in reversed(data.splitlines()):
        if match := _NUMBER.match(line):
            value = float(match[1])
            if math.isfinite(value):
                return value
    return None
