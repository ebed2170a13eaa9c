"""A directory of this host as a guest's file root: files are complete or missing, and nothing leads
out."""

import asyncio
import errno
import os
import stat
from pathlib import Path, PurePosixPath
from threading import Event

import pytest

from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    InputFileError,
    OutputFileError,
    UsageError,
)
from boincvm.node.host_directory import HostDirectory


class Room:
    """A guest's directory, a spool, and something outside both."""

    def __init__(self, top: Path) -> None:
        self.root, self.spool, self.outside = top / "root", top / "spool", top / "outside"
        for directory in (self.root, self.spool, self.outside):
            directory.mkdir()
        (self.outside / "secret").write_text("secret")
        self.location = HostDirectory(self.root)
        self.location.check(PurePosixPath("file"))

    def source(self, text: str = "text", name: str = "source") -> Path:
        (self.spool / name).write_text(text)
        return self.spool / name

    def tree(self) -> Path:
        top = self.spool / "tree"
        (top / "a").mkdir(parents=True)
        (top / "a/file").write_text("deep")
        (top / "a/link").symlink_to("file")
        (top / "a").chmod(0o500)
        return top

    async def put(self, source: Path, name: str, mode: int = 0o644) -> None:
        await self.location.put(source, PurePosixPath(name), mode)

    async def get(self, name: str) -> Path:
        await self.location.get(PurePosixPath(name), self.spool / "got")
        return self.spool / "got"

    def names(self) -> list[str]:
        return sorted(str(one.relative_to(self.root)) for one in self.root.rglob("*"))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


async def test_nothing_outside_is_reached(room: Room) -> None:
    outside = str(room.outside / "secret")
    with pytest.raises(UsageError, match="outside the directory of this guest"):
        room.location.check(PurePosixPath(outside))
    with pytest.raises(UsageError, match="outside the directory"):
        await room.get(outside)
    with pytest.raises(UsageError, match="outside the directory"):
        await room.put(room.source(), outside)
    assert (room.outside / "secret").read_text() == "secret"


async def test_a_file_there_and_back(room: Room) -> None:
    await room.put(room.source("a" * 3_000_000), "new/sub/file", 0o751)
    assert room.names() == ["new", "new/sub", "new/sub/file"]
    assert (room.root / "new/sub/file").stat().st_mode & 0o7777 == 0o751
    got = await room.get("new/sub/file")
    assert got.read_text() == "a" * 3_000_000
    assert got.stat().st_mode & 0o7777 == 0o751


async def test_a_file_is_replaced(room: Room) -> None:
    (room.root / "file").write_text("former")
    (room.root / "link").symlink_to(room.outside / "secret")
    for name in ("file", "link"):
        await room.put(room.source("later"), name, 0o200)
        status = (room.root / name).lstat()
        assert (stat.S_ISREG(status.st_mode), status.st_size) == (True, len("later"))
        assert stat.S_IMODE(status.st_mode) == 0o200
    assert (room.outside / "secret").read_text() == "secret"
    assert room.names() == ["file", "link"]


async def test_a_sparse_file_stays_one(room: Room) -> None:
    with room.source().open("wb") as file:
        file.truncate(1 << 34)
        file.seek(1 << 33)
        file.write(b"here")
    await room.put(room.spool / "source", "file")
    status = (room.root / "file").stat()
    assert status.st_size == 1 << 34
    assert status.st_blocks < 1 << 12


async def test_a_tree_there_and_back(room: Room) -> None:
    await room.put(room.tree(), "tree")
    assert room.names() == ["tree", "tree/a", "tree/a/file", "tree/a/link"]
    assert (room.root / "tree/a").stat().st_mode & 0o7777 == 0o500
    got = await room.get(".")
    assert (got / "tree/a/link").readlink() == Path("file")
    assert (got / "tree/a/file").read_text() == "deep"


async def test_what_is_in_the_way(room: Room) -> None:
    (room.root / "full/x").mkdir(parents=True)
    (room.root / "file").touch()
    before = room.names()
    for source, name in ((room.source(), "full"), (room.tree(), "full"), (room.spool, "file/x")):
        with pytest.raises(InputFileError, match=r"(file|full)\S* in the guest: "):
            await room.put(source, name)
        assert room.names() == before


@pytest.mark.parametrize("name", ["out/secret", "out", "away", "pipe", "tree", "nosuch", "file/x"])
async def test_what_is_not_given(room: Room, name: str) -> None:
    (room.root / "out").symlink_to(room.outside)
    (room.root / "away").symlink_to("out/secret")
    (room.root / "file").touch()
    (room.root / "tree").mkdir()
    (room.root / "tree/link").symlink_to("../../outside/secret")
    os.mkfifo(room.root / "pipe")
    with pytest.raises(OutputFileError, match="in the guest: "):
        await room.get(name)


@pytest.mark.parametrize("name", ["out/new", "out/sub/new", "tree/out/new"])
async def test_nothing_is_put_where_a_link_leads(room: Room, name: str) -> None:
    (room.root / "out").symlink_to(room.outside)
    (room.root / "tree").mkdir()
    (room.root / "tree/out").symlink_to("../out")
    with pytest.raises(InputFileError, match="links are not followed"):
        await room.put(room.source(), name)
    assert [one.name for one in room.outside.iterdir()] == ["secret"]


async def test_its_disk_is_full(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(HostDiskFullError, match="the disk of the guest is full"):
        await room.put(room.tree(), "tree")
    assert room.names() == []


async def test_the_directory_has_gone(room: Room) -> None:
    room.root.rmdir()
    with pytest.raises(BoincvmError, match="No such file"):
        await room.put(room.source(), "file")
    with pytest.raises(BoincvmError, match="No such file"):
        await room.get("file")


async def test_one_that_is_given_up_writes_no_more(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, pwrite = Event(), Event(), os.pwrite

    def slow(*given: object) -> int:
        begun.set()
        assert go.wait(20)
        return pwrite(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pwrite", slow)
    work = asyncio.ensure_future(room.put(room.source("a" * 5_000_000), "file"))
    assert await asyncio.to_thread(begun.wait, 20)
    work.cancel()
    asyncio.get_running_loop().call_later(0.05, go.set)
    with pytest.raises(asyncio.CancelledError):
        await work
    assert room.names() == []
