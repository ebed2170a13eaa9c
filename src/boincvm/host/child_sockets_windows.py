"""Sockets to a child on Windows: it connects to us, and its process id is checked.

Import it through `child_sockets`.

QEMU takes no socket by inheritance on Windows, Python has no UNIX sockets there, and QEMU's named
pipes are open to all. So we listen on the loopback address, at a port that no other process can
take (SO_EXCLUSIVEADDRUSE), until the child has connected; the system's table of connections says
which process owns the other end, and a connection of any other is closed.
"""

import ctypes
import socket
import sys
from ctypes import wintypes
from select import select
from threading import Event
from time import monotonic

from boincvm.host import win32_windows as win32
from boincvm.host.processes import ChildProcess
from boincvm.host.sockets import take_free_port_only

assert sys.platform == "win32"

_LIMIT = 30.0
"""Seconds in which the child has to connect; QEMU takes 0.3."""
_OWNER_LIMIT = 2.0
"""Seconds in which the system has to know whose a new connection is."""
_PAUSE = 0.01
_BACKLOG = 16
_FD_ACCEPT = 8
_CONNECTIONS_WITH_PROCESSES = 4
"""TCP_TABLE_OWNER_PID_CONNECTIONS."""
_MORE_ROOM = 122
_ROW = 6
"""Words of MIB_TCPROW_OWNER_PID: state, address and port of each end, process."""

_winsock = ctypes.WinDLL("ws2_32", use_last_error=True)
_winsock.WSACreateEvent.restype = wintypes.HANDLE
_winsock.WSACloseEvent.argtypes = _winsock.WSAResetEvent.argtypes = (wintypes.HANDLE,)
_winsock.WSAEventSelect.argtypes = (ctypes.c_size_t, wintypes.HANDLE, wintypes.LONG)
_ip_helper = ctypes.WinDLL("iphlpapi")


class ChildSocket:
    """One connection to a child, which is to be started with `descriptors`."""

    descriptors: tuple[int, ...] = ()

    def __init__(self) -> None:
        """Begin to listen. Raises OSError."""
        self._listener = socket.socket()
        try:
            take_free_port_only(self._listener)
            self._listener.bind(("127.0.0.1", 0))
            self._listener.listen(_BACKLOG)
        except BaseException:
            self._listener.close()
            raise
        _, port = self._listener.getsockname()
        self.option = f"host=127.0.0.1,port={port},nodelay=on"
        """How QEMU's command line names the child's end."""

    def connect(self, child: ChildProcess) -> socket.socket:
        """Wait for the child to connect, and return our end, for the caller to own.

        If the child ends instead, or does not connect in time, the socket is one whose other end is
        closed, as that of a child that ends a moment later. Raises OSError.
        """
        event: int | None = _winsock.WSACreateEvent()
        if not event:
            raise win32.last_error()
        try:
            # It also makes the listener non-blocking.
            _check(_winsock.WSAEventSelect(self._listener.fileno(), event, _FD_ACCEPT))
            with win32.process_handle(child.pid, win32.SYNCHRONIZE) as process:
                return self._accept(child.pid, event, process)
        finally:
            _winsock.WSACloseEvent(event)
            self.close()

    def _accept(self, pid: int, event: int, process: int) -> socket.socket:
        end = monotonic() + _LIMIT
        while (rest := end - monotonic()) > 0:
            if win32.wait_for_any((event, process), int(rest * 1000)) != 0:
                break
            # Reset first: the next connection sets it again, or has already.
            _winsock.WSAResetEvent(event)
            try:
                ours, _ = self._listener.accept()
            except OSError:
                continue  # it has gone already, or was reset
            try:
                if _is_child(ours, pid, end - monotonic()):
                    return ours
            except OSError:
                pass  # reset meanwhile: the child's own connection is yet to come
            except BaseException:
                ours.close()
                raise
            ours.close()
        ours, its = socket.socketpair()
        its.close()
        return ours

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._listener.close()


def _is_child(connection: socket.socket, pid: int, limit: float) -> bool:
    """Prepare a new connection for use if it is of process `pid`. Raises OSError."""
    _check(_winsock.WSAEventSelect(connection.fileno(), None, 0))
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer_process(connection, limit) == pid


def peer_process(connection: socket.socket, limit: float = _OWNER_LIMIT) -> int | None:
    """Return the id of the process that owns the other end of a loopback connection.

    The system may learn it a moment late: asks again for `limit` seconds, at most _OWNER_LIMIT.
    Returns None if the system knows of none. Raises OSError.
    """
    wanted = (*_table_row(connection.getpeername()), *_table_row(connection.getsockname()))
    end = monotonic() + min(limit, _OWNER_LIMIT)
    while not (owner := _owner(wanted)) and monotonic() < end and not _has_hung_up(connection):
        Event().wait(_PAUSE)  # Windows tells nobody when its table changes
    return owner or None


def _has_hung_up(connection: socket.socket) -> bool:
    """Tell whether the other end is closed and nothing is left to be read. Raises OSError."""
    readable, _, _ = select([connection], [], [], 0)
    return bool(readable) and not connection.recv(1, socket.MSG_PEEK)


def _owner(wanted: tuple[int, ...]) -> int | None:
    """Return the process that the system's table has for these ends. Raises OSError."""
    table = _connections()
    count = ctypes.c_uint32.from_buffer(table).value
    for number in range(count):
        at = ctypes.sizeof(ctypes.c_uint32) * (1 + number * _ROW)
        _, *ends, process = (ctypes.c_uint32 * _ROW).from_buffer(table, at)
        # Only the lower half of the words for ports is set for sure.
        ends[1], ends[3] = ends[1] & 0xFFFF, ends[3] & 0xFFFF
        if tuple(ends) == wanted:
            return int(process)
    return None


def _table_row(end: tuple[str, int]) -> tuple[int, int]:
    """Return an address and its port as the system's table has them: in the network's order."""
    address, port = end
    return int.from_bytes(socket.inet_aton(address), sys.byteorder), socket.htons(port)


def _connections() -> "ctypes.Array[ctypes.c_char]":
    """Return MIB_TCPTABLE_OWNER_PID: a count, and that many rows. Raises OSError."""
    size = wintypes.ULONG(1 << 14)
    while True:
        table = ctypes.create_string_buffer(size.value)
        result: int = _ip_helper.GetExtendedTcpTable(
            table, ctypes.byref(size), False, socket.AF_INET, _CONNECTIONS_WITH_PROCESSES, 0
        )
        if result == 0:
            return table
        if result != _MORE_ROOM:
            raise ctypes.WinError(result)
        size.value += 1 << 12  # for connections that are made meanwhile


def _check(result: int) -> None:
    if result:
        raise win32.last_error()
