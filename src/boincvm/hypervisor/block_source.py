"""What a root disk that is read on demand comes from."""

from typing import Protocol


class BlockSource(Protocol):
    """The content of a read-only file, of which a machine reads parts while it runs."""

    @property
    def size(self) -> int:
        """Bytes, a multiple of 512."""

    async def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`, however long they take to come.

        Several calls may wait at once; any may be cancelled. Raises OSError.
        """
