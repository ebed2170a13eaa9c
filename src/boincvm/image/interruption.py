"""SIGTERM as an exception, so that an interrupted build cleans up as it does after Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from boincvm.errors import BoincvmError
from boincvm.exit_codes import ExitCode
from boincvm.host.inherited import not_ignored
from boincvm.host.signals import TERMINATION_SIGNALS


class TerminatedError(KeyboardInterrupt):
    """This process was asked to end.

    Not an Exception, so that nothing handles it as a failure. Of all others asyncio lets only this
    kind and SystemExit out of its callbacks.
    """


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise TerminatedError


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception that unwinds the block, then into a BoincvmError.

    Works in the main thread only.
    """
    numbers = not_ignored(number for number in TERMINATION_SIGNALS if number != signal.SIGINT)
    before = {number: signal.signal(number, _raise) for number in numbers}
    try:
        yield
    except TerminatedError as error:
        raise BoincvmError(
            "interrupted; nothing was changed", exit_code=ExitCode.TERMINATED
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held_back() -> Iterator[Callable[[], None]]:
    """Hold back signals that end this process with an exception, until the yielded function is
    called.

    Such an exception within `subprocess.Popen` would leave a program running that nobody knows.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    in_main_thread = threading.current_thread() is threading.main_thread()  # others get no signals
    before = {
        number: handler
        for number in (TERMINATION_SIGNALS if in_main_thread else ())
        if callable(handler := signal.getsignal(number))
    }
    for number in before:
        signal.signal(number, note)

    def release() -> None:
        while before:
            signal.signal(*before.popitem())
        while came:
            signal.raise_signal(came.pop())

    try:
        yield release
    finally:
        release()
