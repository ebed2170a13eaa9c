"""Spool a stream, which can be read only once, so that it can be sent to many guests."""

import os
import tempfile
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path
from typing import Self

from boincvm.controller.protocol.transfer_rules import as_host_errors, check_room
from boincvm.errors import UsageError
from boincvm.host.files import read_at


class Spooled:
    """A stream's content in a file without a name; created by `take`.

    Nothing is left of it when it is closed, or when this process ends in whatever way.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = 0
        self.digest = ""
        """BLAKE2b of 256 bits, in hexadecimal."""

    @classmethod
    async def store(
        cls, source: AsyncIterator[bytes], directory: Path | None, size: int | None, most: int
    ) -> Self:
        """Store all of `source`, which should have `size` bytes, on the disk of `directory`.

        Raises UsageError if it has more than `most` bytes or not `size`; HostDiskFullError,
        HostError; and whatever `source` raises.
        """
        if size is not None and not 0 <= size <= most:
            raise _too_large(most)
        with as_host_errors():
            parent = directory or Path(tempfile.gettempdir())
            check_room(parent, size or 0)
            with tempfile.TemporaryFile(dir=parent, buffering=0) as file:
                made = cls(os.dup(file.fileno()))
        try:
            await made._fill(source, size if size is not None else most, most)
            if size is not None and made.size != size:
                raise UsageError(f"{made.size} bytes were sent, but {size} were announced")
        except BaseException:
            made.close()
            raise
        return made

    async def _fill(self, source: AsyncIterator[bytes], expected: int, most: int) -> None:
        hashed = blake2b(digest_size=32)
        async for data in source:
            if self.size + len(data) > expected:
                if expected == most:
                    raise _too_large(most)
                raise UsageError(f"more bytes were sent than the {expected} that were announced")
            view = memoryview(data)
            while view:
                with as_host_errors():
                    written = os.write(self._descriptor, view)
                hashed.update(view[:written])
                self.size += written
                view = view[written:]
        self.digest = hashed.hexdigest()

    def read(self, offset: int, length: int) -> bytes:
        """Raises HostError."""
        with as_host_errors():
            return read_at(self._descriptor, length, offset)

    def close(self) -> None:
        """Delete the content; calling this again is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _too_large(most: int) -> UsageError:
    return UsageError(f"a file or tree of more than {most >> 30} GiB")
