"""The last of a program's output, by its offsets from the beginning."""


class OutputLog:
    """Keeps the last `capacity` bytes. `first`: the offset of the first one that is kept;
    `end`: of the next one to come."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept = bytearray()
        self.first = 0

    @property
    def size(self) -> int:
        """Return how many bytes are kept."""
        return len(self._kept)

    @property
    def end(self) -> int:
        return self.first + len(self._kept)

    def append(self, data: bytes | memoryview) -> None:
        """Keep more; what goes beyond the capacity pushes out the oldest."""
        self._kept += data
        self.drop(self.end - self._capacity)

    def drop(self, before: int) -> None:
        """Forget what comes before that offset."""
        count = min(max(before - self.first, 0), len(self._kept))
        del self._kept[:count]
        self.first += count

    def skip(self, offset: int) -> None:
        """Keep nothing of what came before `offset`, which is not before `end`; the next byte
        is the one there."""
        self._kept.clear()
        self.first = offset

    def read(self, offset: int, most: int) -> tuple[int, bytes]:
        """Return at most so many bytes from there on, or from `first` if that is later; and where
        they begin."""
        begin = min(max(offset, self.first), self.end)
        at = begin - self.first
        return begin, bytes(self._kept[at : at + most])
