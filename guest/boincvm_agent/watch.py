"""Watch files and report their changes to the host.

dnotify (fcntl.F_NOTIFY) reports a change in a directory by SIGIO, once each time that it is armed.
Unlike inotify it needs no ctypes, which would cost a tenth of a second here. It is armed again when
the files are checked, at most once a second: so a program that writes all the time costs one check
a second, and one that writes nothing costs nothing. A kernel without dnotify reports nothing; under
it the files are checked once a second.
"""

from __future__ import annotations

import _signal
import errno
import fcntl
import os
import stat
import time

from boincvm import tree_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boincvm_agent.link import Link

TAIL = 4096
"""Number of bytes at a file's end that are sent with a change."""
_SIGIO = 29  # asm/signal.h
_PAUSE = 1.0  # seconds between two checks
_EVENTS = fcntl.DN_MODIFY | fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_ATTRIB
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Watch:
    """Watches the file `path` below `directory`; both need not exist yet. Raises ValueError."""

    def __init__(self, link: Link, call: str, number: str, directory: bytes, path: bytes) -> None:
        self.call = call
        self._link = link
        self._number = number
        self._directory = directory
        *self._parents, self._name = tree_entries.components(path)
        self._watched = -1
        self.is_notified = True
        """Whether the kernel reports changes."""
        self._last: tuple[int, int, bytes] | None = None

    def check(self) -> None:
        """Arm the notification first, then report a change, so that no change is missed."""
        found = self._find()
        if found is not None and found != self._last:
            self._last = found
            mtime, size, tail = found
            headers = {"watch": self._number, "mtime-ns": str(mtime), "size": str(size)}
            self._link.send("changed", self.call, headers, tail)

    def _find(self) -> tuple[int, int, bytes] | None:
        """Return the file's time, size and last bytes; None while it does not exist."""
        self.close()
        try:
            self._watched = os.open(self._directory, _DIRECTORY)
            self._arm()
            for part in self._parents:
                inner = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self._watched)
                self.close()
                self._watched = inner
                self._arm()
            return self._read()
        except OSError:
            return None  # missing or unreadable; a change of that is noticed

    def _arm(self) -> None:
        try:
            fcntl.fcntl(self._watched, fcntl.F_NOTIFY, _EVENTS)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.is_notified = False  # the kernel was built without CONFIG_DNOTIFY

    def _read(self) -> tuple[int, int, bytes] | None:
        # Check the kind before opening: opening a device may have an effect.
        kind = os.stat(self._name, dir_fd=self._watched, follow_symlinks=False).st_mode
        if not stat.S_ISREG(kind):
            return None
        descriptor = os.open(self._name, _FILE, dir_fd=self._watched)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            tail = os.pread(descriptor, TAIL, max(0, status.st_size - TAIL))
            return status.st_mtime_ns, status.st_size, tail
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the directory, which ends its notifications."""
        if self._watched >= 0:
            os.close(self._watched)
            self._watched = -1


class Watches:
    """All watches together: a notification does not say which of them it is for."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._watches: list[Watch] = []
        self._checked_at = 0.0
        self.due: float | None = None
        """When to call `check`, by the monotonic clock; None while nothing has happened."""
        _signal.signal(_SIGIO, lambda *_: None)

    def add(self, watch: Watch) -> None:
        """Add a watch, and report the present state of its file."""
        self._watches.append(watch)
        watch.check()
        if not watch.is_notified and self.due is None:
            self.due = time.monotonic() + _PAUSE

    def notice(self, signals: bytes) -> None:
        """Schedule a check if one of these signals reports a change in a directory."""
        if _SIGIO in signals and self.due is None:
            self.due = max(time.monotonic(), self._checked_at + _PAUSE)

    def check(self) -> None:
        """Check all files; to be called at `due`."""
        self._checked_at = time.monotonic()
        if not self._link.has_room:
            self.due = self._checked_at + _PAUSE
            return
        for watch in self._watches:
            watch.check()
        are_notified = all(watch.is_notified for watch in self._watches)
        self.due = None if are_notified else self._checked_at + _PAUSE

    def finish(self, call: str) -> None:
        """Check a program's files for the last time after its end."""
        for watch in self._watches:
            if watch.call == call:
                watch.check()
        self.drop(call)

    def drop(self, call: str) -> None:
        """Remove the watches of a program."""
        for watch in [watch for watch in self._watches if watch.call == call]:
            watch.close()
            self._watches.remove(watch)
