"""Keep the last part of a program's output, addressed by offsets from the beginning."""


class OutputLog:
    """The last `capacity` bytes of an output."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._data = bytearray()
        self.first = 0
        """The offset of the first byte that is kept."""

    @property
    def size(self) -> int:
        """Return how many bytes are kept."""
        return len(self._data)

    @property
    def end(self) -> int:
        """Return the offset of the next byte to come."""
        return self.first + len(self._data)

    def append(self, data: bytes | memoryview) -> None:
        """Append data, dropping the oldest bytes beyond the capacity."""
        self._data += data
        self.drop(self.end - self._capacity)

    def drop(self, before: int) -> None:
        """Drop everything before that offset."""
        count = min(max(before - self.first, 0), len(self._data))
        del self._data[:count]
        self.first += count

    def skip(self, offset: int) -> None:
        """Drop everything and go on at `offset`, which must not be before `end`."""
        self._data.clear()
        self.first = offset

    def read(self, offset: int, most: int) -> tuple[int, bytes]:
        """Return up to `most` bytes from `offset` on, or from `first` if later, and their offset.

        The offset comes first.
        """
        begin = min(max(offset, self.first), self.end)
        at = begin - self.first
        return begin, bytes(self._data[at : at + most])
