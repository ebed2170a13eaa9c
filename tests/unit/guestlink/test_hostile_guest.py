"""What a guest that cannot be trusted may send: the link ends, or the one transfer does, and
nothing is written where it should not be."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm.bus.stomp import MAXIMUM_HEAD, Frame, Parser, encode
from boincvm.errors import (
    GuestDiedError,
    GuestHungError,
    GuestProtocolError,
    LimitError,
    OutputFileError,
    ProgramStartError,
)
from boincvm.guestlink.get import DISK_PIECE, get_tree
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import STDIN_WINDOW, WINDOW, GuestProgram
from boincvm.guestlink.put import put_tree
from boincvm.guestlink.transfer_disk import SLOT, TransferDisk
from boincvm.hypervisor.channel import SocketChannel
from boincvm.hypervisor.contract import DiskRangeError

LIMIT = 10.0
pytestmark = pytest.mark.timeout(60)


class HostileGuest:
    """The far end of the link: sends any bytes, and reads what the host says."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self.channel = channel
        self._parser = Parser()
        self._frames: list[Frame] = []

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.channel, data)

    async def send_message(
        self, word: str, call: int, body: bytes = b"", /, **headers: str
    ) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        head = {"destination": "/host", "word": word, "call": str(call), **named}
        await self.send(encode("SEND", head, body))

    async def next_frame(self) -> Frame:
        while not self._frames:
            data = await asyncio.get_running_loop().sock_recv(self.channel, 1 << 16)
            assert data
            self._frames += self._parser.feed(data)
        return self._frames.pop(0)


@pytest.fixture
async def guest_and_link() -> AsyncIterator[tuple[HostileGuest, GuestLink]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    link = await GuestLink.open(SocketChannel(near))
    guest = HostileGuest(far)
    try:
        yield guest, link
    finally:
        link.close()
        far.close()
        await asyncio.sleep(0)  # the transport closes in the loop's next round


Pair = tuple[HostileGuest, GuestLink]
CONNECT = encode("CONNECT", {"accept-version": "1.2", "heart-beat": "100,0"})


def send_frame(**headers: str) -> bytes:
    return encode("SEND", {"destination": "/host", **headers})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GARBAGE\n\n\0", "'GARBAGE' is not a STOMP command"),
        (b"SEND\n" + b"x:" + b"y" * MAXIMUM_HEAD, "a head of more than"),
        (b"SEND\ncontent-length:2000000\n\n", "a body of 2000000 bytes"),
        (b"SEND\n\n" + b"x" * (1 << 20) + b"xx", "a body of more than"),
        (encode("MESSAGE", {}), "an agent does not send MESSAGE"),
        (encode("CONNECT", {"accept-version": "1.1"}), "does not speak STOMP 1.2"),
        (encode("CONNECT", {}), "no 'accept-version' header"),
        (CONNECT + CONNECT, "connects only once"),
        (send_frame(word="stdout"), "call is '', not a number"),
        (send_frame(word="stdout", call="0"), "there is no call 0"),
        (send_frame(word="stdout", call="99"), "there is no call 99"),
        (send_frame(word="stdout", call="-1"), "call is '-1', not a number"),
        (send_frame(word="stdout", call="9" * 5000), "not a number"),
        (send_frame(word="stdout", call="\u0661"), "not a number"),
    ],
)
async def test_what_ends_the_link(guest_and_link: Pair, data: bytes, words: str) -> None:
    guest, link = guest_and_link
    await guest.send(data)
    error = await link.failure
    assert isinstance(error, GuestProtocolError)
    assert words in error.message
    assert error.message.isprintable()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_host(data: bytes) -> None:
    async def send() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        link = await GuestLink.open(SocketChannel(near))
        faults: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        far.sendall(data)
        far.close()
        async with asyncio.timeout(LIMIT):
            assert isinstance(await link.failure, GuestProtocolError | GuestDiedError)
        await asyncio.sleep(0)
        assert faults == []

    asyncio.run(send())


async def test_a_guest_that_asks_and_does_not_read(
    guest_and_link: Pair, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boincvm.guestlink.link.MAXIMUM_QUEUED", 1 << 16)
    guest, link = guest_and_link
    with (place / "window").open("w+b") as file:
        file.truncate(8 * SLOT)
        window = TransferDisk(file.fileno())
        get = asyncio.ensure_future(fetch(link, place, window))
        await guest.next_frame()
        await guest.send_message("entry", 1, b"\0", kind="file", mode="644", size=str(1 << 30))
        at = str(window.guest_slots[0])
        await guest.send(CONNECT)

        async def flood() -> None:
            while True:
                await guest.send_message("window", 1, at=at, length="1", offset="0")
                await asyncio.sleep(0)

        flooding = asyncio.ensure_future(flood())
        error = await link.failure
        flooding.cancel()
        get.cancel()
        await asyncio.gather(flooding, get, return_exceptions=True)
    assert isinstance(error, GuestProtocolError)
    assert "does not read" in error.message


async def test_silence_counts_as_hung_and_beats_as_life(guest_and_link: Pair) -> None:
    guest, link = guest_and_link
    link.expect_beats(0.3)
    for _ in range(6):
        await asyncio.sleep(0.1)
        await guest.send(b"\n")
    assert not link.failure.done()
    assert isinstance(await link.failure, GuestHungError)


async def test_the_guest_is_asked_for_beats_within_the_limit() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    link = await GuestLink.open(SocketChannel(near), silence_limit=2)
    guest = HostileGuest(far)
    await guest.send(CONNECT)
    async with asyncio.timeout(LIMIT):
        frame = await guest.next_frame()
    assert (frame.command, frame.headers["heart-beat"]) == ("CONNECTED", "0,500")
    link.close()
    far.close()
    await asyncio.sleep(0)


# Programs.


def program(link: GuestLink, output: list[bytes], rooms: list[int]) -> GuestProgram:
    return GuestProgram(
        link,
        ["prog"],
        directory="/work",
        environment={},
        output=lambda _, data: output.append(data),
        on_stdin_room=rooms.append,
    )


END = {
    "user_us": "1", "system_us": "1", "max_rss_kib": "1", "oom_kills": "0", "disk_free": "1"
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "headers"),
    [
        ("taken", {"bytes": "1"}),
        ("taken", {"bytes": "-1"}),
        ("taken", {"bytes": str(1 << 50)}),
        ("taken", {}),
        ("exit", {}),
        ("exit", {**END, "code": "256"}),
        ("exit", {**END, "code": "-1"}),
        ("exit", {**END, "signal": "65"}),
        ("exit", {**END, "code": "0", "user_us": "9" * 4000}),
        ("failed", {"reason": "9" * 30}),
        ("failed", {"reason": "5000"}),
        ("window", {}),
        ("", {}),
        ("voice", {}),
        ("usage", {"user-us": "1", "system-us": "1"}),
        ("usage", {"user-us": "1", "system-us": "1", "rss-kib": "9" * 19}),
        ("changed", {"watch": "0", "mtime-ns": "1", "size": "1"}),
    ],
)
async def test_a_program_that_says_what_it_may_not(
    guest_and_link: Pair, word: str, headers: dict[str, str]
) -> None:
    guest, link = guest_and_link
    running = program(link, [], [])
    await guest.send_message(word, 1, **headers)
    assert isinstance(await link.failure, GuestProtocolError)
    assert running is not None


async def test_more_output_than_credit(guest_and_link: Pair) -> None:
    guest, link = guest_and_link
    output: list[bytes] = []
    running = program(link, output, [])
    piece = bytes(1 << 18)
    for _ in range(WINDOW // len(piece) + 2):  # what full pipes hold needs no credit
        await guest.send_message("stdout", 1, piece)
    await asyncio.sleep(0.05)
    assert not link.failure.done()
    await guest.send_message("stderr", 1, b"x")
    assert isinstance(await link.failure, GuestProtocolError)
    assert sum(map(len, output)) == WINDOW + 2 * len(piece)
    assert running is not None


async def test_input_is_taken_as_it_was_fed(guest_and_link: Pair) -> None:
    guest, link = guest_and_link
    rooms: list[int] = []
    running = program(link, [], rooms)
    running.feed(bytes(STDIN_WINDOW))
    await guest.send_message("taken", 1, bytes=str(STDIN_WINDOW))
    await guest.send_message("exit", 1, **END, code="0")
    assert (await running.wait()).code == 0
    assert rooms == [STDIN_WINDOW]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"reason": "2"}, "no such program in the guest: prog"),
        ({"reason": "2", "at": "directory"}, "prog cannot start in its directory"),
        ({"reason": "2", "at": "interpreter"}, "it does not have the interpreter"),
        ({"reason": "13"}, "cannot execute prog: Permission denied"),
    ],
)
async def test_why_a_program_did_not_start(
    guest_and_link: Pair, headers: dict[str, str], words: str
) -> None:
    guest, link = guest_and_link
    running = program(link, [], [])
    await guest.send_message("failed", 1, **headers)
    with pytest.raises(ProgramStartError, match=words):
        await running.wait()


async def test_a_program_that_the_guest_lost(guest_and_link: Pair) -> None:
    guest, link = guest_and_link
    running = program(link, [], [])
    await guest.send_message("lost", 1, reason="5")
    with pytest.raises(GuestDiedError, match="lost track of prog: Input/output error"):
        await running.wait()


async def test_a_command_line_that_is_too_long(guest_and_link: Pair) -> None:
    _, link = guest_and_link
    with pytest.raises(ProgramStartError, match="larger than 1"):
        GuestProgram(link, ["a" * (1 << 20)], directory="/", environment={}, output=lambda *_: None)


# Files from the guest.


async def fetch(
    link: GuestLink, directory: Path, window: TransferDisk | None = None, most: int = 1 << 40
) -> None:
    await get_tree(
        link,
        window,
        PurePosixPath("out"),
        PurePosixPath("out"),
        directory=directory / "work",
        maximum_bytes=most,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path


def entry(kind: str, path: bytes = b"", target: bytes = b"", size: int = 0) -> bytes:
    head = {"word": "entry", "call": "1", "kind": kind, "mode": "644", "size": str(size)}
    return encode("SEND", head, path + b"\0" + target)


def data(offset: int, body: bytes) -> bytes:
    return encode("SEND", {"word": "data", "call": "1", "offset": str(offset)}, body)


DONE = encode("SEND", {"word": "done", "call": "1"})


@pytest.mark.parametrize(
    "frames",
    [
        [entry("file", b"../../etc/x")],
        [entry("directory"), entry("file", b"../x")],
        [entry("directory"), entry("file", b"/tmp/x")],
        [entry("directory"), entry("link", b"l", b"/etc"), entry("file", b"l/x")],
        [entry("directory"), entry("link", b"l", b"../.."), DONE],
        [entry("directory"), entry("link", b"./././l", b"../../x"), DONE],
        [entry("directory"), entry("directory", b"a"), entry("file", b"a")],
        [entry("directory"), entry("file", b"a" * 300)],
        [entry("directory"), entry("file", b"/".join([b"a"] * 70))],
        [entry("file", size=10), data(5, b"123456")],
        [entry("file", size=10), data(1 << 61, b"1")],
        [entry("file", size=1001)],
        [entry("device")],
        [data(0, b"1")],
        [encode("SEND", {"word": "again", "call": "1"})],
        [DONE],
        [encode("SEND", {"word": "failed", "call": "1"}, b"\x1b[31m" + b"x" * 5000)],
    ],
)
async def test_an_output_that_is_refused(
    guest_and_link: Pair, place: Path, frames: list[bytes]
) -> None:
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, place, most=1000))
    await guest.next_frame()
    await guest.send(b"".join(frames) + DONE)
    with pytest.raises(OutputFileError) as failure:
        await transfer
    assert failure.value.message.isprintable()
    assert not link.failure.done()
    assert [str(path.relative_to(place)) for path in place.rglob("*")] == ["work"]


@pytest.mark.parametrize(
    "headers",
    [
        {"word": "entry", "kind": "file", "mode": "999", "size": "1"},
        {"word": "entry", "kind": "file", "mode": "644", "size": "-1"},
        {"word": "entry", "kind": "file", "mode": "644"},
        {"word": "data", "offset": "x"},
        {"word": "window", "at": "0", "offset": "0", "length": "1"},
        {"word": "disk", "at": "0", "offset": "0", "length": "1"},
        {"word": "stdout"},
    ],
)
async def test_an_output_that_ends_the_link(
    guest_and_link: Pair, place: Path, headers: dict[str, str]
) -> None:
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, place))
    await guest.next_frame()
    await guest.send(encode("SEND", {"call": "1", **headers}))
    assert isinstance(await link.failure, GuestProtocolError)
    transfer.cancel()
    await asyncio.gather(transfer, return_exceptions=True)
    assert list((place / "work").iterdir()) == []


@pytest.mark.parametrize(("at", "length"), [(0, 1), (1, 1), (1 << 40, 1), (4 * SLOT, SLOT + 1)])
async def test_a_slot_that_is_not_the_guests(
    guest_and_link: Pair, place: Path, at: int, length: int
) -> None:
    guest, link = guest_and_link
    with (place / "window").open("w+b") as file:
        file.truncate(8 * SLOT)
        file.write(b"what the host sends to the guest")
        transfer = asyncio.ensure_future(fetch(link, place, TransferDisk(file.fileno())))
        await guest.next_frame()
        await guest.send(entry("file", size=1 << 30))
        await guest.send_message("window", 1, at=str(at), length=str(length), offset="0")
        assert isinstance(await link.failure, GuestProtocolError)
        transfer.cancel()
        await asyncio.gather(transfer, return_exceptions=True)
    assert list((place / "work").iterdir()) == []


class Disk:
    """A root disk that holds `content`, and nothing beyond it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.open_readers = 0

    def open_reader(self) -> "Disk":
        self.open_readers += 1
        return self

    def copy(self, at: int, length: int, target: int, offset: int) -> None:
        if at + length > len(self.content):
            raise DiskRangeError("beyond it")
        os.pwrite(target, self.content[at : at + length], offset)

    def close(self) -> None:
        self.open_readers -= 1


@pytest.fixture
def disk(place: Path) -> Iterator[tuple[Disk, TransferDisk]]:
    disk = Disk(b"0123456789")
    with (place / "window").open("w+b") as file:
        file.truncate(8 * SLOT)
        yield disk, TransferDisk(file.fileno(), disk)
    assert disk.open_readers == 0


async def test_a_file_by_way_of_the_root_disk(
    guest_and_link: Pair, place: Path, disk: tuple[Disk, TransferDisk]
) -> None:
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, place, disk[1]))
    assert int((await guest.next_frame()).headers["disk-piece"]) == DISK_PIECE
    await guest.send(entry("file", size=6))
    await guest.send_message("disk", 1, at="2", offset="0", length="4")
    assert (await guest.next_frame()).headers["word"] == "taken"
    await guest.send_message("disk", 1, at="8", offset="4", length="3")  # too many
    with pytest.raises(OutputFileError, match="outside the file"):
        await transfer
    assert list((place / "work").iterdir()) == []


async def test_what_the_root_disk_does_not_have_comes_in_another_way(
    guest_and_link: Pair, place: Path, disk: tuple[Disk, TransferDisk]
) -> None:
    """And nothing of what came before is left where the guest then says nothing."""
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, place, disk[1]))
    await guest.next_frame()
    await guest.send(entry("file", size=6))
    await guest.send_message("disk", 1, at="2", offset="0", length="4")
    await guest.send_message("disk", 1, at="9", offset="4", length="2")
    assert [(await guest.next_frame()).headers["word"] for _ in range(2)] == ["taken", "again"]
    await guest.send_message("again", 1)
    await guest.send(data(1, b"new") + DONE)
    await transfer
    assert (place / "work/out").read_bytes() == b"\0new\0\0"


@pytest.mark.parametrize(
    "headers",
    [
        {"at": "0", "offset": "0", "length": str(DISK_PIECE + 1)},
        {"at": "-1", "offset": "0", "length": "1"},
        {"at": "0", "offset": "x", "length": "1"},
        {"at": "0", "offset": "0"},
    ],
)
async def test_a_piece_of_the_root_disk_that_ends_the_link(
    guest_and_link: Pair, place: Path, disk: tuple[Disk, TransferDisk], headers: dict[str, str]
) -> None:
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, place, disk[1]))
    await guest.next_frame()
    await guest.send(entry("file", size=1 << 30))
    await guest.send_message("disk", 1, **headers)
    assert isinstance(await link.failure, GuestProtocolError)
    transfer.cancel()
    await asyncio.gather(transfer, return_exceptions=True)
    assert list((place / "work").iterdir()) == []


async def test_an_output_replaces_a_link_and_not_what_it_leads_to(
    guest_and_link: Pair, place: Path
) -> None:
    guest, link = guest_and_link
    (place / "target").write_bytes(b"untouched")
    (place / "work/out").symlink_to("../target")
    transfer = asyncio.ensure_future(fetch(link, place))
    await guest.next_frame()
    await guest.send(entry("file", size=3) + data(0, b"new") + DONE + DONE)
    await transfer
    assert (place / "work/out").read_bytes() == b"new"
    assert not (place / "work/out").is_symlink()
    assert (place / "target").read_bytes() == b"untouched"


# Files to the guest.


async def test_a_guest_that_is_full_while_all_slots_are_on_their_way(
    guest_and_link: Pair, place: Path
) -> None:
    guest, link = guest_and_link
    (place / "work/in").write_bytes(os.urandom(3 * SLOT))
    with (place / "window").open("w+b") as file:
        file.truncate(2 * SLOT)  # one for the host
        transfer = asyncio.ensure_future(put(link, place, TransferDisk(file.fileno())))
        while (await guest.next_frame()).headers["word"] != "window":
            pass
        await guest.send_message("failed", 1, b"No space left on device", reason="28")
        with pytest.raises(LimitError, match="the inputs do not fit"):
            await transfer
    assert not link.failure.done()


@pytest.mark.parametrize(
    ("word", "headers"), [("taken", {"bytes": "1"}), ("stdout", {}), ("failed", {})]
)
async def test_a_receiver_that_says_what_it_may_not(
    guest_and_link: Pair, place: Path, word: str, headers: dict[str, str]
) -> None:
    guest, link = guest_and_link
    (place / "work/in").write_bytes(b"x")
    transfer = asyncio.ensure_future(put(link, place, None))
    while (await guest.next_frame()).headers["word"] != "end":
        pass
    await guest.send_message(word, 1, **headers)
    assert isinstance(await link.failure, GuestProtocolError)
    transfer.cancel()
    await asyncio.gather(transfer, return_exceptions=True)


async def test_done_twice_is_nothing_to_fall_over(guest_and_link: Pair, place: Path) -> None:
    guest, link = guest_and_link
    (place / "work/in").write_bytes(b"x")
    transfer = asyncio.ensure_future(put(link, place, None))
    while (await guest.next_frame()).headers["word"] != "end":
        pass
    await guest.send(DONE + DONE)
    await transfer
    assert not link.failure.done()


async def put(link: GuestLink, place: Path, window: TransferDisk | None) -> None:
    await put_tree(link, window, Path("in"), PurePosixPath("in"), directory=place / "work")
