"""Create in advance what each program needs from the kernel.

`prepare` is called when the machine is quiesced: if it is saved then, each of its copies finds all
of this ready. Under emulation everything is slow the first time: a control group takes 6 ms to
create.
"""

from __future__ import annotations

import posix as os  # see __init__.py
import select

from boincvm_agent.control_group import ControlGroup
from boincvm_agent.machine import SEEK_END
from boincvm_agent.spawn import Pipes

_SIZE = 1 << 14


class Prepared:
    """The prepared objects for all programs of a machine. All methods may raise OSError."""

    def __init__(self) -> None:
        self._group: ControlGroup | None = None
        self._pipes: Pipes | None = None
        self._groups_made = 0
        self._kills: OutOfMemoryKills | None = None

    def prepare(self) -> None:
        """Create what the next program needs, unless it exists."""
        if self._group is None:
            self._group = self._make_group()
        if self._pipes is None:
            self._pipes = Pipes()
        self.out_of_memory_kills()

    def take_group(self) -> ControlGroup:
        """Return an unused control group."""
        group, self._group = self._group, None
        return group or self._make_group()

    def _make_group(self) -> ControlGroup:
        self._groups_made += 1
        return ControlGroup(f"program-{self._groups_made}")

    def take_pipes(self) -> Pipes:
        """Return unused pipes."""
        pipes, self._pipes = self._pipes, None
        return pipes or Pipes()

    def out_of_memory_kills(self) -> int:
        """Return how many processes the kernel has killed since boot because memory was short."""
        if self._kills is None:
            self._kills = OutOfMemoryKills()
        return self._kills.count()


class OutOfMemoryKills:
    """Counts the processes that the kernel has killed because memory was short.

    The kernel logs each kill. Its file of counters is long, so it is read only when the log has a
    new entry. Raises OSError.
    """

    def __init__(self) -> None:
        self._counters = os.open("/proc/vmstat", os.O_RDONLY | os.O_CLOEXEC)
        self._log = os.open("/dev/kmsg", os.O_RDONLY | os.O_CLOEXEC)
        self._news = select.poll()
        self._news.register(self._log, select.POLLIN)
        self._known = 0

    def count(self) -> int:
        """Return the number since boot."""
        if self._news.poll(0):
            os.lseek(self._log, 0, SEEK_END)  # before reading the counters, so that none is missed
            self._known = self._read_count()
        return self._known

    def _read_count(self) -> int:
        text = b""
        while piece := os.pread(self._counters, _SIZE, len(text)):
            text += piece
        _, _, rest = text.partition(b"\noom_kill ")
        return int(rest.partition(b"\n")[0] or 0)
