"""Servers for this user's processes: sockets that a named pipe hands over."""

import asyncio
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from boincvm.host import local_pipes_windows
from boincvm.host.local_pipes_windows import _PREFIX, _make_pipe, _open
from boincvm.host.local_servers import serve_locally
from boincvm.host.sockets import connect, connect_blocking
from boincvm.host.win32_windows import close

assert sys.platform == "win32"

LIMIT = 30.0


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(data.upper())


async def test_many_connections_from_here_and_from_another_process(tmp_path: Path) -> None:
    path = tmp_path / "Jörg" / "server"
    path.parent.mkdir()
    server = await serve_locally(path, Echo)
    async with asyncio.timeout(LIMIT):
        for word in (b"one", b"two"):
            reader, writer = await asyncio.open_connection(sock=await connect(path))
            writer.write(word)
            assert await reader.readexactly(3) == word.upper()
            writer.close()
            await writer.wait_closed()
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from boincvm.host.sockets import connect_blocking\n"
        f"connection = connect_blocking(Path(sys.argv[1]), {LIMIT})\n"
        "connection.sendall(b'from another')\n"
        "print(connection.recv(100))\n"
    )
    other = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-X", "utf8", "-c", program, str(path)],
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert other.stdout == b"b'FROM ANOTHER'\r\n", other.stderr
    server.close()
    server.close()
    await server.wait_closed()
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        await connect(path)


async def test_a_server_that_has_gone(tmp_path: Path) -> None:
    """Its process was killed, so that its file is still there."""
    path = tmp_path / "server"
    server = await serve_locally(path, Echo)
    name = path.read_bytes()
    server.close()
    path.write_bytes(name)
    with pytest.raises(ConnectionRefusedError):
        connect_blocking(path, LIMIT)
    path.write_bytes(b"\\\\.\\pipe\\another")
    with pytest.raises(ConnectionRefusedError):
        connect_blocking(path, LIMIT)


def test_a_server_that_goes_while_it_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name = tmp_path / "server", f"{_PREFIX}{secrets.token_hex(16)}"
    path.write_text(name)
    ends = [_make_pipe(name), _open(name)]
    wait = local_pipes_windows._kernel32.WaitNamedPipeW

    def wait_for_one_that_goes(waited_for: str, milliseconds: int) -> int:
        while ends:
            close(ends.pop())
        result: int = wait(waited_for, milliseconds)
        return result

    monkeypatch.setattr(local_pipes_windows._kernel32, "WaitNamedPipeW", wait_for_one_that_goes)
    with pytest.raises(ConnectionRefusedError):
        connect_blocking(path, LIMIT)
    assert not ends


def test_a_server_that_remains_busy(tmp_path: Path) -> None:
    path, name = tmp_path / "server", f"{_PREFIX}{secrets.token_hex(16)}"
    path.write_text(name)
    ends = [_make_pipe(name), _open(name)]
    with pytest.raises(TimeoutError):
        connect_blocking(path, 0.2)
    for end in ends:
        close(end)


def test_a_server_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wine has one user alone: the pipe's owner is the real one, and we say that we are another."""
    path, name = tmp_path / "server", f"{_PREFIX}{secrets.token_hex(16)}"
    path.write_text(name)
    pipe = _make_pipe(name)
    monkeypatch.setattr(local_pipes_windows, "user_identifier", lambda: "S-1-5-21-1-2-3-1001")
    with pytest.raises(PermissionError, match="of another user"):
        connect_blocking(path, LIMIT)
    close(pipe)


def test_a_server_that_hands_over_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_pipes_windows, "_ANSWER_LIMIT", 0.1)
    path, name = tmp_path / "server", f"{_PREFIX}{secrets.token_hex(16)}"
    path.write_text(name)
    pipe = _make_pipe(name)
    with pytest.raises(TimeoutError):
        connect_blocking(path, LIMIT)
    close(pipe)


async def test_a_client_that_takes_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_pipes_windows, "_ANSWER_LIMIT", 0.1)
    before = set(threading.enumerate())
    path = tmp_path / "server"
    server = await serve_locally(path, Echo)
    idle = _open(path.read_text().strip())
    server.close()
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join, LIMIT)
        assert not thread.is_alive()
    close(idle)


async def test_a_client_that_does_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "server"
    server = await serve_locally(path, Echo)
    idle = _open(path.read_text().strip())
    connection = await asyncio.to_thread(connect_blocking, path, LIMIT)
    connection.sendall(b"x")
    assert await asyncio.to_thread(connection.recv, 1) == b"X"
    close(idle)
    connection.close()
    server.close()
