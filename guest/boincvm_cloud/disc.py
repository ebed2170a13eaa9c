"""Read the files in the root directory of a disc: ISO 9660, with Joliet's or Rock Ridge's names.

The guest's kernel has no driver for its file system. All that is read may be hostile.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SECTOR = 2048
_FIRST_DESCRIPTOR = 16
_MOST_DESCRIPTORS = 16
_LARGEST_DIRECTORY = 64 << 10
_PRIMARY, _SUPPLEMENTARY, _LAST = 1, 2, 255
_JOLIET = (b"%/@", b"%/C", b"%/E")
"""The escape sequences with which a descriptor says that its names are Joliet's."""
_HEADER = 33
"""Bytes of a directory's record before the name."""
_NOT_A_WHOLE_FILE = 0x02 | 0x04 | 0x80
"""Flags: a directory, an associated file, a part of a file."""
_CONTINUES = 0x01
"""Flag of a piece of a name, Rock Ridge's NM."""


class DiscError(ValueError):
    """The disc is damaged; the text says how."""


class Disc:
    """A disc with the descriptor `file`, which stays open."""

    def __init__(self, file: int) -> None:
        """Read what is in the root directory. Raises DiscError if it is none, OSError."""
        self._file = file
        primary = joliet = b""
        for number in range(_MOST_DESCRIPTORS):
            sector = self._read((_FIRST_DESCRIPTOR + number) * SECTOR, SECTOR)
            if sector[1:6] != b"CD001" or len(sector) < SECTOR:
                raise DiscError("it is no disc")
            if sector[0] == _LAST:
                break
            if sector[0] == _PRIMARY:
                primary = primary or sector
            elif sector[0] == _SUPPLEMENTARY and sector[88:91] in _JOLIET:
                joliet = joliet or sector
        if not primary:
            raise DiscError("it is no disc")
        self.label = primary[40:72].decode("latin-1").strip()
        """The name of the volume."""
        self._places = dict(self._files(joliet or primary, is_joliet=bool(joliet)))

    @property
    def names(self) -> list[str]:
        """The names of its files, sorted."""
        return sorted(self._places)

    def content(self, name: str, most: int) -> bytes | None:
        """Return a file's content, None if there is no such file.

        Raises DiscError if it has more than `most` bytes or is not on the disc, OSError.
        """
        if name not in self._places:
            return None
        sector, size = self._places[name]
        if size > most:
            raise DiscError(f"{name} has {size} bytes, more than {most}")
        content = self._read(sector * SECTOR, size)
        if len(content) < size:
            raise DiscError(f"{name} is not on the disc as a whole")
        return content

    def _read(self, at: int, size: int) -> bytes:
        """Read `size` bytes, or those up to the disc's end."""
        pieces = []
        while size:
            piece = os.pread(self._file, size, at)
            if not piece:
                break
            pieces.append(piece)
            at, size = at + len(piece), size - len(piece)
        return b"".join(pieces)

    def _files(
        self, descriptor: bytes, *, is_joliet: bool
    ) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield the files of the root directory: name, first sector, size."""
        sector, size = _extent(descriptor[156:190])
        if size > _LARGEST_DIRECTORY:
            raise DiscError("its directory is too large")
        directory = self._read(sector * SECTOR, size)
        at = 0
        while at < len(directory):
            length = directory[at]
            if not length:  # no record crosses the end of a sector
                at += SECTOR - at % SECTOR
                continue
            record = directory[at : at + length]
            at += length
            if len(record) < length or length < _HEADER + 1 or length < _HEADER + record[32]:
                raise DiscError("its directory is damaged")
            if not record[25] & _NOT_A_WHOLE_FILE:
                yield _name(record, is_joliet=is_joliet), _extent(record)


def _extent(record: bytes) -> tuple[int, int]:
    """Return the first sector and the size in bytes of what a record describes."""
    return struct.unpack_from("<I", record, 2)[0], struct.unpack_from("<I", record, 10)[0]


def _name(record: bytes, *, is_joliet: bool) -> str:
    end = _HEADER + record[32]
    identifier = record[_HEADER:end]
    if is_joliet:
        name = identifier.decode("utf-16-be", "replace")
    else:
        name = identifier.decode("latin-1").lower()
        own = _rock_ridge_name(record[end + (record[32] + 1) % 2 :])
        if own:
            return own
    return name.partition(";")[0].rstrip(".")


def _rock_ridge_name(area: bytes) -> str:
    """Return the name in a record's area for systems (SUSP, IEEE P1281), empty if there is none."""
    name = b""
    at = 0
    while at + 5 <= len(area) and area[at + 2] >= 4:
        entry = area[at : at + area[at + 2]]
        if entry[:2] == b"NM" and len(entry) > 4:
            name += entry[5:]
            if not entry[4] & _CONTINUES:
                break
        at += len(entry)
    return name.decode("utf-8", "replace")
