"""The shared memory between a BOINC client and its app: 8192 bytes, eight one-way channels.

Byte 0 of a channel's 1024 says whether it holds a message, whose NUL-terminated text begins at
byte 1. The sender sets that flag last, the reader clears it last. Nothing tells either side of
a change: it has to look. (lib/app_ipc.h, struct SHARED_MEM and MSG_CHANNEL.)
"""

CHANNEL_SIZE = 1024
"""Bytes."""
SEGMENT_SIZE = 8 * CHANNEL_SIZE
LONGEST_MESSAGE = CHANNEL_SIZE - 2
"""Bytes of text: the flag and the NUL come on top."""

CONTROL, CONTROL_REPLY, GRAPHICS_REQUEST, GRAPHICS_REPLY = range(4)
HEARTBEAT, APP_STATUS, TRICKLE_UP, TRICKLE_DOWN = range(4, 8)


class Channel:
    """One channel, for whichever of its two sides."""

    __slots__ = ("_buffer", "_start")

    def __init__(self, segment: memoryview, number: int) -> None:
        """Number `number` (CONTROL … TRICKLE_DOWN) of a `segment` of 8192 writable bytes."""
        self._buffer = segment
        self._start = number * CHANNEL_SIZE

    @property
    def is_full(self) -> bool:
        """Whether it holds a message that nobody has taken yet."""
        return self._buffer[self._start] != 0

    def send(self, text: str) -> bool:
        """False where the former message has not been taken: then nothing is written.

        Raises ValueError for a text that is too long or has a NUL.
        """
        data = _encode(text)
        if self.is_full:
            return False
        self._write(data)
        return True

    def overwrite(self, text: str) -> None:
        """Sends even where the former message was not taken, which is lost then.

        For the last word of a process that ends: the client looks once more after that. BOINC's
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
        """Takes the message; None where there is none. What is no UTF-8 becomes U+FFFD."""
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
