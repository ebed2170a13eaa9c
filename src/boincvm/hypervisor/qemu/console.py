"""The last of what a guest's console said: why its kernel gave up."""

import asyncio
import errno
import socket

KEPT = 64 << 10
"""Bytes of the guest's console that are kept, the last ones."""


class Console:
    """Reads `channel`, which it owns, as the event loop finds it readable."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel: socket.socket | None = channel
        self._tail = bytearray()
        asyncio.get_running_loop().add_reader(channel, self._read)

    def _read(self) -> bool:
        """Takes in what is there; False when there was nothing."""
        if self._channel is None:
            return False
        try:
            data = self._channel.recv(1 << 12)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECONNRESET:
                raise
            data = b""
        if data:
            self._tail += data
            del self._tail[:-KEPT]
        else:
            self.close()
        return bool(data)

    def panic_line(self) -> str:
        """Why the guest's kernel gave up, if it did."""
        while self._read():
            pass
        text = self._tail.decode(errors="replace")
        for line in text.splitlines():
            _, found, rest = line.partition("Kernel panic - ")
            if found:
                rest = rest.removeprefix("not syncing: ")
                return "".join(filter(str.isprintable, rest))[:200] or "without a word"
        return ""

    def close(self) -> None:
        """Reads no more; again is harmless."""
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None
