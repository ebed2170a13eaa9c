"""A streaming reader for untrusted tar archives: POSIX (ustar and pax), and GNU's long names.

A header takes no more memory than its limit, whatever it says; no more of a file is read at once
than is asked for, and nothing of the archive is kept. Where members go, and whether they may, is
the caller's decision (host/filetree.py). Formats: POSIX.1-2017, pax, "ustar Interchange Format" and
"pax Extended Header"; GNU tar's manual, "Basic Tar Format".
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from boincvm.tree_entries import clamp_time

BLOCK = 512
LONGEST_HEADER = 1 << 17
"""Maximum bytes of a pax header or a long name."""
_MOST_EXTENSIONS = 16
"""Maximum number of extension headers before a member."""
_LARGEST = 1 << 62
_CHUNK = 1 << 18
_KINDS = {
    b"\0": "file", b"0": "file", b"7": "file", b"1": "hard link", b"2": "link",
    b"3": "device", b"4": "device", b"5": "directory", b"6": "pipe",
}  # fmt: skip
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,30})(?:\.([0-9]{1,30}))?")


class TarError(ValueError):
    """The stream is not a tar archive, is damaged, or has something in it that is refused."""


class Readable(Protocol):
    """A source of bytes."""

    def read(self, size: int = -1, /) -> bytes: ...


class Member(NamedTuple):
    """One entry of an archive."""

    name: bytes
    """As in the archive: it may be absolute, have `..` or occur twice, but has no NUL."""
    kind: str
    """One of "file", "directory", "link", "hard link", "device" and "pipe"."""
    size: int
    """Bytes of a file; 0 for others."""
    mode: int
    """Permission bits, with set-user-ID, set-group-ID and sticky."""
    user: int
    group: int
    target: bytes
    """Of a link."""
    mtime: int
    """Modification time in nanoseconds since 1970, clamped to what can be set."""


class TarReader:
    """Reads the archive in `stream`, which need not be seekable.

    `for member in reader` yields the members, and `read` gives the content of the last one.
    Everything raises TarError, and what reading `stream` raises.
    """

    def __init__(self, stream: Readable, *, most_members: int = 1_000_000) -> None:
        """Prepare to read; an archive with more than `most_members` is refused."""
        self._stream = stream
        self._members_left = most_members
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        while (member := self.next()) is not None:
            yield member

    def next(self) -> Member | None:
        """Return the next member, or None at the archive's end."""
        while self._left:
            self.read(_CHUNK)
        self._exactly(self._padding)
        self._padding = 0
        member = self._member()
        if member is None:
            return None
        self._members_left -= 1
        if self._members_left < 0:
            raise TarError("the archive has too many members")
        self._left, self._padding = member.size, -member.size % BLOCK
        return member

    def read(self, size: int = -1, /) -> bytes:
        """Read `size` bytes of the current member, or all that is left if `size` is negative.

        Returns fewer only at the member's end.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._exactly(wanted)
        self._left -= wanted
        return data

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._stream.read(min(size, _CHUNK))
            if not piece:
                raise TarError("the archive ends early")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _member(self) -> Member | None:
        pax: dict[bytes, bytes] = {}
        for _ in range(_MOST_EXTENSIONS):
            block = self._exactly(BLOCK)
            if not any(block):
                if pax:
                    raise TarError("the archive ends after a header")
                return None
            _check_sum(block)
            kind, size = block[156:157], _number(block[124:136])
            if kind in b"xXgLK" and kind:
                self._extend(pax, kind, self._extension(size))
            else:
                return _described(block, kind, size, pax)
        raise TarError("a member has too many headers")

    def _extension(self, size: int) -> bytes:
        if size > LONGEST_HEADER:
            raise TarError("a header is too long")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        return data

    @staticmethod
    def _extend(pax: dict[bytes, bytes], kind: bytes, data: bytes) -> None:
        if kind == b"L":
            pax[b"path"] = data.partition(b"\0")[0]
        elif kind == b"K":
            pax[b"linkpath"] = data.partition(b"\0")[0]
        else:
            records = _records(data)
            if kind == b"g" and not records.keys().isdisjoint((b"path", b"linkpath", b"size")):
                raise TarError("a header applies to all files")
            if any(key.startswith(b"GNU.sparse.") for key in records):
                raise TarError("a file is sparse")
            if kind != b"g":
                pax |= records


def _check_sum(block: bytes) -> None:
    found = _OCTAL.fullmatch(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    signed = unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
    if found is None or int(found[1] or b"0", 8) not in (unsigned, signed):
        raise TarError("it is not a tar archive, or is damaged")


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # GNU's format for larger numbers
        value = int.from_bytes(field[1:], "big")
    else:
        found = _OCTAL.fullmatch(field)
        if found is None:
            raise TarError("a header has an invalid number")
        value = int(found[1] or b"0", 8)
    if value > _LARGEST:
        raise TarError("a header has an invalid number")
    return value


def _records(data: bytes) -> dict[bytes, bytes]:
    """Parse the records of a pax header, each `LENGTH KEY=VALUE` and a newline."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = data[at:space] if space > at else b""
        end = at + int(length) if _DECIMAL.fullmatch(length) else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not (key and equals):
            raise TarError("a header is invalid")
        records[key] = value
        at = end
    return records


def _described(block: bytes, letter: bytes, size: int, pax: dict[bytes, bytes]) -> Member:
    name, target = block[:100].partition(b"\0")[0], block[157:257].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    name = pax.get(b"path", prefix + b"/" + name if prefix else name)
    target = pax.get(b"linkpath", target)
    kind = _KINDS.get(letter)
    if kind is None:
        raise TarError("a member is of an unknown kind, or a sparse file")
    if letter == b"\0" and name.endswith(b"/"):
        kind = "directory"
    if b"size" in pax:
        if not _DECIMAL.fullmatch(pax[b"size"]) or int(pax[b"size"]) > _LARGEST:
            raise TarError("a header has an invalid size")
        size = int(pax[b"size"])
    if size and kind != "file":
        raise TarError("an entry that is not a file has a size")
    if b"\0" in name or b"\0" in target:
        raise TarError("a name has a NUL in it")
    numbers = [_number(block[at : at + 8]) for at in (100, 108, 116)]
    mode, user, group = numbers
    if b"uid" in pax or b"gid" in pax:  # which are too large for the block
        user, group = _owner(pax.get(b"uid"), user), _owner(pax.get(b"gid"), group)
    mtime = clamp_time(
        _time(pax[b"mtime"]) if b"mtime" in pax else _seconds(block[136:148]) * 10**9
    )
    return Member(name, kind, size, mode & 0o7777, user, group, target, mtime)


def _owner(text: bytes | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not _DECIMAL.fullmatch(text) or int(text) > _LARGEST:
        raise TarError("a header has an invalid owner")
    return int(text)


def _seconds(field: bytes) -> int:
    """Parse seconds since 1970; GNU's number format allows negative ones."""
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _number(field)


def _time(text: bytes) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise TarError("a header has an invalid time")
    value = int(found[2]) * 10**9 + int((found[3] or b"0")[:9].ljust(9, b"0"))
    return -value if found[1] else value


def pax_time(modified: int) -> str:
    """Format nanoseconds since 1970 as the header `mtime`; a float is not precise enough."""
    seconds, rest = divmod(abs(modified), 10**9)
    return f"{'-' if modified < 0 else ''}{seconds}.{rest:09}"
