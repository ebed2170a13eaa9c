"""What each program takes of the kernel, made before it comes.

`prepare` is called when the machine falls quiet: it may be kept then, and each of its copies
finds all of this ready. Under emulation all that is done for the first time is slow: a control
group takes 6 ms to make.
"""

from __future__ import annotations

import posix as os  # see __init__.py
import select

from boincvm_agent.control_group import ControlGroup
from boincvm_agent.machine import SEEK_END
from boincvm_agent.spawn import Pipes

_SIZE = 1 << 14


class Prepared:
    """One for all programs of a machine. Everything may raise OSError."""

    def __init__(self) -> None:
        self._group: ControlGroup | None = None
        self._pipes: Pipes | None = None
        self._groups_made = 0
        self._kills: OutOfMemoryKills | None = None

    def prepare(self) -> None:
        """Makes what the next program needs, unless it is there."""
        if self._group is None:
            self._group = self._make_group()
        if self._pipes is None:
            self._pipes = Pipes()
        self.out_of_memory_kills()

    def take_group(self) -> ControlGroup:
        """A control group that nobody has used."""
        group, self._group = self._group, None
        return group or self._make_group()

    def _make_group(self) -> ControlGroup:
        self._groups_made += 1
        return ControlGroup(f"program-{self._groups_made}")

    def take_pipes(self) -> Pipes:
        """Pipes that nobody has used."""
        pipes, self._pipes = self._pipes, None
        return pipes or Pipes()

    def out_of_memory_kills(self) -> int:
        """How many processes the kernel has killed for want of memory, since boot."""
        if self._kills is None:
            self._kills = OutOfMemoryKills()
        return self._kills.count()


class OutOfMemoryKills:
    """The kernel tells of each in its log; its counters, which are many, are looked at only when
    the log has something new. Raises OSError."""

    def __init__(self) -> None:
        self._counters = os.open("/proc/vmstat", os.O_RDONLY | os.O_CLOEXEC)
        self._log = os.open("/dev/kmsg", os.O_RDONLY | os.O_CLOEXEC)
        self._news = select.poll()
        self._news.register(self._log, select.POLLIN)
        self._known = 0

    def count(self) -> int:
        """Since boot."""
        if self._news.poll(0):
            os.lseek(self._log, 0, SEEK_END)  # before the look: nothing falls in between
            self._known = self._read_count()
        return self._known

    def _read_count(self) -> int:
        text = b""
        while piece := os.pread(self._counters, _SIZE, len(text)):
            text += piece
        _, _, rest = text.partition(b"\noom_kill ")
        return int(rest.partition(b"\n")[0] or 0)
