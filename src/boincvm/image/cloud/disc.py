"""Write files as a disc: ISO 9660 (ECMA-119) with Joliet's names, all in the root directory.

sector (2048 bytes)   content
16, 17, 18            descriptors: of the disc, of the same with Joliet's names, the last one
19, 20                path tables, little-endian and big-endian, which name the root directory
21, 22                those of Joliet
23                    the root directory
24                    that of Joliet
25 ...                the files, each from a sector of its own
"""

import struct
from collections.abc import Mapping

SECTOR = 2048
_TABLES, _DIRECTORY, _FILES = 19, 23, 25
_TIME = bytes((124, 1, 1, 0, 0, 0, 0))
"""2024-01-01, in a record."""
_DATE = b"2024010100000000\0"
_NO_DATE = b"0" * 16 + b"\0"
_IS_DIRECTORY = 2
_ESCAPE = b"%/E"
_ROOT_TABLE_BYTES = 10


def disc_of(label: str, files: Mapping[str, bytes]) -> bytes:
    """Return a disc with the name `label` and `files` by their names, the same for the same.

    Names and label are ASCII, at most 64 and 16 characters. Raises ValueError for more than fit
    into one sector of a directory.
    """
    names = sorted(files)
    extents = {}
    end = _FILES
    for name in names:
        extents[name] = (end, len(files[name]))
        end += -(-len(files[name]) // SECTOR)
    plain = {_plain_name(name): extent for name, extent in extents.items()}
    if len(plain) < len(extents):
        raise ValueError("two names are the same on a disc without Joliet's names")
    joliet = {f"{name};1".encode("utf-16-be"): extent for name, extent in extents.items()}
    disc = bytearray(end * SECTOR)
    for number, (kind, table, root, records) in enumerate(
        ((1, _TABLES, _DIRECTORY, plain), (2, _TABLES + 2, _DIRECTORY + 1, joliet))
    ):
        _put(disc, 16 + number, _descriptor(kind, label, end, table, root))
        _put(disc, table, struct.pack("<BBIHxx", 1, 0, root, 1))
        _put(disc, table + 1, struct.pack(">BBIHxx", 1, 0, root, 1))
        _put(disc, root, _directory(root, records))
    _put(disc, 18, b"\xffCD001\1")
    for name, (sector, _) in extents.items():
        _put(disc, sector, files[name])
    return bytes(disc)


def _put(disc: bytearray, sector: int, content: bytes) -> None:
    disc[sector * SECTOR : sector * SECTOR + len(content)] = content


def _plain_name(name: str) -> bytes:
    """Return a name of at most 8 and 3 characters A-Z 0-9 _, as each system reads."""
    stem, _, suffix = name.upper().partition(".")
    stem, suffix = (
        "".join(letter if letter.isalnum() else "_" for letter in part) for part in (stem, suffix)
    )
    return f"{stem[:8]}.{suffix[:3]};1".encode("ascii")


def _both(value: int) -> bytes:
    """Return a number of 32 bits in both orders of bytes."""
    return struct.pack("<I", value) + struct.pack(">I", value)


def _both_short(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _record(name: bytes, sector: int, size: int, flags: int = 0) -> bytes:
    padding = bytes(1 - len(name) % 2)
    length = 33 + len(name) + len(padding)
    head = struct.pack("<BB", length, 0) + _both(sector) + _both(size) + _TIME
    return (
        head
        + struct.pack("<BBB", flags, 0, 0)
        + _both_short(1)
        + bytes([len(name)])
        + name
        + padding
    )


def _directory(sector: int, records: Mapping[bytes, tuple[int, int]]) -> bytes:
    own = [_record(name, sector, SECTOR, _IS_DIRECTORY) for name in (b"\0", b"\1")]
    content = b"".join([*own, *(_record(name, *records[name]) for name in sorted(records))])
    if len(content) > SECTOR:
        raise ValueError("too many files for a directory of one sector")
    return content


def _descriptor(kind: int, label: str, sectors: int, table: int, root: int) -> bytes:
    is_joliet = kind == 2

    def text(value: str, size: int) -> bytes:
        if is_joliet:
            return value.ljust(size // 2).encode("utf-16-be").ljust(size, b"\0")
        return value.encode("ascii").ljust(size)

    volume = struct.pack("<B5sBB", kind, b"CD001", 1, 0)
    volume += text("", 32) + text(label, 32) + bytes(8) + _both(sectors)
    volume += (_ESCAPE if is_joliet else b"").ljust(32, b"\0")
    volume += _both_short(1) + _both_short(1) + _both_short(SECTOR) + _both(_ROOT_TABLE_BYTES)
    volume += struct.pack("<II", table, 0) + struct.pack(">II", table + 1, 0)
    volume += _record(b"\0", root, SECTOR, _IS_DIRECTORY)
    volume += b"".join(text("", 128) for _ in range(4))
    volume += b"".join(text("", size) for size in (37, 37, 37))
    volume += _DATE * 2 + _NO_DATE * 2 + b"\1"
    return volume
