"""The signals that ask a program to end, under each system's names."""

import signal
import sys
from collections.abc import Callable, Iterable

if sys.platform == "win32":
    TERMINATION_SIGNALS = (signal.SIGBREAK, signal.SIGINT, signal.SIGTERM)
    """They ask a program to end; SIGBREAK also comes when the console is closed."""
    ENDING_SIGNALS: tuple[int, ...] = TERMINATION_SIGNALS
else:
    TERMINATION_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    """They ask a program to end; SIGHUP also comes when the terminal has gone."""
    ENDING_SIGNALS: tuple[int, ...] = (*TERMINATION_SIGNALS, signal.SIGQUIT, signal.SIGKILL)
    """A program that one of these ends was ended by somebody else."""


# Windows has only the console's signals, which Python handles in its main thread.


if sys.platform == "win32":
    from boincvm.host.console_events_windows import ConsoleEnd

    _console_ends: list[ConsoleEnd] = []


def block_signals(numbers: Iterable[int]) -> set[int]:
    """Block these signals from now on; return those that were blocked before."""
    if sys.platform == "win32":
        return set()
    else:
        return set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, set(numbers))))


def unblock_signals(numbers: Iterable[int]) -> None:
    """Unblock these signals; pending ones are delivered."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(numbers))


def restore_signal_mask(numbers: Iterable[int]) -> None:
    """Block only these signals, to undo `block_signals` with its result."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_SETMASK, set(numbers))


def add_signal_handlers(numbers: Iterable[int], handler: Callable[[int], object]) -> None:
    """Have the running event loop call `handler` with the number of each of these that arrives."""
    import asyncio

    loop = asyncio.get_running_loop()
    numbers = list(numbers)
    if sys.platform == "win32" and signal.SIGBREAK in numbers:

        def end() -> None:
            loop.call_soon_threadsafe(handler, int(signal.SIGBREAK))

        _console_ends.append(ConsoleEnd(end))
    for number in numbers:
        if sys.platform == "win32":  # its loop has no such method, but wakes up for signals
            signal.signal(number, lambda found, _: loop.call_soon_threadsafe(handler, found))
        else:
            loop.add_signal_handler(number, handler, number)


def remove_signal_handlers(numbers: Iterable[int]) -> None:
    """Undo `add_signal_handlers`: restore the signals' default actions."""
    import asyncio

    for number in numbers:
        if sys.platform == "win32":
            signal.signal(number, signal.SIG_DFL)
            if number == signal.SIGBREAK and _console_ends:
                _console_ends.pop().close()
        else:
            asyncio.get_running_loop().remove_signal_handler(number)
