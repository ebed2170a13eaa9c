"""The local end of a remote shell: the user's own terminal, connected to it for a while."""

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from boincvm.guestlink.terminal.local import BEAT, EscapeDetector, size_of
from boincvm.guestlink.terminal.protocol import keys, window_size
from boincvm.host.channels import set_blocking
from boincvm.host.inherited import not_ignored
from boincvm.host.signals import TERMINATION_SIGNALS
from boincvm.host.terminal import RESIZE_SIGNAL, raw

_PIECE = 4096
_ROOM = 1 << 16
_LEAVING_LIMIT = 8.0
"""Seconds that each step of leaving may take: more than a shell has when it is hung up."""
_LEAVE, _RESIZED, _GO_ON = b"l", b"w", b"g"


class RemoteEnd(Protocol):
    """The remote end of a shell. Each method may block and raise, and has a thread of its own."""

    def show(self) -> None:
        """Show its output on the screen until it has ended."""

    def send(self, data: bytes, *, ends: bool) -> None:
        """Send `data` as its next input; `ends` means that no more follows."""

    def cancel(self) -> None:
        """End it immediately."""


class TerminalSession:
    """One remote shell on the terminal `keyboard`; only in the main thread.

    This thread waits only for keys, window sizes and signals; other threads do whatever may block,
    so that the user can always leave.
    """

    def __init__(self, remote: RemoteEnd, keyboard: int) -> None:
        self._remote = remote
        self._keyboard = keyboard
        self._waiting = bytearray()
        self._ends = False
        self._turn = threading.Condition()
        self._ended = threading.Event()
        self._failure: Exception | None = None
        # They are never closed: a thread that is late may still ring.
        self._bell, self._ringer = os.pipe()
        for descriptor in (self._bell, self._ringer):
            set_blocking(descriptor, False)

    def run(self) -> bool:
        """Run until the remote end has ended, and return True, or until the user leaves.

        Returns False if the user leaves by `~.` after Enter, the keyboard is gone, or one of
        SIGINT, SIGTERM and SIGHUP arrives. Raises what the remote end raises.
        """
        # Signals only ring the bell: none can prevent the terminal from being restored.
        with self._signals(), raw(self._keyboard):
            self._begin(self._show)
            sender = self._begin(self._send)
            self._type()
        has_ended = self._ended.is_set()
        self._send_input(b"", ends=True)
        if self._failure is not None:
            sender.join(_LEAVING_LIMIT)  # it may still receive, although its output has failed
        elif not self._ended.wait(_LEAVING_LIMIT):
            self._begin(self._remote.cancel).join(_LEAVING_LIMIT)
        if self._failure is not None:
            raise self._failure
        return has_ended

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def leave(_number: int, _frame: FrameType | None) -> None:
            self._ring(_LEAVE)

        def resize(_number: int, _frame: FrameType | None) -> None:
            self._ring(_RESIZED)

        former = {
            number: signal.signal(number, leave) for number in not_ignored(TERMINATION_SIGNALS)
        }
        if RESIZE_SIGNAL is not None:
            former[RESIZE_SIGNAL] = signal.signal(RESIZE_SIGNAL, resize)
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _ring(self, why: bytes) -> None:
        with suppress(BlockingIOError):  # it is ringing already
            os.write(self._ringer, why)

    # In the main thread.

    def _type(self) -> None:
        """Send keys and window sizes until the session is over."""
        leaving = EscapeDetector()
        self._send_input(window_size(size_of(self._keyboard)))  # it may have changed by now
        while True:
            has_room = len(self._waiting) < _ROOM
            sources = [self._bell, self._keyboard] if has_room else [self._bell]
            ready, _, _ = select.select(sources, [], [], BEAT)
            news = os.read(self._bell, _PIECE) if self._bell in ready else b""
            if self._ended.is_set() or _LEAVE in news:
                return
            if _RESIZED in news or not ready:
                with suppress(OSError):  # if the terminal is gone, its end can be read
                    self._send_input(window_size(size_of(self._keyboard)))
            if self._keyboard in ready:
                typed, leaves = leaving.feed(data := self._read())
                self._send_input(keys(typed))
                if leaves or not data:
                    return

    def _read(self) -> bytes:
        try:
            return os.read(self._keyboard, _PIECE)
        except OSError:  # the terminal is gone
            return b""

    def _send_input(self, data: bytes, *, ends: bool = False) -> None:
        with self._turn:
            self._waiting += data
            self._ends = self._ends or ends
            self._turn.notify()

    # In threads of their own.

    def _begin(self, work: Callable[[], None]) -> threading.Thread:
        # Daemons: each is joined for a limited time only.
        thread = threading.Thread(target=self._guarded, args=(work,), daemon=True)
        thread.start()
        return thread

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # raised again in the main thread
            if not self._ended.is_set():
                self._failure = error
            self._over()

    def _over(self) -> None:
        self._ended.set()
        self._ring(_GO_ON)

    def _show(self) -> None:
        self._remote.show()
        self._over()

    def _send(self) -> None:
        ends = False
        while not ends:
            with self._turn:
                while not self._waiting and not self._ends:
                    self._turn.wait()
                data, ends = bytes(self._waiting), self._ends
                self._waiting.clear()
            self._remote.send(data, ends=ends)
            self._ring(_GO_ON)
