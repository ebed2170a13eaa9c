"""Control groups (cgroup v2), each with all processes of one program."""

from __future__ import annotations

import posix as os  # see __init__.py
import select

DIRECTORY = "/sys/fs/cgroup"
_PAGE_KIB = 4
_NO_DATA = 61  # ENODATA of errno.h
_FREEZE_LIMIT_MS = 1000


class ControlGroup:
    """A new control group; it also contains all descendants of the processes that enter it.

    Its files stay open, because opening them costs more than using them. Raises OSError.
    """

    def __init__(self, name: str) -> None:
        self._path = f"{DIRECTORY}/{name}"
        self._files: list[int] = []
        os.mkdir(self._path)
        try:
            self._processes = self._open(f"{self._path}/cgroup.procs", os.O_RDWR)
            self._kill = self._open(f"{self._path}/cgroup.kill", os.O_WRONLY)
            self._usage = self._open(f"{self._path}/cpu.stat", os.O_RDONLY)
            self._outside = self._open(f"{DIRECTORY}/cgroup.procs", os.O_WRONLY)
        except OSError:
            self.remove()
            raise

    def _open(self, path: str, flags: int) -> int:
        self._files.append(os.open(path, flags | os.O_CLOEXEC))
        return self._files[-1]

    def enter(self) -> None:
        """Move the calling process into the group."""
        os.write(self._processes, b"0")

    def leave(self) -> None:
        """Move the calling process back to the root group."""
        os.write(self._outside, b"0")

    def kill(self) -> None:
        """Kill all processes of the group."""
        os.write(self._kill, b"1")

    def freeze(self) -> None:
        """Stop all processes, including future ones, and wait a short time until all have stopped.

        A process that waits for a disk in the kernel stops later.
        """
        events = os.open(f"{self._path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            changed = select.poll()
            changed.register(events, select.POLLPRI)
            self._set_frozen(b"1")
            while b"frozen 1" not in os.pread(events, 4096, 0):
                if not changed.poll(_FREEZE_LIMIT_MS):
                    break
        finally:
            os.close(events)

    def thaw(self) -> None:
        """Let all processes run again."""
        self._set_frozen(b"0")

    def _set_frozen(self, word: bytes) -> None:
        file = os.open(f"{self._path}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, word)
        finally:
            os.close(file)

    def cpu_time(self) -> tuple[int, int]:
        """Return the user and system time of all processes so far, in microseconds."""
        # The kernel begins with "usage_usec N", "user_usec N", "system_usec N".
        words = os.pread(self._usage, 4096, 0).split(None, 6)
        if len(words) < 6 or words[2] != b"user_usec" or words[4] != b"system_usec":
            raise OSError(_NO_DATA, "cpu.stat begins otherwise")
        return int(words[3]), int(words[5])

    def resident(self) -> int:
        """Return the KiB of memory of all processes; shared memory is counted for each."""
        pages = 0
        with open(f"{self._path}/cgroup.procs", "rb") as file:
            processes = file.read().split()
        for process in processes:
            try:
                with open(b"/proc/%b/statm" % process, "rb") as file:
                    pages += int(file.read().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has just ended
        return pages * _PAGE_KIB

    def remove(self) -> bool:
        """Remove the group; return False while it still has ended processes."""
        try:
            os.rmdir(self._path)
        except OSError:
            return False
        for file in self._files:
            os.close(file)
        self._files.clear()
        return True
