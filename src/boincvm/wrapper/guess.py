"""A standalone run's machine, begun before anybody knows which one the run wants.

To find that out takes much of boincvm, which takes as long to import as QEMU takes to start. Mostly
it is the machine that the same options led to last time: that one is begun at once, and which one
it should be is found out meanwhile. If the guess was wrong, its machine goes. Its guest has done
nothing then: that of a golden snapshot waits for its host's first word.
"""

from __future__ import annotations

import _signal
import marshal
import os
from time import monotonic

from boincvm.descriptors import fill_closed_descriptors
from boincvm.hypervisor.early_qemu import ASKING_SIGNALS, EarlyQemu
from boincvm.paths import cache_place
from boincvm.wrapper.golden_switch import is_wanted
from boincvm.wrapper.run_directory import RunDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from boincvm.hypervisor.early_qemu import Plan

_MOST_BYTES = 1 << 16
_MOST_PLANS = 8
_UNREADABLE = (ValueError, EOFError, TypeError, AttributeError, LookupError)
"""What may come of a file that says something else than plans."""


class Guess:
    """`options`: words that tell the machine. In the block `qemu` runs in `directory`, if it could
    be guessed, since `at` by the monotonic clock; signals that ask us to end wait meanwhile.
    """

    def __init__(self, options: list[str], *, is_early: bool) -> None:
        """`is_early`: nothing else has happened in this process."""
        self._options = options
        self._may_begin = is_early and is_wanted()
        self._signals = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self.at = monotonic()
        self.directory: RunDirectory | None = None
        self.qemu: EarlyQemu | None = None

    def __enter__(self) -> Guess:
        fill_closed_descriptors()
        try:
            plan = self._recall() if self._may_begin else None
            if plan is not None:
                _signal.pthread_sigmask(_signal.SIG_BLOCK, ASKING_SIGNALS)
                self.directory = RunDirectory()
                self.qemu = EarlyQemu(plan, self.directory.place)
        except (*_UNREADABLE, OSError, RuntimeError):
            self.end()  # the run itself will meet with what is wrong, and tell
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._signals)

    def _recall(self) -> Plan | None:
        for options, plan in _kept():
            if options == self._options:
                return plan
        return None

    def take(self, plan: Plan | None) -> tuple[EarlyQemu, RunDirectory] | None:
        """What was begun, if it follows that plan; the caller ends both. Else it is ended."""
        qemu, directory = self.qemu, self.directory
        if qemu is None or directory is None or plan is None or not qemu.follows(plan):
            self.end()
            return None
        self.qemu = self.directory = None
        return qemu, directory

    def end(self) -> None:
        """Ends what nobody has taken."""
        qemu, self.qemu = self.qemu, None
        if qemu is not None:
            qemu.end()
        directory, self.directory = self.directory, None
        if directory is not None:
            directory.close()

    def remember(self, plan: Plan, directory: Path) -> None:
        """That is what these options lead to. In `directory` it may be written first."""
        try:
            others = [one for one in _kept() if one[0] != self._options]
        except (*_UNREADABLE, OSError):
            others = []
        new = os.path.join(directory, "plans")
        try:
            with open(new, "xb") as file:
                file.write(marshal.dumps([(self._options, plan), *others[: _MOST_PLANS - 1]]))
            os.replace(new, _file())
        except OSError:
            pass  # the next run begins no earlier for it


def _kept() -> list[tuple[list[str], Plan]]:
    """Options and what they led to, the latest first."""
    with open(_file(), "rb") as file:
        # No more of a risk than Python's own __pycache__: whoever may write it is this user.
        kept: list[tuple[list[str], Plan]] = marshal.loads(file.read(_MOST_BYTES))  # noqa: S302
    return kept


def _file() -> str:
    return os.path.join(cache_place(), "run-plans")
