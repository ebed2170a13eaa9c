"""Pipes, sockets at paths, memory files and signals: what a system provides besides files."""

import asyncio
import ctypes
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.host import channels, files, memory_files, resources, signals, sockets, users
from boincvm.host.resources_posix import macos_value


def test_a_pipe_takes_what_it_holds() -> None:
    reader, writer = os.pipe()
    try:
        channels.set_blocking(writer, False)
        channels.widen(writer, 1 << 17)
        assert channels.capacity(writer) == 1 << 17
        assert channels.wait_until_writable(writer, 0)
        assert os.write(writer, bytes(1 << 18)) == 1 << 17
        assert not channels.wait_until_writable(writer, 0)
        assert not channels.reader_has_gone(writer)
        assert len(os.read(reader, channels.ATOMIC_WRITE)) == channels.ATOMIC_WRITE
        assert channels.wait_until_writable(writer, 0)
    finally:
        os.close(reader)
    assert channels.reader_has_gone(writer)
    os.close(writer)


class StandInForMacos:
    """sysctl(3) of a Mac, as its manual describes it."""

    def sysctlbyname(
        self, name: bytes, value: ctypes.Array[ctypes.c_char], size: object, new: None, length: int
    ) -> int:
        if name != b"kern.bootsessionuuid":
            ctypes.set_errno(errno.ENOENT)
            return -1
        value.value = b"C0FFEE00-0000-4000-8000-000000000001"
        return 0


def test_macos_tells_one_boot_from_another() -> None:
    library = StandInForMacos()
    assert macos_value("kern.bootsessionuuid", library) == "C0FFEE00-0000-4000-8000-000000000001"
    with pytest.raises(FileNotFoundError):
        macos_value("kern.nothing", library)


def test_a_named_pipe_outlives_its_writers(tmp_path: Path) -> None:
    descriptor = channels.make_named_pipe(tmp_path / "pipe")
    try:
        assert stat.S_IMODE((tmp_path / "pipe").stat().st_mode) == 0o600
        for word in ("one", "two"):
            subprocess.run(["sh", "-c", f"echo {word} >pipe"], cwd=tmp_path, check=True, timeout=20)
            assert os.read(descriptor, 100) == f"{word}\n".encode()
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def test_a_duplicate_is_none_of_the_streams() -> None:
    descriptor = channels.duplicate_above_streams(1)
    try:
        assert descriptor > 2
        assert os.path.sameopenfile(descriptor, 1)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def long_path(tmp_path: Path) -> Path:
    """Return a path that is too long for a socket's address."""
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    return directory / "socket"


def test_a_socket_lies_wherever_it_is_to(long_path: Path) -> None:
    long_path.write_text("something else")
    with sockets.private_listener(long_path) as listener:
        assert stat.S_IMODE(long_path.stat().st_mode) == 0o600
        with pytest.raises(ConnectionRefusedError):
            sockets.connect_blocking(long_path, 1.0)
        listener.listen()
        with sockets.connect_blocking(long_path, 5.0) as local, listener.accept()[0] as remote:
            assert local.gettimeout() == 5.0
            assert sockets.peer_is_this_user(remote)
            local.sendall(b"word")
            assert remote.recv(10) == b"word"


def test_who_listens_at_a_socket(long_path: Path) -> None:
    with sockets.private_listener(long_path) as listener:
        listener.listen()
        with sockets.connect_blocking(long_path, 5.0) as local:
            assert sockets.peer_process(local) == os.getpid()
    with sockets.private_listener(long_path) as listener:
        program = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).listen()"
        handle = str(listener.fileno())
        command = [sys.executable, "-c", program, handle]
        subprocess.run(command, pass_fds=[listener.fileno()], check=True)
        with sockets.connect_blocking(long_path, 5.0) as local:
            assert sockets.peer_process(local) not in (None, os.getpid())


async def test_an_event_loop_connects(long_path: Path) -> None:
    with sockets.private_listener(long_path) as listener:
        listener.listen()
        with await sockets.connect(long_path) as local, listener.accept()[0] as remote:
            remote.sendall(b"word")
            assert await asyncio.get_running_loop().sock_recv(local, 10) == b"word"
    with pytest.raises(OSError, match=r"refused|No such file"):
        await sockets.connect(long_path)


def test_a_peer_that_goes_is_missed() -> None:
    with socket.socket() as connection:
        sockets.keep_alive(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10


def test_a_file_in_memory_is_inherited_by_its_path() -> None:
    descriptor = memory_files.create("test")
    try:
        os.write(descriptor, b"content")
        done = subprocess.run(
            ["cat", memory_files.path_of(descriptor)],
            pass_fds=[descriptor],
            capture_output=True,
            check=True,
            timeout=20,
        )
        assert done.stdout == b"content"
    finally:
        os.close(descriptor)


def test_a_copy_in_memory_keeps_holes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for location in (0, 5 << 20):
            file.seek(location)
            file.write(b"\1" * 4096)
        file.truncate(64 << 20)
    descriptor = memory_files.copy(path, "test")
    try:
        status = os.fstat(descriptor)
        assert status.st_size == 64 << 20
        assert files.allocated_size(status) < 1 << 20
        for location in (0, 5 << 20):
            assert files.read_at(descriptor, 5000, location) == b"\1" * 4096 + bytes(904)
    finally:
        os.close(descriptor)


def test_what_the_host_has() -> None:
    assert resources.processors() == len(os.sched_getaffinity(0))
    assert 0 < resources.available_memory() <= resources.total_memory()
    assert 0 < resources.used_memory() < resources.total_memory()
    assert resources.most_open_files() > 10
    assert resources.busy_seconds() > 0
    assert len(resources.boot_id()) == 36
    assert users.user_id() == str(os.getuid())
    assert users.is_root() is (os.geteuid() == 0)


HOLDS_BACK = """
import os, signal, sys
from boincvm.host import signals
former = signals.block_signals(signals.TERMINATION_SIGNALS)
assert former == set()
for number in signals.TERMINATION_SIGNALS:
    os.kill(os.getpid(), number)
print("still here", flush=True)
if sys.argv[1] == "through":
    signals.unblock_signals([signal.SIGTERM])
else:
    signals.restore_signal_mask(former)
print("never said", flush=True)
"""


@pytest.mark.parametrize("how", ["through", "back"])
def test_signals_wait(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLDS_BACK, how],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "still here\n"
    ended_by = (
        {-signal.SIGTERM} if how == "through" else {-one for one in signals.TERMINATION_SIGNALS}
    )
    assert done.returncode in ended_by


async def test_a_loop_receives_signals() -> None:
    received: list[int] = []
    came = asyncio.Event()

    def receive(number: int) -> None:
        received.append(number)
        came.set()

    former = signal.getsignal(signal.SIGUSR1)
    signals.add_signal_handlers([signal.SIGUSR1], receive)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(came.wait(), 10)
        assert received == [signal.SIGUSR1]
    finally:
        signals.remove_signal_handlers([signal.SIGUSR1])
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        signal.signal(signal.SIGUSR1, former)


NUMBERS = """processor\t: 0
BogoMIPS\t: 50.00
CPU implementer\t: 0x41
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

processor\t: 1
CPU implementer\t: 0x42
"""


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("processor : 0\nmodel name\t: A CPU @ 2 GHz\nmodel name : B\n", "A CPU @ 2 GHz"),
        (NUMBERS, "0x41 0x3 0xd0c 1"),
        ("", ""),
    ],
)
def test_a_processor_without_a_name_has_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, name: str
) -> None:
    """As those for AArch64 do."""
    from boincvm.host import resources_posix

    (tmp_path / "cpuinfo").write_text(table)
    monkeypatch.setattr(resources_posix, "_CPU_TABLE", str(tmp_path / "cpuinfo"))
    assert resources.processor_name() == name
