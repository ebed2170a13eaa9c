"""Foreign tar archives: what `tarfile` and GNU tar write is read, everything else is refused, and
no header exhausts memory."""

import gzip
import io
import itertools
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.tar_reader import LONGEST_HEADER, Member, TarError, TarReader

MIB = 1 << 20
TIME = 1_700_000_000


def info(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mtime = kind, TIME
    for key, value in more.items():
        setattr(made, key, value)
    return made


def header(name: str, kind: bytes, size: int = 0) -> bytes:
    """Return one block in GNU's format, which has room for any size."""
    return info(name, kind, size=size).tobuf(tarfile.GNU_FORMAT)[:512]


def patched(block: bytes, at: int, data: bytes) -> bytes:
    """Return that header with other bytes, and a right checksum."""
    new = bytearray(block)
    new[at : at + len(data)] = data
    new[148:156] = b" " * 8
    new[148:156] = b"%06o\0 " % sum(new)
    return bytes(new)


def read(data: bytes, most_members: int = 100) -> list[tuple[Member, bytes]]:
    reader = TarReader(io.BytesIO(data), most_members=most_members)
    return [(member, reader.read()) for member in reader]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes(form: int) -> None:
    out = io.BytesIO()
    long = "directory/" * (1 if form == tarfile.USTAR_FORMAT else 30) + "file"
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        archive.addfile(info("d", tarfile.DIRTYPE, mode=0o755))
        archive.addfile(info(long, size=5, mode=0o4640, uid=7, gid=8), io.BytesIO(b"12345"))
        archive.addfile(info("link", tarfile.SYMTYPE, linkname=long))
        archive.addfile(info("hard", tarfile.LNKTYPE, linkname="d"))
        archive.addfile(info("ü\udc80", size=513), io.BytesIO(bytes(513)))
        archive.addfile(info("null", tarfile.CHRTYPE))
        archive.addfile(info("pipe", tarfile.FIFOTYPE))
    name = long.encode()
    now = TIME * 10**9
    found = read(out.getvalue())
    assert [member for member, _ in found] == [
        Member(b"d/", "directory", 0, 0o755, 0, 0, b"", now),
        Member(name, "file", 5, 0o4640, 7, 8, b"", now),
        Member(b"link", "link", 0, 0o644, 0, 0, name, now),
        Member(b"hard", "hard link", 0, 0o644, 0, 0, b"d", now),
        Member("ü\udc80".encode(errors="surrogateescape"), "file", 513, 0o644, 0, 0, b"", now),
        Member(b"null", "device", 0, 0o644, 0, 0, b"", now),
        Member(b"pipe", "pipe", 0, 0o644, 0, 0, b"", now),
    ]
    assert [data for _, data in found if data] == [b"12345", bytes(513)]


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
def test_what_gnu_tar_writes(tmp_path: Path, form: str) -> None:
    (tmp_path / "tree" / "d").mkdir(parents=True)
    (tmp_path / "tree" / "d" / "file").write_bytes(b"x" * 700)
    (tmp_path / "tree" / "link").symlink_to("d/file")
    command = ["tar", "-C", str(tmp_path), f"--format={form}", "-cf", "-", "tree"]
    data = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    found = {member.name.rstrip(b"/"): (member.kind, content) for member, content in read(data)}
    assert found == {
        b"tree": ("directory", b""),
        b"tree/d": ("directory", b""),
        b"tree/d/file": ("file", b"x" * 700),
        b"tree/link": ("link", b""),
    }


def test_times_between_seconds() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for text in ("1.5", "-1.25", "1700000000.123456789999"):
            archive.addfile(info("f", pax_headers={"mtime": text}))
    times = [member.mtime for member, _ in read(out.getvalue())]
    assert times == [1_500_000_000, -1_250_000_000, TIME * 10**9 + 123456789]


def record(key: bytes, value: bytes) -> bytes:
    """Return a record of a pax header, with its own length first."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    data = b"".join(records)
    return header("h", kind, len(data)) + data + bytes(-len(data) % 512)


FILE, END = header("a", b"0"), bytes(1024)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 512,
        FILE,
        FILE[:300],
        FILE + bytes(100),
        header("a", b"0", 600) + bytes(600),
        header("a", b"0", 1 << 50) + END,
        patched(FILE, 124, b"\xff" * 12) + END,
        patched(FILE, 124, b"\x80" + b"\x7f" * 11) + END,
        patched(FILE, 124, b"-0000000001\0") + END,
        patched(FILE, 124, b"0x000000001\0") + END,
        patched(FILE, 124, b"1_0000000000") + END,
        patched(FILE, 100, b"8888888\0") + END,
        FILE[:1] + b"b" + FILE[2:] + END,
        header("a", b"S", 512) + bytes(512) + END,
        header("a", b"D", 512) + bytes(512) + END,
        header("a", b"Z") + END,
        header("a", b"2", 512) + bytes(512) + END,
        header("a", b"5", 512) + bytes(512) + END,
        header("a", b"L", LONGEST_HEADER + 1) + bytes(LONGEST_HEADER + 512) + FILE + END,
        header("a", b"L", 1 << 40) + END,
        pax(record(b"path", b"abcd")) + END,
        pax(b"13 path=abcd\n") + END,
        pax(b"12 path=abcd ") + FILE + END,
        pax(b"99 path=abcd\n") + FILE + END,
        pax(b"0 =\n") + FILE + END,
        pax(b"5 a=\n", b"-5 a=\n") + FILE + END,
        pax(b"99999999999999999999 a=\n") + FILE + END,
        pax(record(b"path", b"a\0bcd")) + FILE + END,
        pax(record(b"linkpath", b"a\0bc")) + FILE + END,
        pax(record(b"size", b"-1")) + FILE + END,
        pax(record(b"size", b"1e10")) + FILE + END,
        pax(record(b"size", b"9" * 19)) + FILE + END,
        pax(record(b"mtime", b"nan")) + FILE + END,
        pax(record(b"GNU.sparse.major", b"1")) + FILE + END,
        pax(record(b"GNU.sparse.name", b"b")) + FILE + END,
        pax(record(b"path", b"etc"), kind=b"g") + FILE + END,
        pax(b"5 a=\n") * 17 + FILE + END,
    ],
    ids=itertools.count(),
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(TarError):
        read(data)


def test_there_is_an_end_to_members() -> None:
    assert len(read(FILE * 3 + END, 3)) == 3
    with pytest.raises(TarError, match="too many members"):
        read(FILE * 4 + END, 3)


def test_a_member_is_read_in_pieces_or_passed_over() -> None:
    data = header("a", b"0", 600) + b"a" * 600 + bytes(424) + header("b", b"0", 3) + b"bcd" + END
    reader = TarReader(io.BytesIO(data + bytes(512)))
    reader.next()
    assert (reader.read(5), reader.read(0), reader.read(1)) == (b"aaaaa", b"", b"a")
    second = reader.next()
    assert second is not None
    assert (second.name, reader.read(), reader.read()) == (b"b", b"bcd", b"")


GOOD = (
    pax(record(b"path", b"d"), record(b"mtime", b"1.5"))
    + header("d", b"5")
    + header("d/a", b"0", 3)
    + b"abc"
    + bytes(509)
    + header("long", b"L", 200)
    + b"n" * 200
    + bytes(312)
    + header("cut", b"2")
    + END
)


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6))
def test_whatever_bytes_are_changed_it_is_an_archive_or_refused(
    changes: list[tuple[int, int]],
) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    try:
        found = read(bytes(data))
    except TarError:
        return
    assert sum(len(content) for _, content in found) <= len(GOOD)


# Memory.

_MEASURE = """
import re, sys, threading
from pathlib import Path
def peak():
    # Not getrusage: Linux counts what the process was before it became this program.
    line = re.search(r"^VmHWM:\\s+([0-9]+) kB$", Path("/proc/self/status").read_text(), re.M)
    return int(line[1]) >> 10
source, kind, target = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
if kind == "tree":
    from boincvm.tar_trees import unpack as work
    arguments = (source, target.parent, target.name, threading.Event())
elif kind == "snapshot":
    from boincvm.wrapper.snapshot.importer import import_snapshot as work
    arguments = (source, target)
else:
    from boincvm.image.pack import unpack_image as work
    from boincvm.image.store import ImageStore
    arguments = (source, "base", ImageStore(target))
before = peak()
try:
    work(*arguments)
    what = "taken"
except Exception as error:
    what = type(error).__name__
print(what, peak() - before)
"""


def zeros(size: int) -> Iterator[bytes]:
    """Return many MiB of zeros, compressed; a gzip file consists of consecutive members."""
    piece = gzip.compress(bytes(MIB), 9)
    yield from itertools.repeat(piece, size // MIB)


def bombs() -> Iterator[tuple[str, list[bytes]]]:
    """Yield heads of archives; a GiB of zeros follows each."""
    for kind in (b"x", b"g", b"L", b"K"):
        yield f"header {kind.decode()}", [header("h", kind, 1 << 30)]
    records = b"".join(record(b"k%d" % at, b"v") for at in range(9000))
    yield "many records", [pax(records)] * 300
    yield "many members", [header(f"m{at}", b"0") for at in range(3_000)]
    yield "a large table", [header("snapshot.json", b"0", 1 << 30)]
    nested = b"[" * 900_000
    table = header("snapshot.json", b"0", len(nested)) + nested + bytes(-len(nested) % 512)
    yield "a deep table", [table]
    lists = b"[" + b"[]," * 300_000 + b"[]]"
    table = header("snapshot.json", b"0", len(lists)) + lists + bytes(-len(lists) % 512)
    yield "a wide table", [table]
    yield "a large manifest", [header("manifest.json", b"0", 1 << 30)]


@pytest.mark.parametrize(
    ("kind", "name", "head"),
    [
        (kind, name, head)
        for kind in ("snapshot", "tree", "image")
        for name, head in bombs()
        if kind != "tree" or not name.startswith("a ")  # there these are files like others
    ],
)
def test_no_archive_takes_memory(tmp_path: Path, kind: str, name: str, head: list[bytes]) -> None:
    source = tmp_path / "archive"
    with source.open("wb") as file:
        if kind == "tree":  # that is never compressed
            file.write(b"".join(head))
            file.truncate(file.tell() + (1 << 30))
        else:
            file.write(gzip.compress(b"".join(head), 1))
            file.writelines(zeros(1 << 30))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(source), kind, str(tmp_path / "target")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    what, more = done.stdout.split()
    refusals = ("InputFileError", "UnsafePathError", "ImageDamagedError", "HostDiskFullError")
    assert what in refusals or (kind == "tree" and name == "many members")  # that is no fault
    assert int(more) < 48, f"{name}: {more} MiB"
