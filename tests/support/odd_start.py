"""Commands started as by `nohup`, a script's `&`, a careless parent or with a strange umask."""

import signal
import sys
from typing import NamedTuple

_START = """
import os, signal, sys
ignored, blocked, umask, *argv = sys.argv[1:]
for number in map(int, ignored.split()):
    signal.signal(number, signal.SIG_IGN)
for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
    if str(int(number)) not in ignored.split():
        signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, map(int, blocked.split()))
os.umask(int(umask, 8))
os.execvp(argv[0], argv)
"""
STOPPING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
NOTHING = f"{0:016x}"
STATE = "exec grep -E '^(Umask|SigBlk|SigIgn)' /proc/self/status"
"""A command that shows the state of its process."""


class ProcessState(NamedTuple):
    """A process state that a command is started with."""

    ignored: tuple[int, ...] = ()
    """Signals."""
    blocked: tuple[int, ...] = ()
    """Signals."""
    umask: int = 0o022
    """As it is set."""
    sane: int = 0o022
    """The umask that programs are to have."""

    @property
    def before(self) -> list[str]:
        """Return a command that starts another one in this state."""
        ignored, blocked = [" ".join(str(int(n)) for n in reported) for reported in self[:2]]
        return [sys.executable, "-c", _START, ignored, blocked, f"{self.umask:o}"]


NOHUP = ProcessState(ignored=(signal.SIGHUP,))
BACKGROUND = ProcessState(ignored=(signal.SIGINT, signal.SIGQUIT))
ALL = {
    "plain": ProcessState(),
    "nohup": NOHUP,
    "background": BACKGROUND,
    "pipe and child": ProcessState(ignored=(signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ)),
    "all": ProcessState(ignored=tuple(set(range(1, 65)) - {9, 19, 32, 33})),
    "blocked": ProcessState(blocked=(*STOPPING, signal.SIGCHLD, signal.SIGUSR1, signal.SIGRTMIN)),
    "umask 000": ProcessState(umask=0, sane=0o002),
    "umask 077": ProcessState(umask=0o077, sane=0o077),
    "umask 777": ProcessState(umask=0o777, sane=0o077),
}


def state(text: str) -> dict[str, str]:
    """Parse what STATE has printed, without signals 32 and 33.

    These are the C library's own, and its posix_spawn(3) ignores them.
    """
    pairs = [line.split() for line in text.replace("\r", "").splitlines() if line]
    found = {name.rstrip(":"): value for name, value in pairs}
    found["SigIgn"] = f"{int(found['SigIgn'], 16) & ~(3 << 31):016x}"
    return found


def clean(umask: int, blocked: str = NOTHING) -> dict[str, str]:
    """Return what STATE is to print."""
    return {"Umask": f"{umask:04o}", "SigBlk": blocked, "SigIgn": NOTHING}


def mask(*numbers: int) -> int:
    """Return a set of signals as the kernel represents it."""
    return sum(1 << (number - 1) for number in numbers)
