"""How long the host has kept this process waiting, for tests of how long something takes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_STEP = 0.01


class Delays:
    """`seconds`: for how long threads that could have run did not get a processor."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._ended = threading.Event()

    def _measure(self) -> None:
        while not self._ended.is_set():
            begin = time.monotonic()
            self._ended.wait(_STEP)
            self.seconds += max(time.monotonic() - begin - _STEP, 0.0)


@contextmanager
def within(limit: float) -> Iterator[None]:
    """Check that the block takes less than `limit` seconds; the host's delays do not count."""
    begin = time.monotonic()
    with host_delays() as delays:
        yield
        seconds = time.monotonic() - begin
    assert seconds - delays.seconds < limit, f"{seconds:.1f} s, {delays.seconds:.1f} s of it delays"


@contextmanager
def host_delays() -> Iterator[Delays]:
    """Measure during the block; on an idle host it is next to nothing."""
    delays = Delays()
    thread = threading.Thread(target=delays._measure)
    thread.start()
    try:
        yield delays
    finally:
        delays._ended.set()
        thread.join()
