"""What a process inherits from its parent, and what it passes on to its children.

`nohup` ignores SIGHUP, a shell's `&` in a script SIGINT and SIGQUIT, Python itself SIGPIPE; an exec
keeps that, and blocked signals too. A boincvm process must respect it, but the programs that it
starts get default signals: Ctrl-C must reach a shell that `nohup boincvm guest &` has started.
"""

from __future__ import annotations

import _signal  # `signal` imports enum, and few need it
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_OWNER = 0o700
_OTHERS_WRITE = 0o002


def reset_inherited_state() -> None:
    """Reset standard streams, signals and umask to what children may inherit; call it at startup.

    Ignored signals get a handler that does nothing instead, for an exec resets it to the default.
    No signal is blocked. Text is UTF-8, also on Windows. The umask neither denies the owner a file
    nor lets everybody write to it.
    """
    fill_closed_descriptors()
    if sys.platform == "win32":
        from boincvm.host.console_text_windows import use_utf8

        use_utf8()
    for number in _signal.valid_signals():  # type: ignore[attr-defined]  # typeshed lacks them
        if _handler(number) == _signal.SIG_IGN:
            _signal.signal(number, _pass_over)
    if sys.platform != "win32":
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    given = os.umask(0o077)
    os.umask(given & ~_OWNER | _OTHERS_WRITE)


def fill_closed_descriptors() -> None:
    """Open /dev/null for each closed descriptor from 0 to 2, and Python's stream for it.

    Otherwise a file opened later would get its number, and a program's output would go there.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def _handler(number: int) -> object:
    return _signal.getsignal(number)  # type: ignore[attr-defined]


def _pass_over(_number: int, _frame: object) -> None:
    pass


def not_ignored(numbers: Iterable[int]) -> list[int]:
    """Return those of these signals that our parent did not have us ignore.

    A program should take only these as requests to end.
    """
    return [number for number in numbers if _handler(number) not in (_pass_over, _signal.SIG_IGN)]
