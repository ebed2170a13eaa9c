"""A folder packed as a cabinet, which each Windows unpacks by itself (cabinet.dll, `expand`).

The content of all files, one after the other, is divided into blocks of 32 KiB. Each is a deflate
stream of its own whose history is the block before it (MSZIP). ([MS-CAB], [MS-MCI].)
"""

import struct
import zlib
from collections.abc import Iterator
from functools import reduce
from operator import xor
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct("<4sIIIIIBBHHHHH")
_FOLDER = struct.Struct("<IHH")
_FILE = struct.Struct("<IIHHHH")
_SIZES = struct.Struct("<HH")
"""Of a block, after its checksum."""
_CHECKSUM = struct.Struct("<I")
_BLOCK_HEADER = _CHECKSUM.size + _SIZES.size
_BLOCK_SIZE = 32768
_SIGNATURE = b"MSCF"
_VERSION = (3, 1)
"""Minor and major."""
_MSZIP = 1
_MARK = b"CK"
"""What each block of MSZIP begins with."""
_FIRST_DAY = 0x21
"""1980-01-01, the first that the format knows, at midnight: the time of each file."""
_ARCHIVE = 0x20
"""The attribute of an ordinary file."""


class _Block(NamedTuple):
    packed: bytes
    size: int


def pack_cabinet(folder: Path, name: str, archive: Path, level: int = 9) -> None:
    """Pack `folder` under `name`, without times, equally for equal folders."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    content = bytearray()
    entries = bytearray()
    for path in paths:
        own_name = "\\".join((name, *path.relative_to(folder).parts))
        data = path.read_bytes()
        entries += _FILE.pack(len(data), len(content), 0, _FIRST_DAY, 0, _ARCHIVE)
        entries += own_name.encode("ascii") + b"\0"
        content += data
    blocks = list(_compressed(content, level))
    first_file = _HEADER.size + _FOLDER.size
    first_block = first_file + len(entries)
    size = first_block + sum(_BLOCK_HEADER + len(block.packed) for block in blocks)
    with archive.open("xb") as file:
        start = (_SIGNATURE, 0, size, 0, first_file, 0, *_VERSION)
        file.write(_HEADER.pack(*start, 1, len(paths), 0, 0, 0))
        file.write(_FOLDER.pack(first_block, len(blocks), _MSZIP))
        file.write(entries)
        for packed, unpacked_size in blocks:
            sizes = _SIZES.pack(len(packed), unpacked_size)
            checksum = _CHECKSUM.pack(_checksum(packed) ^ _checksum(sizes))
            file.write(checksum + sizes + packed)


def _compressed(content: bytes | bytearray, level: int) -> Iterator[_Block]:
    history = b""
    for begin in range(0, len(content), _BLOCK_SIZE):
        block = bytes(content[begin : begin + _BLOCK_SIZE])
        deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 9, zdict=history)
        yield _Block(_MARK + deflate.compress(block) + deflate.flush(), len(block))
        history = block


def _checksum(data: bytes) -> int:
    """Return the exclusive or of all words of 32 bits; the last bytes are a word, backwards."""
    whole = len(data) // 4 * 4
    words = struct.unpack(f"<{whole // 4}I", data[:whole])
    return reduce(xor, words, int.from_bytes(data[whole:], "big"))
