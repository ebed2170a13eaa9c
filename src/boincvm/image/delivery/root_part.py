"""A root disk of which a part is here: a file with holes, into which blocks are read.

Which blocks are here is written down nowhere: a block is here if the file has at its place what its
digest says. So neither a crash nor two processes that read into one file can do any harm, and what
the disk has lost is read again.

    objects/DIGEST/on-demand     where the blocks are: a line of JSON, and the columns of RootBlocks
    objects/DIGEST/root.part     the disk, with holes; removing it only costs another download. It
                                 is locked, shared, by those who have it open, and only emptied
                                 by who locks it alone
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from boincvm.errors import ImageDamagedError
from boincvm.host import locks
from boincvm.host.files import create_new, open_descriptor, read_at, write_at
from boincvm.host.own_files import open_own
from boincvm.image.delivery.blocks import (
    LONGEST_GAP,
    LONGEST_RANGE,
    MOST_IMAGE_BYTES,
    expanded,
)
from boincvm.image.delivery.index import blocks_name
from boincvm.image.delivery.patch import BLOCK, numbered
from boincvm.image.delivery.server import Server, check_url
from boincvm.image.delivery.start_file import (
    RootBlocks,
    block_digest,
    columns_size,
    decode_root_blocks,
)
from boincvm.image.filenames import ON_DEMAND, ROOT_PART
from boincvm.image.pack_format import finish_file
from boincvm.json_value import text, whole

_HEAD_BLOCKS = 16
"""Those of the first cluster."""
_MOST_LINE = 4096
_MOST_BYTES = _MOST_LINE + columns_size(MOST_IMAGE_BYTES)


class _Range(NamedTuple):
    """A part of the file of blocks."""

    begin: int
    end: int
    numbers: list[int]
    """The blocks that are in it."""


class RootPart:
    """The part of the root disk of the image in `directory`. Threads may share it."""

    def __init__(self, directory: Path, digest: str) -> None:
        """Open it; `digest` is the image's. Raises ImageDamagedError, OSError."""
        self.url, self.blocks = _read(directory / ON_DEMAND)
        self._blocks_name = blocks_name(digest)
        self._offsets = self.blocks.offsets()
        self._known = bytearray(self.blocks.count)
        self._file = open_descriptor(
            directory / ROOT_PART, "c+", follow_links=False, permissions=0o600
        )
        locks.lock(self._file, shared=True)
        os.ftruncate(self._file, self.blocks.size)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has(self, number: int) -> bool:
        """Tell whether block `number` is here. Raises OSError."""
        if not self._known[number]:
            self._known[number] = self.blocks.is_block(number, self._content(number))
        return bool(self._known[number])

    def _content(self, number: int) -> bytes:
        return read_at(self._file, self._length(number), number * BLOCK)

    def _length(self, number: int) -> int:
        return min(BLOCK, self.blocks.size - number * BLOCK)

    def read(self, offset: int, length: int) -> bytes:
        """Return a part of the disk, whose blocks must be here. Raises OSError."""
        return read_at(self._file, length, offset)

    def put(self, number: int, content: bytes) -> bool:
        """Keep `content` as block `number` if it is that block. Raises OSError."""
        if len(content) != self._length(number) or not self.blocks.is_block(number, content):
            return False
        if write_at(self._file, content, number * BLOCK) != len(content):
            raise OSError("a block was written only in part")
        self._known[number] = True
        return True

    def fetch(self, server: Server, numbers: Iterable[int]) -> Iterator[list[int]]:
        """Read blocks from the server; yield the numbers of those that have come.

        Raises ImageDamagedError, OSError, and what `Server.pieces` does.
        """
        name, size = self._blocks_name, self.blocks.blocks_size
        damaged = ImageDamagedError(
            f"{server.url}/{name} is not what its index says",
            hint="it was altered, or its server is broken; ask who publishes it",
        )
        for begin, end, inside in self._ranges(numbers):
            data = memoryview(b"".join(server.pieces(name, begin, end, size)))
            for number in inside:
                at = self._offsets[number] - begin
                packed = bytes(data[at : at + self.blocks.sizes[number]])
                if not self.put(number, expanded(packed, damaged)):
                    raise damaged
            yield inside

    def fetch_head(self, server: Server) -> None:
        """Read what is missing of the disk's header, which is checked before a machine starts.

        Raises what `fetch` does.
        """
        head = range(min(_HEAD_BLOCKS, self.blocks.count))
        for _ in self.fetch(server, [number for number in head if not self.has(number)]):
            pass

    def _ranges(self, numbers: Iterable[int]) -> list[_Range]:
        """Return what to read for some blocks, in the order of the file of blocks."""
        ranges: list[_Range] = []
        for number in sorted(numbers, key=self._offsets.__getitem__):
            begin = self._offsets[number]
            end = begin + self.blocks.sizes[number]
            if ranges:
                last = ranges[-1]
                if begin - last.end <= LONGEST_GAP and end - last.begin <= LONGEST_RANGE:
                    inside = [*last.numbers, number]
                    ranges[-1] = _Range(last.begin, max(last.end, end), inside)
                    continue
            ranges.append(_Range(begin, end, [number]))
        return ranges

    def seed(self, files: Sequence[Path]) -> None:
        """Copy the blocks that `files` of this host have. Raises OSError."""
        places: dict[bytes, list[int]] = {}
        for number in range(self.blocks.count):
            if not self.has(number):
                places.setdefault(self.blocks.digest(number), []).append(number)
        for path in files:
            with path.open("rb") as stream:
                for _, block in numbered(stream):
                    for number in places.pop(block_digest(block), ()):
                        self.put(number, block)

    def is_whole(self) -> bool:
        """Tell whether all blocks are here. Raises OSError."""
        return all(self.has(number) for number in range(self.blocks.count))

    @property
    def count_here(self) -> int:
        """How many blocks have been seen to be here."""
        return sum(self._known)


def write_on_demand(path: Path, url: str, blocks: RootBlocks) -> None:
    """Write the file from which RootPart learns where the blocks are. Raises OSError."""
    head = {"url": url, "size": blocks.size, "blocks_size": blocks.blocks_size}
    line = json.dumps(head).encode("ascii")
    with create_new(path) as stream:
        stream.write(line + b"\n" + blocks.encode())
        finish_file(stream)


def _read(path: Path) -> tuple[str, RootBlocks]:
    """Read what `write_on_demand` wrote. Raises ImageDamagedError, OSError."""
    with open_own(path) as stream:
        data = stream.read(_MOST_BYTES)
    line, _, columns = data.partition(b"\n")
    try:
        head = json.loads(line)
        size = whole(head["size"], MOST_IMAGE_BYTES)
        blocks = decode_root_blocks(columns, size, whole(head["blocks_size"]))
        blocks.offsets()
        return check_url(text(head["url"])), blocks
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImageDamagedError(f"{path} of the image is damaged: {error}") from error
