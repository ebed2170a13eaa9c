"""A console's end, by calls as Windows makes them: nobody closes a console here."""

import asyncio
import signal
import subprocess
import sys
import threading

import pytest

from boincvm.host import signals
from boincvm.host.console_events_windows import CLOSE, LOG_OFF, SHUT_DOWN
from boincvm.host.signals import TERMINATION_SIGNALS, add_signal_handlers, remove_signal_handlers

assert sys.platform == "win32"

LIMIT = 30.0
CTRL_C = 0


@pytest.mark.parametrize("event", [CLOSE, SHUT_DOWN])
async def test_windows_waits_until_we_have_ended(event: int) -> None:
    numbers: asyncio.Queue[int] = asyncio.Queue()
    add_signal_handlers(TERMINATION_SIGNALS, numbers.put_nowait)
    (console_end,) = signals._console_ends
    windows = threading.Thread(target=console_end.handle, args=(event,), daemon=True)
    windows.start()
    assert await asyncio.wait_for(numbers.get(), LIMIT) == signal.SIGBREAK
    assert windows.is_alive()
    remove_signal_handlers(TERMINATION_SIGNALS)
    assert signals._console_ends == []
    assert windows.is_alive()  # as it ends the process when it goes on
    assert not console_end.handle(event)  # a second event is not ours any more


PROGRAM = """
import asyncio, ctypes, threading
from boincvm.host.signals import TERMINATION_SIGNALS, add_signal_handlers, remove_signal_handlers

async def main():
    numbers = asyncio.Queue()
    add_signal_handlers(TERMINATION_SIGNALS, numbers.put_nowait)
    # Windows starts it in a thread; it calls the handlers while it holds the console's lock.
    routine = ctypes.WinDLL("kernel32").CtrlRoutine
    threading.Thread(target=routine, args=(EVENT,), daemon=True).start()
    print(await numbers.get(), flush=True)
    remove_signal_handlers(TERMINATION_SIGNALS)
    print("saved", flush=True)

asyncio.run(main())
raise SystemExit(7)
"""


@pytest.mark.parametrize("event", [CLOSE, SHUT_DOWN])
def test_a_console_that_ends_us_keeps_us_from_nothing(event: int) -> None:
    """We end by ourselves, with our own exit code, though Windows' handler still waits."""
    program = f"import sys; sys.path[:0] = {sys.path!r}\n{PROGRAM.replace('EVENT', str(event))}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.stdout.split() == [str(int(signal.SIGBREAK)), "saved"], done.stderr
    assert done.returncode == 7


async def test_other_events_are_not_the_end() -> None:
    numbers: asyncio.Queue[int] = asyncio.Queue()
    add_signal_handlers(TERMINATION_SIGNALS, numbers.put_nowait)
    try:
        (console_end,) = signals._console_ends
        assert console_end.handle(LOG_OFF)
        assert not console_end.handle(CTRL_C)  # Python's own handler is next
        signal.raise_signal(signal.SIGINT)
        assert await asyncio.wait_for(numbers.get(), LIMIT) == signal.SIGINT
        assert numbers.empty()
    finally:
        remove_signal_handlers(TERMINATION_SIGNALS)
