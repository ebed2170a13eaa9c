"""VirtualBox's log of a machine, `VBox.log`: the only place where it tells some troubles.

A line begins with the time: `00:00:08.022370 VM: Raising runtime error 'DrvVD_DISKFULL' …`. What a
guest has VirtualBox log stands in lines that begin in another way.
"""

import re
from collections.abc import Callable
from pathlib import Path

from boincvm.host.file_changes import FileWatch
from boincvm.host.files import open_regular
from boincvm.redaction import redact

_PIECE = 1 << 16
"""Bytes that are read at once, and that are kept for `cause`."""
_DISK_FULL = re.compile(rb"^[0-9]+:[0-9:.]+ VM: Raising runtime error '\w+_DISKFULL'", re.MULTILINE)
_TIME = re.compile(r"^[0-9]+(?::[0-9]+)+\.[0-9]+ ")
_TELLING = re.compile(r"VMSetError|[Rr]untime error|Guru Meditation|!!|\bVERR_|Assertion")
_LONGEST = 200


class MachineLog:
    """Follows the log of a running machine until `close`."""

    def __init__(self, path: Path, on_disk_full: Callable[[], None]) -> None:
        """Follow the log from its beginning. Raises OSError.

        `on_disk_full` is called once, when VirtualBox has suspended the machine because a disk of
        the host is full; nothing would ever resume it.
        """
        self.is_disk_full = False
        self._on_disk_full = on_disk_full
        self._file = open_regular(path)
        self._tail = b""
        try:
            self._watch = FileWatch(path, self._read)
        except BaseException:
            self._file.close()
            raise
        self._read()

    def _read(self) -> None:
        """Read what has been written since the last time."""
        while not self._file.closed and (data := self._file.read(_PIECE)):
            text = self._tail + data
            is_full = _DISK_FULL.search(text) is not None
            self._tail = text[-_PIECE:]
            if is_full and not self.is_disk_full:
                self.is_disk_full = True
                self._on_disk_full()

    def cause(self) -> str:
        """Return the line that best explains why the machine ended, or ""."""
        self._read()
        lines = [
            _TIME.sub("", line).strip()
            for line in self._tail.decode(errors="replace").splitlines()[-200:]
        ]
        telling = [line for line in lines if _TELLING.search(line)]
        last = (telling or list(filter(None, lines)) or [""])[-1]
        return "".join(filter(str.isprintable, redact(last)))[:_LONGEST]

    def close(self) -> None:
        """Read the rest, and stop following. Idempotent."""
        self._watch.close()
        self._read()
        self._file.close()
