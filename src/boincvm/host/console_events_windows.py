"""Events of a Windows console that end its programs: it is closed, or Windows shuts down.

Python hands them over as SIGBREAK, but Windows ends the process as soon as that has been noted. So
a handler of our own keeps Windows waiting until we have ended ourselves, for the five seconds that
it grants. (learn.microsoft.com/windows/console/handlerroutine)
"""

import ctypes
import sys
from collections.abc import Callable
from ctypes import wintypes
from threading import Event, Lock

from boincvm.host import win32_windows as win32

assert sys.platform == "win32"

CLOSE, LOG_OFF, SHUT_DOWN = 2, 5, 6
_HandlerRoutine = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)
_ending: set["ConsoleEnd"] = set()
"""Those that Windows is calling: they have to exist until this process has ended."""
win32.kernel32.SetConsoleCtrlHandler.argtypes = (ctypes.c_void_p, wintypes.BOOL)


class ConsoleEnd:
    """Calls `ended` when the console ends us, until `close`; in a thread that Windows makes."""

    def __init__(self, ended: Callable[[], object]) -> None:
        """Raises OSError."""
        self._ended = ended
        self._lock = Lock()
        self._is_ending = False
        self._is_closed = False
        self._routine = _HandlerRoutine(self.handle)
        """Windows calls it: it has to exist for as long as it is registered."""
        win32.check(win32.kernel32.SetConsoleCtrlHandler(self._routine, True))

    def handle(self, event: int) -> bool:
        """Handle an event; return whether nobody else needs to. Windows calls this."""
        if event == LOG_OFF:  # only services get it, when any user logs off
            return True
        if event not in (CLOSE, SHUT_DOWN):
            return False
        with self._lock:
            if self._is_closed:
                return False
            self._is_ending = True
        _ending.add(self)
        self._ended()
        Event().wait()  # the end of this process ends it
        return True

    def close(self) -> None:
        """Handle no more events; one that is being handled waits for this process's end.

        Windows holds a lock while it calls a handler, and takes it to remove one, so a handler
        that waits must not be removed.
        """
        with self._lock:
            self._is_closed = True
            if self._is_ending:
                return
        win32.kernel32.SetConsoleCtrlHandler(self._routine, False)
