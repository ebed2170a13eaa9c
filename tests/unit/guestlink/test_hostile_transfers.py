"""Transfers of files with a guest that cannot be trusted: one that it spoils ends, or the link
does, and nothing is written where it should not be."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import cast

import pytest

from boincvm.bus.stomp import encode
from boincvm.errors import (
    GuestProtocolError,
    LimitError,
    OutputFileError,
)
from boincvm.guestlink.get import DISK_PIECE, get_tree
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.put import put_tree
from boincvm.guestlink.transfer_disk import SLOT, TransferDisk
from boincvm.host import filetree
from boincvm.hypervisor.contract import DiskRangeError
from boincvm.machine.session import Session
from boincvm.node.machine_files import MachineFileRoot
from support.scripted_guest import CONNECT, Pair

LIMIT = 10.0
pytestmark = pytest.mark.timeout(60)


async def test_an_error_has_the_name_that_the_user_knows(
    guest_and_link: Pair, tmp_path: Path
) -> None:
    guest, link = guest_and_link

    async def guarded(work: Awaitable[None]) -> None:
        await work

    session = cast(Session, SimpleNamespace(link=link, transfer_disk=None, guard=guarded))
    root = MachineFileRoot(lambda: session)
    fetched = asyncio.ensure_future(root.get(PurePosixPath("no/file"), tmp_path / "content"))
    await guest.next_frame()
    await guest.send_message("failed", 1, b"No such file or directory")
    with pytest.raises(OutputFileError, match=r"^no/file in the guest: .*No such file"):
        await fetched


async def fetch(
    link: GuestLink,
    directory: Path,
    transfer_disk: TransferDisk | None = None,
    most: int = 1 << 40,
    *,
    replaces: bool = False,
) -> None:
    await get_tree(
        link,
        transfer_disk,
        PurePosixPath("out"),
        PurePosixPath("out"),
        directory=directory / "work",
        maximum_bytes=most,
        replaces=replaces,
    )


@pytest.fixture
def location(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path


def entry(kind: str, path: bytes = b"", target: bytes = b"", size: int = 0) -> bytes:
    head = {"message": "entry", "call": "1", "kind": kind, "mode": "644", "size": str(size)}
    return encode("SEND", head, path + b"\0" + target)


def data(offset: int, body: bytes) -> bytes:
    return encode("SEND", {"message": "data", "call": "1", "offset": str(offset)}, body)


DONE = encode("SEND", {"message": "done", "call": "1"})


async def test_a_guest_that_asks_and_does_not_read(
    guest_and_link: Pair, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boincvm.guestlink.link.MAXIMUM_QUEUED", 1 << 16)
    guest, link = guest_and_link
    with (location / "transfer-disk").open("w+b") as file:
        file.truncate(8 * SLOT)
        transfer_disk = TransferDisk(file.fileno())
        get = asyncio.ensure_future(fetch(link, location, transfer_disk))
        await guest.next_frame()
        await guest.send_message("entry", 1, b"\0", kind="file", mode="644", size=str(1 << 30))
        at = str(transfer_disk.guest_slots[0])
        await guest.send(CONNECT)

        async def flood() -> None:
            while True:
                await guest.send_message("transfer-disk", 1, at=at, length="1", offset="0")
                await asyncio.sleep(0)

        flooding = asyncio.ensure_future(flood())
        error = await link.failure
        flooding.cancel()
        get.cancel()
        await asyncio.gather(flooding, get, return_exceptions=True)
    assert isinstance(error, GuestProtocolError)
    assert "does not read" in error.message


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
        [encode("SEND", {"message": "again", "call": "1"})],
        [DONE],
        [encode("SEND", {"message": "failed", "call": "1"}, b"\x1b[31m" + b"x" * 5000)],
    ],
)
async def test_an_output_that_is_refused(
    guest_and_link: Pair, location: Path, frames: list[bytes]
) -> None:
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, location, most=1000))
    await guest.next_frame()
    await guest.send(b"".join(frames) + DONE)
    with pytest.raises(OutputFileError) as failure:
        await transfer
    assert failure.value.message.isprintable()
    assert not link.failure.done()
    assert [str(path.relative_to(location)) for path in location.rglob("*")] == ["work"]


@pytest.mark.parametrize(
    "headers",
    [
        {"message": "entry", "kind": "file", "mode": "999", "size": "1"},
        {"message": "entry", "kind": "file", "mode": "644", "size": "-1"},
        {"message": "entry", "kind": "file", "mode": "644"},
        {"message": "data", "offset": "x"},
        {"message": "transfer-disk", "at": "0", "offset": "0", "length": "1"},
        {"message": "disk", "at": "0", "offset": "0", "length": "1"},
        {"message": "stdout"},
    ],
)
async def test_an_output_that_ends_the_link(
    guest_and_link: Pair, location: Path, headers: dict[str, str]
) -> None:
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, location))
    await guest.next_frame()
    await guest.send(encode("SEND", {"call": "1", **headers}))
    assert isinstance(await link.failure, GuestProtocolError)
    transfer.cancel()
    await asyncio.gather(transfer, return_exceptions=True)
    assert list((location / "work").iterdir()) == []


@pytest.mark.parametrize(("at", "length"), [(0, 1), (1, 1), (1 << 40, 1), (4 * SLOT, SLOT + 1)])
async def test_a_slot_that_is_not_the_guests(
    guest_and_link: Pair, location: Path, at: int, length: int
) -> None:
    guest, link = guest_and_link
    with (location / "transfer-disk").open("w+b") as file:
        file.truncate(8 * SLOT)
        file.write(b"what the host sends to the guest")
        transfer = asyncio.ensure_future(fetch(link, location, TransferDisk(file.fileno())))
        await guest.next_frame()
        await guest.send(entry("file", size=1 << 30))
        await guest.send_message("transfer-disk", 1, at=str(at), length=str(length), offset="0")
        assert isinstance(await link.failure, GuestProtocolError)
        transfer.cancel()
        await asyncio.gather(transfer, return_exceptions=True)
    assert list((location / "work").iterdir()) == []


class Disk:
    """A root disk that contains `content` and nothing beyond it."""

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
def disk(location: Path) -> Iterator[tuple[Disk, TransferDisk]]:
    disk = Disk(b"0123456789")
    with (location / "transfer-disk").open("w+b") as file:
        file.truncate(8 * SLOT)
        yield disk, TransferDisk(file.fileno(), disk)
    assert disk.open_readers == 0


async def test_a_file_by_way_of_the_root_disk(
    guest_and_link: Pair, location: Path, disk: tuple[Disk, TransferDisk]
) -> None:
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, location, disk[1]))
    assert int((await guest.next_frame()).headers["disk-piece"]) == DISK_PIECE
    await guest.send(entry("file", size=6))
    await guest.send_message("disk", 1, at="2", offset="0", length="4")
    assert (await guest.next_frame()).headers["message"] == "taken"
    await guest.send_message("disk", 1, at="8", offset="4", length="3")  # too many
    with pytest.raises(OutputFileError, match="outside the file"):
        await transfer
    assert list((location / "work").iterdir()) == []


async def test_what_the_root_disk_does_not_have_comes_in_another_way(
    guest_and_link: Pair, location: Path, disk: tuple[Disk, TransferDisk]
) -> None:
    """And nothing received before is left if the guest then sends nothing."""
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, location, disk[1]))
    await guest.next_frame()
    await guest.send(entry("file", size=6))
    await guest.send_message("disk", 1, at="2", offset="0", length="4")
    await guest.send_message("disk", 1, at="9", offset="4", length="2")
    assert [(await guest.next_frame()).headers["message"] for _ in range(2)] == ["taken", "again"]
    await guest.send_message("again", 1)
    await guest.send(data(1, b"new") + DONE)
    await transfer
    assert (location / "work/out").read_bytes() == b"\0new\0\0"


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
    guest_and_link: Pair, location: Path, disk: tuple[Disk, TransferDisk], headers: dict[str, str]
) -> None:
    guest, link = guest_and_link
    transfer = asyncio.ensure_future(fetch(link, location, disk[1]))
    await guest.next_frame()
    await guest.send(entry("file", size=1 << 30))
    await guest.send_message("disk", 1, **headers)
    assert isinstance(await link.failure, GuestProtocolError)
    transfer.cancel()
    await asyncio.gather(transfer, return_exceptions=True)
    assert list((location / "work").iterdir()) == []


async def test_an_output_replaces_a_link_and_not_what_it_leads_to(
    guest_and_link: Pair, location: Path
) -> None:
    guest, link = guest_and_link
    (location / "target").write_bytes(b"untouched")
    (location / "work/out").symlink_to("../target")
    transfer = asyncio.ensure_future(fetch(link, location))
    await guest.next_frame()
    await guest.send(entry("file", size=3) + data(0, b"new") + DONE + DONE)
    await transfer
    assert (location / "work/out").read_bytes() == b"new"
    assert not (location / "work/out").is_symlink()
    assert (location / "target").read_bytes() == b"untouched"


@pytest.mark.parametrize("former", ["link", "file", "directory"])
async def test_a_directory_replaces_anything_on_request(
    guest_and_link: Pair, location: Path, former: str
) -> None:
    guest, link = guest_and_link
    output, target = location / "work/out", location / "target"
    target.mkdir()
    (target / "untouched").touch()
    if former == "link":
        output.symlink_to("../target")
    elif former == "file":
        output.touch()
    else:
        output.mkdir()
        (output / "old").touch()
    transfer = asyncio.ensure_future(fetch(link, location, replaces=True))
    await guest.next_frame()
    await guest.send(entry("directory") + entry("directory", b"new") + DONE)
    await transfer
    assert list((location / "work").iterdir()) == [output]
    assert list(output.iterdir()) == [output / "new"]
    assert (target / "untouched").exists()


async def test_what_cannot_be_replaced_stays(
    guest_and_link: Pair, location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, link = guest_and_link
    (location / "work/out/old").mkdir(parents=True)
    rename = filetree.rename

    def fail(source: bytes, target: bytes, parent: int) -> None:
        if source.endswith(b".part") and not (location / "work/out").exists():
            raise OSError(errno.EIO, "broken")
        rename(source, target, parent)

    monkeypatch.setattr(filetree, "rename", fail)
    transfer = asyncio.ensure_future(fetch(link, location, replaces=True))
    await guest.next_frame()
    await guest.send(entry("directory") + DONE)
    with pytest.raises(OutputFileError, match="broken"):
        await transfer
    assert list((location / "work").iterdir()) == [location / "work/out"]
    assert (location / "work/out/old").exists()


# Files to the guest.


async def test_a_guest_that_is_full_while_all_slots_are_on_their_way(
    guest_and_link: Pair, location: Path
) -> None:
    guest, link = guest_and_link
    (location / "work/in").write_bytes(os.urandom(3 * SLOT))
    with (location / "transfer-disk").open("w+b") as file:
        file.truncate(2 * SLOT)  # one for the host
        transfer = asyncio.ensure_future(put(link, location, TransferDisk(file.fileno())))
        while (await guest.next_frame()).headers["message"] != "transfer-disk":
            pass
        await guest.send_message("failed", 1, b"No space left on device", reason="28")
        with pytest.raises(LimitError, match="the inputs do not fit"):
            await transfer
    assert not link.failure.done()


@pytest.mark.parametrize(
    ("word", "headers"), [("taken", {"bytes": "1"}), ("stdout", {}), ("failed", {})]
)
async def test_a_receiver_that_says_what_it_may_not(
    guest_and_link: Pair, location: Path, word: str, headers: dict[str, str]
) -> None:
    guest, link = guest_and_link
    (location / "work/in").write_bytes(b"x")
    transfer = asyncio.ensure_future(put(link, location, None))
    while (await guest.next_frame()).headers["message"] != "end":
        pass
    await guest.send_message(word, 1, **headers)
    assert isinstance(await link.failure, GuestProtocolError)
    transfer.cancel()
    await asyncio.gather(transfer, return_exceptions=True)


async def test_done_twice_is_nothing_to_fall_over(guest_and_link: Pair, location: Path) -> None:
    guest, link = guest_and_link
    (location / "work/in").write_bytes(b"x")
    transfer = asyncio.ensure_future(put(link, location, None))
    while (await guest.next_frame()).headers["message"] != "end":
        pass
    await guest.send(DONE + DONE)
    await transfer
    assert not link.failure.done()


async def put(link: GuestLink, location: Path, transfer_disk: TransferDisk | None) -> None:
    await put_tree(
        link, transfer_disk, Path("in"), PurePosixPath("in"), directory=location / "work"
    )
