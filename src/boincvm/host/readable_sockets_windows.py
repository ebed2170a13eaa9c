"""Waiting for a socket on Windows, whose event loop cannot do it.

Import it through `readable_sockets`.
"""

import asyncio
import select
import socket
import sys
import threading
from collections.abc import Callable

assert sys.platform == "win32"


class ReadableSocket:
    """Calls `handle` in the running event loop whenever the socket can be read, until `close`.

    A thread waits; it does so again only once `handle` has returned.
    """

    def __init__(self, channel: socket.socket, handle: Callable[[], object]) -> None:
        self._number = channel.fileno()
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._may_wait = threading.Event()
        self._may_wait.set()
        self._is_closed = False
        self._ours, self._its = socket.socketpair()
        threading.Thread(target=self._wait, daemon=True, name="readable socket").start()

    def _wait(self) -> None:
        with self._its:
            while True:
                self._may_wait.wait()
                self._may_wait.clear()
                if self._is_closed:
                    return
                try:
                    select.select([self._number, self._its.fileno()], [], [])
                except OSError:  # the socket was closed, right after `close`
                    if not self._is_closed:
                        raise
                if self._is_closed or self._loop.is_closed():
                    return
                self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        if not self._is_closed:
            self._handle()
            self._may_wait.set()

    def close(self) -> None:
        """Stop waiting; the socket stays open."""
        self._is_closed = True
        self._ours.close()
        self._may_wait.set()
