"""Sockets between processes of one user on Windows, handed over by a named pipe.

A client opens the server's pipe. Its access control list lets only this user and
the system do so, and not over the network. The server then makes a pair of sockets and writes one
of them to the pipe, for that process alone (WSADuplicateSocket): nobody else can connect to
anything. The file at the server's path holds the pipe's name, which nobody can guess; a client
goes on only if the pipe is this user's, for another's program may have made one of that name since
the server went. Nobody waits for the other side for more than a few seconds.
"""

import ctypes
import errno
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from ctypes import wintypes
from pathlib import Path
from time import monotonic

from boincvm.host import win32_windows as win32

assert sys.platform == "win32"

from boincvm.host.own_files_windows import owner_of, user_identifier

_PREFIX = "\\\\.\\pipe\\boincvm-"
_DUPLEX, _FIRST_INSTANCE = 0x3, 0x0008_0000
_OVERLAPPED = 0x4000_0000
_MESSAGES_OF_THIS_HOST = 0x4 | 0x2 | 0x8
"""PIPE_TYPE_MESSAGE, PIPE_READMODE_MESSAGE, PIPE_REJECT_REMOTE_CLIENTS."""
_UNLIMITED = 255
_BUFFER = 4096
_ACCESS = "O:{}D:P(A;;GA;;;OW)(A;;GA;;;SY)"
"""The owner, whose identifier comes first, and the system may do everything; others nothing."""
_CONNECTED = 535
_READ_AND_WRITE = 0xC000_0000
_OPEN_EXISTING = 3
_IDENTIFICATION_ONLY = 0x0010_0000 | 0x0001_0000
"""SECURITY_SQOS_PRESENT, SECURITY_IDENTIFICATION: the server cannot act as us."""
_MESSAGE_MODE = 2
_BUSY, _NOT_FOUND, _TIMED_OUT = 231, 2, 121
_BUSY_LIMIT = 5.0
"""Seconds in which the server has to make another end."""
_ANSWER_LIMIT = 10.0
"""Seconds in which the other side has to read or write its next message."""
_PENDING = 997
_INVALID_HANDLE = ctypes.c_void_p(-1).value
_TAKEN = b"taken"

_kernel32 = win32.kernel32
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
_kernel32.CreateNamedPipeW.argtypes = (
    wintypes.LPCWSTR,
    *[wintypes.DWORD] * 6,
    ctypes.c_void_p,
)
_kernel32.CreateNamedPipeW.restype = wintypes.HANDLE
_kernel32.ConnectNamedPipe.argtypes = (wintypes.HANDLE, ctypes.c_void_p)
_kernel32.WaitNamedPipeW.argtypes = (wintypes.LPCWSTR, wintypes.DWORD)
_kernel32.SetNamedPipeHandleState.argtypes = (wintypes.HANDLE, *[ctypes.c_void_p] * 3)
_kernel32.GetNamedPipeClientProcessId.argtypes = (wintypes.HANDLE, ctypes.c_void_p)
_kernel32.CreateFileW.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_kernel32.CreateFileW.restype = wintypes.HANDLE
for _call in (_kernel32.ReadFile, _kernel32.WriteFile):
    _call.argtypes = (
        wintypes.HANDLE,
        ctypes.c_void_p,
        wintypes.DWORD,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
_kernel32.GetOverlappedResult.argtypes = (
    wintypes.HANDLE,
    ctypes.c_void_p,
    ctypes.c_void_p,
    wintypes.BOOL,
)
_kernel32.CancelIoEx.argtypes = (wintypes.HANDLE, ctypes.c_void_p)
_kernel32.LocalFree.argtypes = (ctypes.c_void_p,)


class _Overlapped(ctypes.Structure):
    """OVERLAPPED: an operation that goes on while we wait, with a limit, for its event."""

    _fields_ = (
        ("internal", ctypes.c_size_t * 2),
        ("offset", wintypes.DWORD * 2),
        ("event", wintypes.HANDLE),
    )


class _SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = (
        ("size", wintypes.DWORD),
        ("descriptor", ctypes.c_void_p),
        ("is_inherited", wintypes.BOOL),
    )


class PipeServer:
    """Hands a socket to each process that opens the pipe, in threads of its own."""

    def __init__(self, accept: Callable[[socket.socket], object]) -> None:
        """Make the pipe; `accept` gets our end of each connection, in any thread.

        Raises OSError.
        """
        self.name = f"{_PREFIX}{secrets.token_hex(16)}"
        self._accept = accept
        self._is_closed = False
        first = _make_pipe(self.name, _FIRST_INSTANCE)
        threading.Thread(target=self._serve, args=(first,), daemon=True, name=self.name).start()

    def _serve(self, pipe: int) -> None:
        while True:
            is_there = _wait_for_client(pipe)
            if self._is_closed:
                win32.close(pipe)
                return
            if is_there:
                thread = threading.Thread(
                    target=self._hand_over, args=(pipe,), daemon=True, name="local connection"
                )
                thread.start()
            else:
                win32.close(pipe)
            pipe = _make_pipe(self.name)

    def _hand_over(self, pipe: int) -> None:
        """Give the process at the pipe's other end its socket, and wait until it has it."""
        try:
            pid = wintypes.ULONG()
            win32.check(_kernel32.GetNamedPipeClientProcessId(pipe, ctypes.byref(pid)))
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    _write(pipe, theirs.share(pid.value))
                    is_taken = _read(pipe) == _TAKEN
                except BaseException:
                    ours.close()
                    raise
            if is_taken and not self._is_closed:
                self._accept(ours)
            else:
                ours.close()
        except OSError:
            pass  # it has gone, or does not do what a client of ours does
        finally:
            win32.close(pipe)

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            with suppress(OSError):  # else it ends with the next one, or with us
                win32.close(_open(self.name))  # wakes the thread that waits for a client


def connect(path: Path, limit: float | None = None) -> socket.socket:
    """Connect to the server at `path`; `limit` in seconds bounds the wait for a busy one.

    Raises OSError: ConnectionRefusedError if it has gone, PermissionError if it is another user's,
    TimeoutError if it remains busy.
    """
    name = path.read_text(encoding="ascii", errors="replace").strip()
    if not name.startswith(_PREFIX):
        raise ConnectionRefusedError(f"{path} names no server")
    pipe = _open(name, _BUSY_LIMIT if limit is None else min(limit, _BUSY_LIMIT))
    try:
        if owner_of(pipe) != user_identifier():
            raise PermissionError(errno.EACCES, "its server is one of another user")
        mode = wintypes.DWORD(_MESSAGE_MODE)
        win32.check(_kernel32.SetNamedPipeHandleState(pipe, ctypes.byref(mode), None, None))
        connection = socket.fromshare(_read(pipe))
        try:
            _write(pipe, _TAKEN)
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        win32.close(pipe)


def _open(name: str, limit: float = _BUSY_LIMIT) -> int:
    """Open a pipe; wait up to `limit` seconds while it is busy. Raises OSError."""
    end = monotonic() + limit
    has_waited_in_vain = False
    while True:
        handle: int | None = _kernel32.CreateFileW(
            name,
            _READ_AND_WRITE,
            0,
            None,
            _OPEN_EXISTING,
            _IDENTIFICATION_ONLY | _OVERLAPPED,
            None,
        )
        if handle is not None and handle != _INVALID_HANDLE:
            return handle
        number = ctypes.get_last_error()
        if number not in (_BUSY, _NOT_FOUND):
            raise ctypes.WinError(number)
        rest = end - monotonic()
        if number == _BUSY and rest <= 0:
            raise TimeoutError("the server remains busy")
        if number == _NOT_FOUND or has_waited_in_vain:
            raise ConnectionRefusedError("nobody serves there any more")
        milliseconds = max(1, int(rest * 1000))
        if not _kernel32.WaitNamedPipeW(name, milliseconds):
            if ctypes.get_last_error() == _TIMED_OUT:
                raise TimeoutError("the server remains busy")
            # It fails with various numbers if the server goes meanwhile; the next attempt tells.
            has_waited_in_vain = True


def _make_pipe(name: str, more: int = 0) -> int:
    """Make one end of a pipe, which waits for another process. Raises OSError."""
    descriptor = ctypes.c_void_p()
    win32.check(
        _advapi32.ConvertStringSecurityDescriptorToSecurityDescriptorW(
            _ACCESS.format(user_identifier()), 1, ctypes.byref(descriptor), None
        )
    )
    attributes = _SecurityAttributes(ctypes.sizeof(_SecurityAttributes), descriptor, False)
    try:
        handle: int | None = _kernel32.CreateNamedPipeW(
            name,
            _DUPLEX | _OVERLAPPED | more,
            _MESSAGES_OF_THIS_HOST,
            _UNLIMITED,
            _BUFFER,
            _BUFFER,
            0,
            ctypes.byref(attributes),
        )
        if handle is None or handle == _INVALID_HANDLE:
            raise win32.last_error()
        return handle
    finally:
        _kernel32.LocalFree(descriptor)


def _wait_for_client(pipe: int) -> bool:
    """Wait until a process has opened our end's other end; return False if it has gone again."""
    try:
        _finish(pipe, lambda its: _kernel32.ConnectNamedPipe(pipe, its), None)
    except OSError as error:
        return error.winerror == _CONNECTED
    return True


def _read(pipe: int) -> bytes:
    """Read one message. Raises OSError, TimeoutError."""
    data = ctypes.create_string_buffer(_BUFFER)
    length = _finish(
        pipe, lambda its: _kernel32.ReadFile(pipe, data, len(data), None, its), _ANSWER_LIMIT
    )
    return data.raw[:length]


def _write(pipe: int, message: bytes) -> None:
    """Write one message. Raises OSError, TimeoutError."""
    _finish(
        pipe,
        lambda its: _kernel32.WriteFile(pipe, message, len(message), None, its),
        _ANSWER_LIMIT,
    )


def _finish(pipe: int, begin: Callable[[object], int], limit: float | None) -> int:
    """Begin an operation, and return how many bytes it has moved when it is done.

    `limit`: in seconds; None for no limit. Raises OSError, TimeoutError.
    """
    operation = _Overlapped(event=win32.make_event())
    reference = ctypes.byref(operation)
    try:
        if not begin(reference) and ctypes.get_last_error() != _PENDING:
            raise win32.last_error()
        milliseconds = win32.FOREVER if limit is None else int(limit * 1000)
        is_done = win32.wait_for_any((operation.event,), milliseconds) is not None
        if not is_done:
            _kernel32.CancelIoEx(pipe, reference)
        length = wintypes.DWORD()
        # It waits for what has been cancelled, whose memory must last until then.
        result = _kernel32.GetOverlappedResult(pipe, reference, ctypes.byref(length), True)
        if not is_done:
            raise TimeoutError("the other side does not answer")
        win32.check(result)
        return length.value
    finally:
        win32.close(operation.event)
