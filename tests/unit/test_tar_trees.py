"""Foreign tar streams: nothing in them gets outside the tree, or exceeds its limits."""

import gzip
import io
import itertools
import os
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm import tar_trees
from boincvm.tar_trees import pack, unpack
from boincvm.tree_entries import UnsafePathError
from support.hostile.contained import check_contained

pytestmark = pytest.mark.timeout(60)


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **more: object
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info


def stream(*members: tarfile.TarInfo, data: bytes = b"") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info in members:
            if info.isreg() and not info.size:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def take(directory: Path, data: bytes) -> Path:
    """Return the tree that it makes, beside a bystander."""
    location = directory / "inside"
    location.mkdir()
    (directory / "bystander").write_bytes(b"untouched")
    (directory / "stream").write_bytes(data)
    unpack(directory / "stream", location, "tree", threading.Event())
    return location / "tree"


DIRECTORY, LINK = tarfile.DIRTYPE, tarfile.SYMTYPE


@pytest.mark.parametrize(
    "data",
    [
        stream(member("/nowhere/passwd")),
        stream(member("../bystander")),
        stream(member("a/../../bystander")),
        stream(member("a", LINK, "../../bystander")),
        stream(member("a", LINK, "/nowhere/passwd")),
        stream(member("a", LINK, ".."), member("a/b")),
        stream(member("a", DIRECTORY), member("a", LINK, "..")),
        stream(member("a"), member("a")),
        stream(member("a"), member("a/b")),
        stream(member("b"), member("a", tarfile.LNKTYPE, "b")),
        stream(member("a", tarfile.LNKTYPE, "/nowhere/passwd")),
        stream(member("a", tarfile.CHRTYPE, devmajor=1, devminor=3)),
        stream(member("a", tarfile.BLKTYPE)),
        stream(member("a", tarfile.FIFOTYPE)),
        stream(member("a"), data=bytes(2000))[:1500],
        stream(member("a"))[:512],
        stream(member("a"))[:300],
        stream(member("x" * 300)),
        stream(member("a", pax_headers={"comment": "x" * (1 << 18)})),
        stream(member("a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})),
        gzip.compress(stream(member("a")), mtime=0),
        b"no tar at all" * 100,
        b"",
    ],
    ids=itertools.count(),
)
def test_what_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UnsafePathError):
        take(tmp_path, data)
    assert (tmp_path / "bystander").read_bytes() == b"untouched"
    assert sorted(os.listdir(tmp_path)) == ["bystander", "inside", "stream"]


def test_special_bits_are_not_taken(tmp_path: Path) -> None:
    tree = take(tmp_path, stream(member("a", mode=0o6755), member("d", DIRECTORY, mode=0o7777)))
    assert (tree / "a").stat().st_mode & 0o7777 == 0o755
    assert (tree / "d").stat().st_mode & 0o7000 == 0


def test_a_link_within_is_one(tmp_path: Path) -> None:
    tree = take(tmp_path, stream(member("d/a", LINK, "../b"), member("b"), data=b"x"))
    assert (tree / "d/a").read_bytes() == b"x"


def test_too_many_and_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_trees, "MOST_ENTRIES", 3)
    monkeypatch.setattr(tar_trees, "MOST_BYTES", 1000)
    for number, data in enumerate(
        (stream(*(member(f"f{at}") for at in range(4))), stream(member("a"), data=bytes(1001)))
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        with pytest.raises(UnsafePathError):
            take(directory, data)


def test_it_stops_when_it_is_not_wanted_any_more(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(stream(member("a")))
    stop = threading.Event()
    stop.set()
    with pytest.raises(UnsafePathError, match="no longer wanted"):
        unpack(tmp_path / "stream", tmp_path, "tree", stop)
    (tmp_path / "there").mkdir()
    with pytest.raises(UnsafePathError, match="no longer wanted"):
        pack(tmp_path, "there", tmp_path / "packed", stop)


GOOD = stream(
    member("d", DIRECTORY), member("d/a"), member("d/link", LINK, "a"), member("ü" * 120), data=b"x"
)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8))
@settings(max_examples=150, deadline=None)
def test_whatever_bytes_are_changed_nothing_gets_outside(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("tar")
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    try:
        take(directory, bytes(data))
    except UnsafePathError:
        pass
    assert sorted(os.listdir(directory)) == ["bystander", "inside", "stream"]
    check_contained(directory)


NEVER_ROUND = 1_234_567_890_123_456_789


@pytest.mark.parametrize("modified", [NEVER_ROUND, -NEVER_ROUND, -1, 0, 5 * 10**9])
def test_times_to_the_nanosecond(tmp_path: Path, modified: int) -> None:
    tree = tmp_path / "a" / "sub"
    tree.mkdir(parents=True)
    (tree / "file").write_bytes(b"x")
    (tree / "link").symlink_to("file")
    names = ("sub/link", "sub/file", "sub", ".")
    for name in names:
        os.utime(tmp_path / "a" / name, ns=(0, modified), follow_symlinks=False)
    wanted = {name: (tmp_path / "a" / name).lstat().st_mtime_ns for name in names}
    pack(tmp_path, "a", tmp_path / "tar", threading.Event())
    unpack(tmp_path / "tar", tmp_path, "b", threading.Event())
    assert {name: (tmp_path / "b" / name).lstat().st_mtime_ns for name in names} == wanted
    with tarfile.open(tmp_path / "tar") as tar:  # others read it, too
        assert abs(tar.getmember("sub/file").mtime - wanted["sub/file"] / 1e9) < 1e-3


@pytest.mark.parametrize("text", ["9" * 30, "-" + "9" * 30, "1." + "9" * 30])
def test_a_time_that_no_disk_has(tmp_path: Path, text: str) -> None:
    data = stream(member("a", pax_headers={"mtime": text}), data=b"x")
    assert (take(tmp_path, data) / "a").read_bytes() == b"x"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "x", "--1"])
def test_a_time_that_is_none(tmp_path: Path, text: str) -> None:
    data = stream(member("a", pax_headers={"mtime": text}), data=b"x")
    with pytest.raises(UnsafePathError):
        take(tmp_path, data)


@pytest.mark.parametrize("seconds", [0, 1_234_567_890, -1_234_567_890, 1 << 62, -(1 << 62)])
def test_a_time_in_the_head_itself(tmp_path: Path, seconds: int) -> None:
    """GNU tar uses base 256 if octal has no room."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(member("a", mtime=seconds))
    found = (take(tmp_path, out.getvalue()) / "a").stat().st_mtime
    if abs(seconds) < 1 << 32:
        assert found == seconds
