"""Waiting for a lock file beside the event loop."""

import asyncio
import os
import threading
from concurrent.futures import Future
from pathlib import Path

from boincvm.host.locks import lock, open_lock, try_lock


class _Wait:
    """A thread that waits for the lock; nothing can end that but the lock itself."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.has_lock: Future[None] = Future()
        self.has_lock.set_running_or_notify_cancel()  # who awaits it cannot cancel it
        threading.Thread(target=self._run, name="boincvm-lock", daemon=True).start()

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            lock(self.descriptor)
        except BaseException as error:
            failure = error
        with _mutex:
            if failure is not None or self in _given_up:
                os.close(self.descriptor)
            if self in _given_up:
                _given_up.remove(self)
            elif failure is not None:
                self.has_lock.set_exception(failure)
            else:
                self.has_lock.set_result(None)


_mutex = threading.Lock()
_given_up: list[_Wait] = []
"""Waits that go on although nobody wants the lock.

The next caller takes one over. Each that is left has the lock for an instant later, in which others
find it held.
"""


async def wait_for_lock(path: Path) -> int:
    """Wait until nobody has the lock file `path`; return a descriptor that holds it.

    Raises OSError.
    """
    descriptor = open_lock(path)
    try:
        if try_lock(descriptor):
            return descriptor
        wait = _taken_over(descriptor) or _Wait(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if wait.descriptor != descriptor:
        os.close(descriptor)
    try:
        await asyncio.wrap_future(wait.has_lock)
    except asyncio.CancelledError:
        with _mutex:
            if not wait.has_lock.done():
                _given_up.append(wait)
            elif wait.has_lock.exception() is None:
                os.close(wait.descriptor)
        raise
    return wait.descriptor


def _taken_over(descriptor: int) -> _Wait | None:
    """Return a wait that was given up, for the same file as `descriptor`."""
    with _mutex:
        for wait in _given_up:
            if os.path.sameopenfile(wait.descriptor, descriptor):
                _given_up.remove(wait)
                return wait
    return None
