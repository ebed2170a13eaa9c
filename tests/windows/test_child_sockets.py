"""Connections of a child to us, at a port of the loopback address."""

import ctypes
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.host import child_sockets_windows
from boincvm.host.child_sockets_windows import ChildSocket, peer_process
from boincvm.host.processes import ChildProcess

assert sys.platform == "win32"

LIMIT = 30.0
CONNECT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(b"hello")
connection.recv(1)
"""


@pytest.fixture
def connection() -> Iterator[ChildSocket]:
    made = ChildSocket()
    yield made
    made.close()


def port_of(connection: ChildSocket) -> int:
    found = re.search(r"port=(\d+)", connection.option)
    assert found is not None
    return int(found[1])


def child(program: str, directory: Path, *arguments: object) -> ChildProcess:
    return ChildProcess([sys.executable, "-c", program, *map(str, arguments)], directory=directory)


def has_hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_child_connects(connection: ChildSocket, tmp_path: Path) -> None:
    process = child(CONNECT, tmp_path, port_of(connection))
    try:
        with connection.connect(process) as ours:
            ours.settimeout(LIMIT)
            assert ours.recv(5) == b"hello"
            assert peer_process(ours) == process.pid
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port_of(connection)), LIMIT)
    finally:
        process.end()


def test_another_process_is_turned_away(connection: ChildSocket, tmp_path: Path) -> None:
    port = port_of(connection)
    with socket.create_connection(("127.0.0.1", port), LIMIT) as intruder:
        process = child(CONNECT, tmp_path, port)
        try:
            with connection.connect(process) as ours:
                ours.settimeout(LIMIT)
                assert ours.recv(5) == b"hello"
            intruder.settimeout(LIMIT)
            assert has_hung_up(intruder)
        finally:
            process.end()


def test_a_connection_that_is_reset_does_no_harm(connection: ChildSocket, tmp_path: Path) -> None:
    port = port_of(connection)
    with socket.create_connection(("127.0.0.1", port), LIMIT) as scanner:
        scanner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("HH", 1, 0))
    process = child(CONNECT, tmp_path, port)
    try:
        with connection.connect(process) as ours:
            ours.settimeout(LIMIT)
            assert ours.recv(5) == b"hello"
    finally:
        process.end()


def test_the_system_learns_late_whose_a_connection_is(
    connection: ChildSocket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first table, an empty one, is a stand-in for that of a busy system."""
    tables = [ctypes.create_string_buffer(4)]
    real = child_sockets_windows._connections
    monkeypatch.setattr(
        child_sockets_windows, "_connections", lambda: tables.pop() if tables else real()
    )
    process = child(CONNECT, tmp_path, port_of(connection))
    try:
        with connection.connect(process) as ours:
            ours.settimeout(LIMIT)
            assert ours.recv(5) == b"hello"
    finally:
        process.end()
    assert not tables


def test_nobody_else_can_listen_there(connection: ChildSocket) -> None:
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(PermissionError):
            thief.bind(("127.0.0.1", port_of(connection)))


def test_a_child_that_ends_hangs_up(connection: ChildSocket, tmp_path: Path) -> None:
    process = child("raise SystemExit(1)", tmp_path)
    try:
        with connection.connect(process) as ours:
            ours.settimeout(LIMIT)
            assert ours.recv(1) == b""
    finally:
        process.end()


def test_whose_a_connection_is() -> None:
    program = (
        "import socket, sys\n"
        "connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "connection.recv(1)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        port = str(listener.getsockname()[1])
        with subprocess.Popen([sys.executable, "-c", program, port]) as other:
            ours, _ = listener.accept()
            with ours:
                assert peer_process(ours) == other.pid
            assert other.wait(LIMIT) == 0
