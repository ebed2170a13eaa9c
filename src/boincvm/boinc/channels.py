"""The shared memory between a BOINC client and its app: 8192 bytes, eight one-way channels.

Byte 0 of a channel's 1024 tells whether it holds a message, whose NUL-terminated text begins at
byte 1. The sender sets that flag last, the reader clears it last. Neither side is notified of a
change: it has to poll. (lib/app_ipc.h, struct SHARED_MEM and MSG_CHANNEL.)
"""

from boincvm.errors import HostError

CHANNEL_SIZE = 1024
"""Bytes."""
SEGMENT_SIZE = 8 * CHANNEL_SIZE
LONGEST_MESSAGE = CHANNEL_SIZE - 2
"""Bytes of text; the flag and the NUL take two more."""

CONTROL, CONTROL_REPLY, GRAPHICS_REQUEST, GRAPHICS_REPLY = range(4)
HEARTBEAT, APP_STATUS, TRICKLE_UP, TRICKLE_DOWN = range(4, 8)


class SegmentError(HostError):
    """The client's shared memory cannot be opened."""


class Channel:
    """One channel, used by either of its two sides."""

    __slots__ = ("_buffer", "_start")

    def __init__(self, segment: memoryview, number: int) -> None:
        """Open channel `number` (CONTROL … TRICKLE_DOWN) of a `segment` of 8192 writable bytes."""
        self._buffer = segment
        self._start = number * CHANNEL_SIZE

    @property
    def is_full(self) -> bool:
        """Return True if it holds a message that has not been read yet."""
        return self._buffer[self._start] != 0

    def send(self, text: str) -> bool:
        """Write a message and return True; return False if the previous one was not read yet.

        Raises ValueError if the text is too long or contains a NUL.
        """
        data = _encode(text)
        if self.is_full:
            return False
        self._write(data)
        return True

    def overwrite(self, text: str) -> None:
        """Write a message even if the previous one was not read, which is then lost.

        For the last message of a process that ends: the client polls once more after that. BOINC's
        own channels can do the same. Raises ValueError as `send` does.
        """
        data = _encode(text)
        self._buffer[self._start] = 0
        self._write(data)

    def _write(self, data: bytes) -> None:
        text = self._start + 1
        self._buffer[text : text + len(data)] = data
        self._buffer[self._start] = 1

    def receive(self) -> str | None:
        """Return the message and free the channel; None if it is empty.

        Invalid UTF-8 becomes U+FFFD.
        """
        start = self._start
        if not self._buffer[start]:
            return None
        text = bytes(self._buffer[start + 1 : start + CHANNEL_SIZE])
        self._buffer[start] = 0
        return text.partition(b"\0")[0].decode(errors="replace")


def _encode(text: str) -> bytes:
    data = text.encode()
    if len(data) > LONGEST_MESSAGE or b"\0" in data:
        raise ValueError(f"a message of {len(data)} bytes, or with a NUL: {text[:40]!r}")
    return data + b"\0"
