"""All processes of one program, as the kernel sees them: a control group (cgroup v2)."""

from __future__ import annotations

import posix as os  # see __init__.py
import select

DIRECTORY = "/sys/fs/cgroup"
_PAGE_KIB = 4
_NO_DATA = 61  # ENODATA of errno.h
_FREEZE_LIMIT_MS = 1000


class ControlGroup:
    """A new one, without processes. Children that forked away are among those that follow.

    Its files stay open, for to find them costs more than to use them. Raises OSError.
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
        """Puts the calling process in."""
        os.write(self._processes, b"0")

    def leave(self) -> None:
        """Puts the calling process back where it was."""
        os.write(self._outside, b"0")

    def kill(self) -> None:
        """Kills all of them, at once."""
        os.write(self._kill, b"1")

    def freeze(self) -> None:
        """Stops all of them, those to come too, and waits until each stands still, but not long:
        one that waits for a disk in the kernel stops when it leaves it."""
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
        """Lets all of them go on."""
        self._set_frozen(b"0")

    def _set_frozen(self, word: bytes) -> None:
        file = os.open(f"{self._path}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, word)
        finally:
            os.close(file)

    def cpu_time(self) -> tuple[int, int]:
        """User and system time of all of them, dead ones too, in microseconds."""
        # The kernel begins with "usage_usec N", "user_usec N", "system_usec N".
        words = os.pread(self._usage, 4096, 0).split(None, 6)
        if len(words) < 6 or words[2] != b"user_usec" or words[4] != b"system_usec":
            raise OSError(_NO_DATA, "cpu.stat begins otherwise")
        return int(words[3]), int(words[5])

    def resident(self) -> int:
        """KiB of memory that all of them have now; what they share counts for each."""
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
        """Takes the empty group away; False while the dead are still being buried."""
        try:
            os.rmdir(self._path)
        except OSError:
            return False
        for file in self._files:
            os.close(file)
        self._files.clear()
        return True
