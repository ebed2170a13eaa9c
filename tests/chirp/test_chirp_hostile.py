"""Whatever a Chirp server sends, an error follows in time, and nothing is written elsewhere."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boincvm.chirp.client import ChirpClient
from boincvm.chirp.protocol import (
    ChirpLostError,
    ChirpNonsenseError,
    ChirpRefusedError,
    parse_url,
)
from boincvm.chirp.session import Access
from boincvm.chirp.transport import chirp_get, chirp_put
from boincvm.errors import BoincvmError, InputFileError, UsageError
from support.chirp_server import LIMIT, answers, let_in, stand_in

pytestmark = pytest.mark.timeout(60)
PATIENT = Access(methods=("hostname",))
SOON = 0.5
"""Seconds for an answer that does not come."""
IMPATIENT = PATIENT._replace(timeout=SOON, patience=0.3)


def described(mode: int, size: int) -> bytes:
    return b"1 2 %d 1 0 0 0 %d 4096 8 1 1 1\n" % (mode, size)


FILE, DIRECTORY = b"0\n" + described(0o100644, 5), b"0\n" + described(0o40755, 0)


@asynccontextmanager
async def client_of(*replies: bytes, timeout: float = LIMIT) -> AsyncIterator[ChirpClient]:
    async with asyncio.timeout(LIMIT), stand_in(answers(*replies)) as port:
        client = await ChirpClient.open("127.0.0.1", port, ("hostname",), LIMIT)
        client._timeout = timeout  # for answers; the greeting is not to be late
        try:
            yield client
        finally:
            await client.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"x" * 5000 + b"\n",
        b"x" * 2_000_000,
        b"\n",
        b"yes\n",
        b"1e3\n",
        b"0x1\n",
        b"99999999999999999999999\n",
        "٣\n".encode(),
        b"0\n\n",
        b"0\n1 2 3\n",
        b"0\n" + described(0o100644, -1),
        b"0\n" + described(-1, 1),
        b"0\n" + described(1 << 40, 1),
        b"0\n" + b"9" * 19 + b" " + described(0o100644, 5)[2:].replace(b" 4096", b" x"),
    ],
)
async def test_descriptions_that_are_none(reply: bytes) -> None:
    async with client_of(reply) as client:
        with pytest.raises(ChirpNonsenseError):
            await client.lstat("/a")


@pytest.mark.parametrize("reply", [b"", b"0\n", b"0\n1 2 3"])
async def test_answers_that_do_not_come(reply: bytes) -> None:
    async with client_of(reply, timeout=SOON) as client:
        with pytest.raises(ChirpLostError):
            await client.lstat("/a")


@pytest.mark.parametrize("number", [-1, -2, -99, -(1 << 60)])
async def test_refusals(number: int) -> None:
    async with client_of(b"%d\n" % number) as client:
        with pytest.raises(ChirpRefusedError) as raised:
            await client.lstat("/a")
        assert raised.value.number == number


@pytest.mark.parametrize("name", [b"a/b", b"/nowhere/passwd", b"a\0b", b"x" * 256, b"../up"])
async def test_names_that_lead_elsewhere(tmp_path: Path, name: bytes) -> None:
    listing = b"0\n" + name + b"\n" + described(0o100644, 5) + b"\n"
    async with client_of(listing) as client:
        with pytest.raises(ChirpNonsenseError, match="not a file name"):
            await client.list_directory("/a")
    async with stand_in(answers(DIRECTORY, listing)) as port:
        with pytest.raises(ChirpNonsenseError):
            await chirp_get(f"chirp://127.0.0.1:{port}/a", tmp_path / "back", PATIENT)
    assert not (tmp_path / "back").exists()
    assert not (tmp_path.parent / "up").exists()


async def test_a_name_twice_and_a_list_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boincvm.chirp.client._MOST_ENTRIES", 1000)
    entry = b"a\n" + described(0o100644, 5)
    async with client_of(b"0\n" + 2 * entry + b"\n") as client:
        with pytest.raises(ChirpNonsenseError, match="duplicate"):
            await client.list_directory("/a")

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil()
        writer.write(b"0\n")
        number = 0
        while True:
            number += 1
            writer.write(b"%d\n" % number + described(0o100644, 5))
            await writer.drain()

    async with asyncio.timeout(LIMIT), stand_in(endless) as port:
        client = await ChirpClient.open("127.0.0.1", port, ("hostname",), 5.0)
        with pytest.raises(ChirpNonsenseError, match="too many"):
            await client.list_directory("/a")
        await client.close()


async def test_a_dot_in_a_list_is_passed_over() -> None:
    dots = b"".join(name + b"\n" + described(0o40755, 0) for name in (b".", b"..", b"b", b"a"))
    async with client_of(b"0\n" + dots + b"\n") as client:
        assert [name for name, _ in await client.list_directory("/a")] == ["a", "b"]


async def test_more_than_was_asked_for() -> None:
    async with client_of(b"3\n" + described(0o100644, 5), b"6\nabcdef") as client:
        descriptor = await client.open_file("/a", "r")
        with pytest.raises(ChirpNonsenseError):
            async for _ in client.read(descriptor, 0, 5):
                pass


async def test_short_reads_leave_no_gap() -> None:
    async with client_of(b"2\nab", b"3\ncde") as client:
        assert [data async for data in client.read(0, 0, 5)] == [b"ab", b"cde"]
    async with client_of(b"2\nab", b"0\n") as client:
        assert [data async for data in client.read(0, 0, 5)] == [b"ab"]


@pytest.mark.parametrize("count", [b"0\n", b"6\n", b"x\n"])
async def test_counts_of_what_was_written(count: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a\ncde"

    async with client_of(count) as client:
        with pytest.raises(ChirpNonsenseError):
            await client.write(0, 0, pieces())
    async with client_of(b"2\n", b"", b"3\n") as client:  # three lines: of two requests, and of "a"
        assert await client.write(0, 0, pieces()) == 5


async def test_a_digest_of_another_length() -> None:
    async with client_of(b"15\n" + bytes(15)) as client:
        with pytest.raises(ChirpNonsenseError):
            await client.md5("/a", 5)


async def test_a_server_that_sends_something_else_than_it_digests(tmp_path: Path) -> None:
    opened = b"3\n" + described(0o100644, 5)
    once = (FILE, opened, b"5\nhello", b"0\n", FILE, b"16\n" + bytes(16))
    async with asyncio.timeout(LIMIT), stand_in(answers(FILE, *once, *once)) as port:
        with pytest.raises(InputFileError, match="differently"):
            await chirp_get(f"chirp://127.0.0.1:{port}/a", tmp_path / "back", PATIENT)
    assert not (tmp_path / "back").exists()


async def test_a_server_that_breaks_off_for_ever(tmp_path: Path) -> None:
    """Receiving the same data again is not progress."""
    opened = b"3\n" + described(0o100644, 5)
    async with asyncio.timeout(LIMIT), stand_in(answers(FILE, FILE, opened, b"5\nhe")) as port:
        with pytest.raises(ChirpLostError):
            await chirp_get(f"chirp://127.0.0.1:{port}/a", tmp_path / "back", IMPATIENT)


async def test_a_tree_without_end(tmp_path: Path) -> None:
    async def deeper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil():
            if request.startswith(b"lstat"):
                writer.write(DIRECTORY)
            else:
                writer.write(b"0\nd\n" + described(0o40755, 0) + b"\n")

    async with asyncio.timeout(LIMIT), stand_in(deeper) as port:
        with pytest.raises(BoincvmError, match="deep"):
            await chirp_get(f"chirp://127.0.0.1:{port}/a", tmp_path / "back", PATIENT)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "location",
    [
        "/etc/cron.d/challenge.1.1",
        "/tmp/../etc/challenge.1.1",
        "/tmp/boincvm-test-mine",
        "challenge.1.1",
        "",
    ],
)
async def test_a_challenge_at_another_place_is_refused(location: str) -> None:
    output: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readuntil() == b"unix\n"
        writer.write(b"yes\n" + location.encode() + b"\n")
        output.append(await reader.readuntil())
        await let_in(reader, writer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(LIMIT), server:
        port = server.sockets[0].getsockname()[1]
        client = await ChirpClient.open("127.0.0.1", port)
        assert (client.identity, output) == ("hostname:localhost", [b"no\n"])
        await client.close()
    assert not os.path.lexists(location or "/nowhere")


@pytest.mark.parametrize("reply", [b"maybe\n", b"x" * 500_000])
async def test_nonsense_before_we_are_in(reply: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(LIMIT), server:
        with pytest.raises(ChirpNonsenseError):
            await ChirpClient.open("127.0.0.1", server.sockets[0].getsockname()[1])


async def test_a_server_that_knows_no_method_of_ours(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"no\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    source = tmp_path / "source"
    source.write_bytes(b"a")
    async with asyncio.timeout(LIMIT), server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UsageError, match="does not accept"):
            await chirp_put(source, f"chirp://127.0.0.1:{port}/a")


@pytest.mark.parametrize(
    ("text", "is_as"),
    [
        ("chirp://host/a//b/./c/", "chirp://host:9094/a/b/c"),
        ("chirp://[::1]:1/a b%20", "chirp://[::1]:1/a b%20"),
        ("chirp://host", "chirp://host:9094/"),
    ],
)
def test_addresses(text: str, is_as: str) -> None:
    assert str(parse_url(text)) == is_as


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://a/b",
        "chirp:///a",
        "chirp://a:0/b",
        "chirp://a:65536/b",
        "chirp://a b/c",
        "chirp://u@a/b",
        "chirp://a/../b",
        "chirp://a/b/..",
        "chirp://a/b\0c",
        "chirp://a" + "/b" * 65,
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        parse_url(text)
