"""Pauses on Windows; import it through `pauses`."""

import threading


class Pauses:
    """The pauses of one thread."""

    def __init__(self) -> None:
        self._end = threading.Lock()
        self._end.acquire()

    def wait(self, seconds: float) -> bool:
        """Pause for about that long; return whether `end` was called."""
        return self._end.acquire(timeout=seconds)

    def end(self, thread: threading.Thread) -> None:
        """End the pauses of `thread`, and wait for its end."""
        self._end.release()
        thread.join()
