"""Copy files to and from a real chirp_server."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from boincvm.chirp import client as chirp
from boincvm.chirp import files as chirp_files
from boincvm.chirp import transport as chirp_transport
from boincvm.chirp.client import ChirpClient
from boincvm.chirp.protocol import ChirpLostError, ChirpRefusedError
from boincvm.chirp.session import Access
from boincvm.chirp.transport import (
    Copied,
    chirp_get,
    chirp_put,
    chirp_read,
    guest_url,
)
from boincvm.controller.protocol.guest import Guest
from boincvm.errors import (
    BoincvmError,
    InputFileError,
    LimitError,
    OutputFileError,
    UsageError,
)
from support.chirp_server import LIMIT, RealServer, real_server

pytestmark = pytest.mark.timeout(120)
THEN = 1_234_567_890
"""Seconds since 1970: Chirp has no parts of them."""
ODD = ["a b", "100%", "%41", "-rf", "ä☃", "quote\"'", "back\\slash", "tab\there", "x" * 200, "#?&"]


def content(size: int) -> bytes:
    return (hashlib.sha256(b"boincvm").digest() * (size // 32 + 1))[:size]


async def bytes_of(url: str, access: Access | None = None) -> bytes:
    return b"".join([data async for data in chirp_read(url, access)])


@pytest.mark.parametrize("size", [0, 1, chirp.PIECE, (5 << 20) + 7])
async def test_a_file_both_ways(tmp_path: Path, size: int) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(content(size))
    source.chmod(0o700)
    os.utime(source, ns=(0, THEN * 10**9 + 5))
    async with real_server(tmp_path) as server:
        assert await chirp_put(source, server.url("there")) == Copied(1, size)
        assert (server.root / "there").read_bytes() == content(size)
        assert (server.root / "there").stat().st_mtime == THEN
        assert await chirp_get(server.url("there"), back) == Copied(1, size)
        assert await bytes_of(server.url("there")) == content(size)
    assert back.read_bytes() == content(size)
    assert back.stat().st_mode & 0o777 == 0o700
    assert back.stat().st_mtime == THEN
    assert sorted(os.listdir(server.root)) == [".__acl", ".__uuid", "there"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"source", "back", "chirp"}


async def test_a_file_replaces_another(tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    back.write_bytes(b"old and longer")
    async with real_server(tmp_path) as server:
        for text in (b"first of all", b"second"):
            source.write_bytes(text)
            await chirp_put(source, server.url("there"))
        await chirp_get(server.url("there"), back)
    assert back.read_bytes() == b"second"


async def test_a_byte_stream(tmp_path: Path) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 10_000

    async with real_server(tmp_path) as server:
        assert await chirp_put(stream(), server.url("there")) == Copied(1, 1_000_000)
        assert (server.root / "there").stat().st_size == 1_000_000
        with pytest.raises(UsageError, match="more than 5000 bytes"):
            await chirp_put(stream(), server.url("other"), Access(most_bytes=5000))


async def test_64_mib(tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(content(64 << 20))
    async with real_server(tmp_path) as server:
        await chirp_put(source, server.url("there"))
        await chirp_get(server.url("there"), back)
    assert back.read_bytes() == content(64 << 20)


async def test_a_tree_both_ways_with_odd_names(tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    for number, name in enumerate(ODD):
        (source / name).write_text(name)
        (source / "deep" / name).mkdir()
        (source / "deep" / "er" / name).write_bytes(content(number * 1000))
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "deep" / "fifo")
    for name in ("deep/er", "deep"):
        os.utime(source / name, (THEN, THEN))
    async with real_server(tmp_path) as server:
        copied = await chirp_put(source, server.url("tree"))
        assert (copied.files, set(copied.left_out)) == (2 * len(ODD), {"link", "deep/fifo"})
        with pytest.raises(UsageError, match="already exists"):
            await chirp_put(source, server.url("tree"))
        (server.root / "tree" / "secret").symlink_to("/etc/passwd")
        copied = await chirp_get(server.url("tree"), back)
        assert (copied.files, copied.left_out) == (2 * len(ODD), ("secret",))
        with pytest.raises(UsageError, match="already exists"):
            await chirp_get(server.url("tree"), back)
    for name in ("deep/er", "deep"):
        assert (back / name).stat().st_mtime == THEN
    (source / "link").unlink()
    (source / "deep" / "fifo").unlink()
    assert files_of(back) == files_of(source)


def files_of(tree: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(tree)): None if path.is_dir() else path.read_bytes()
        for path in tree.rglob("*")
    }


class Slow:
    """A transfer that stops after a number of bytes, until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.is_there, self.goes_on = asyncio.Event(), asyncio.Event()
        self.begins: list[int] = []
        read, write = ChirpClient.read, ChirpClient.write

        async def slow_read(
            client: ChirpClient, descriptor: int, begin: int, end: int
        ) -> AsyncIterator[bytes]:
            self.begins.append(begin)
            async for data in self._slow(read(client, descriptor, begin, end), begin, after):
                yield data

        async def slow_write(
            client: ChirpClient, descriptor: int, begin: int, pieces: AsyncIterator[bytes]
        ) -> int:
            self.begins.append(begin)
            return await write(client, descriptor, begin, self._slow(pieces, begin, after))

        monkeypatch.setattr(ChirpClient, "read", slow_read)
        monkeypatch.setattr(ChirpClient, "write", slow_write)

    async def _slow(
        self, pieces: AsyncIterator[bytes], at: int, after: int
    ) -> AsyncIterator[bytes]:
        async for data in pieces:
            yield data
            at += len(data)
            if at >= after and not self.goes_on.is_set():
                self.is_there.set()
                await self.goes_on.wait()


SIZE = 32 << 20


async def break_off(server: RealServer, slow: Slow) -> None:
    async with asyncio.timeout(LIMIT):
        await slow.is_there.wait()
        await server.kill()
        slow.goes_on.set()
        await server.start()


@pytest.mark.parametrize("way", ["put", "get", "read"])
async def test_the_server_is_killed_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(content(SIZE))
    async with real_server(tmp_path) as server:
        if way != "put":
            (server.root / "there").write_bytes(content(SIZE))
        slow = Slow(monkeypatch, SIZE // 2)
        async with asyncio.TaskGroup() as tasks:
            if way == "put":
                tasks.create_task(chirp_put(source, server.url("there")))
            elif way == "get":
                tasks.create_task(chirp_get(server.url("there"), back))
            else:
                reading = tasks.create_task(bytes_of(server.url("there")))
            await break_off(server, slow)
        if way == "put":
            assert (server.root / "there").read_bytes() == content(SIZE)
        elif way == "get":
            assert back.read_bytes() == content(SIZE)
        else:
            assert reading.result() == content(SIZE)
    assert len(slow.begins) == 2
    assert slow.begins[1] >= SIZE // 4  # went on where it was


@pytest.mark.parametrize("way", ["put", "get"])
async def test_another_call_goes_on_where_one_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(content(SIZE))
    async with real_server(tmp_path) as server:
        url = server.url("there")
        if way == "get":
            (server.root / "there").write_bytes(content(SIZE))
        slow = Slow(monkeypatch, SIZE // 2)
        copy = chirp_put(source, url) if way == "put" else chirp_get(url, back)
        async with asyncio.timeout(LIMIT):
            given_up = asyncio.create_task(copy)
            await slow.is_there.wait()
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
        assert not (back if way == "get" else server.root / "there").exists()
        slow.goes_on.set()
        await (chirp_put(source, url) if way == "put" else chirp_get(url, back))
        arrived = back if way == "get" else server.root / "there"
        assert arrived.read_bytes() == content(SIZE)
    assert len(slow.begins) == 2
    assert slow.begins[1] >= SIZE // 4


async def test_a_leftover_that_is_wrong_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chirp_transport, "_beside", lambda path, _: f"{path}.part")
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(content(1000))
    async with real_server(tmp_path) as server:
        for leftover in (b"x" * 500, b"x" * 1000, b"x" * 2000):
            (server.root / "there.part").write_bytes(leftover)
            await chirp_put(source, server.url("there"))
            assert (server.root / "there").read_bytes() == content(1000)
            Path(f"{back}.part").write_bytes(leftover)
            await chirp_get(server.url("there"), back)
            assert back.read_bytes() == content(1000)


async def test_a_server_that_does_not_come_back_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(content(SIZE))
    async with real_server(tmp_path) as server:
        slow = Slow(monkeypatch, SIZE // 2)
        copy = asyncio.create_task(chirp_put(source, server.url("there"), Access(patience=0.3)))
        async with asyncio.timeout(LIMIT):
            await slow.is_there.wait()
            await server.kill()
            slow.goes_on.set()
            with pytest.raises(ChirpLostError):
                await copy


async def test_no_permission(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a")
    stranger = Access(methods=("hostname",))
    async with real_server(tmp_path) as server:
        await chirp_put(source, server.url("there"))
        for refused in (
            chirp_put(source, server.url("other"), stranger),
            chirp_get(server.url("there"), tmp_path / "back", stranger),
            bytes_of(server.url("there"), stranger),
        ):
            with pytest.raises(ChirpRefusedError, match="permission denied"):
                await refused
        (server.root / ".__acl").write_text("hostname:localhost rl\n")
        assert await bytes_of(server.url("there"), stranger) == b"a"
        with pytest.raises(ChirpRefusedError, match="permission denied"):
            await chirp_put(source, server.url("other"), stranger)
    assert not (tmp_path / "back").exists()


async def test_what_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a")
    async with real_server(tmp_path) as server:
        (server.root / "link").symlink_to("/etc/passwd")
        (server.root / "here").write_bytes(b"a")
        for path, error in (
            ("none", "no such file"),
            ("link", "symbolic links are not followed"),
        ):
            with pytest.raises(BoincvmError) as raised:
                await chirp_get(server.url(path), tmp_path / "back")
            assert error in raised.value.message + raised.value.hint
        with pytest.raises(InputFileError, match="is a directory"):
            await bytes_of(server.url(""))
        with pytest.raises(InputFileError, match="there is no"):
            await chirp_put(tmp_path / "none", server.url("a"))
        with pytest.raises(ChirpRefusedError, match="no such file"):
            await chirp_put(source, server.url("none/a"))
        with pytest.raises(UsageError, match="names no file"):
            await chirp_put(source, server.url(""))
        with pytest.raises(UsageError, match="too long for Chirp"):
            await chirp_put(source, server.url("/".join(["ä" * 100] * 4)))
        with pytest.raises(OutputFileError, match="cannot open"):
            await chirp_get(server.url("here"), tmp_path / "no" / "x")
    assert not (tmp_path / "back").exists()


async def test_caps(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(5):
        (source / str(number)).write_bytes(bytes(100))
    async with real_server(tmp_path) as server:
        for access in (Access(most_files=4), Access(most_bytes=499)):
            with pytest.raises(LimitError):
                await chirp_put(source, server.url("tree"), access)
        await chirp_put(source, server.url("tree"))
        for access in (Access(most_files=4), Access(most_bytes=499)):
            with pytest.raises(LimitError):
                await chirp_get(server.url("tree"), tmp_path / "back", access)


async def test_a_name_with_a_lines_end_is_not_sent(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a\nb").write_text("a")
    async with real_server(tmp_path) as server:
        with pytest.raises(UsageError, match="line break"):
            await chirp_put(source, server.url("tree"))


async def test_nobody_is_there(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT):
        for host in ("127.0.0.1:1", "no-such-host.invalid", "127.0.0.1.:9"):
            with pytest.raises(ChirpLostError, match="can be reached"):
                await chirp_get(f"chirp://{host}/a", tmp_path / "back")


async def test_a_file_that_changes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(content(SIZE))
    monkeypatch.setattr(chirp_files, "_md5", lambda _: bytes(16))
    async with real_server(tmp_path) as server:
        with pytest.raises(OutputFileError, match="differs on the server"):
            await chirp_put(source, server.url("there"))
        assert sorted(os.listdir(server.root)) == [".__acl", ".__uuid"]


def test_a_guest_that_tells_of_its_server() -> None:
    guest = Guest("g1", "g1", capabilities=frozenset({"exec", "chirp://10.0.2.2:9094"}))
    assert guest_url(guest, "data/in") == "chirp://10.0.2.2:9094/data/in"
    with pytest.raises(UsageError, match="leads out"):
        guest_url(guest, "../etc")
    with pytest.raises(UsageError, match="no Chirp server"):
        guest_url(Guest("g2", "g2"), "data")
    with pytest.raises(UsageError, match="is not of the form chirp"):
        guest_url(Guest("g3", "g3", capabilities=frozenset({"chirp://a b:1"})), "data")
