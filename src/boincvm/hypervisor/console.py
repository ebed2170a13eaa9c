"""The tail of a guest's console output, which tells why its kernel panicked."""

import errno
import socket
from collections.abc import Callable

from boincvm.host.readable_sockets import ReadableSocket

CAPACITY = 64 << 10
"""Bytes of the console output that are kept, the last ones."""

_PANIC = b"Kernel panic - "
_INIT_ENDED = "Attempted to kill init!"
"""The kernel's words when the guest's first program ends; what that wrote last tells why."""


class Console:
    """Reads `channel`, which it owns, whenever the event loop finds it readable.

    `on_panic` is called once, for a guest kernel that does not stop when it has panicked. `sign` is
    what tells a panic. `on_output` is called with all that arrives.
    """

    def __init__(
        self,
        channel: socket.socket,
        on_panic: Callable[[], None] | None = None,
        sign: bytes = _PANIC,
        on_output: Callable[[bytes], None] | None = None,
    ) -> None:
        channel.setblocking(False)
        self._on_panic = on_panic
        self._on_output = on_output
        self._sign = sign
        self._channel: socket.socket | None = channel
        self._tail = bytearray()
        self._readable = ReadableSocket(channel, self._read)

    def _read(self) -> bool:
        """Read what is there; return False if there was nothing."""
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
            del self._tail[:-CAPACITY]
            if self._on_output is not None:
                self._on_output(data)
            if self._on_panic is not None and self._sign in self._tail:
                on_panic, self._on_panic = self._on_panic, None
                on_panic()
        else:
            self.close()
        return bool(data)

    def panic_line(self) -> str:
        """Return why the guest's kernel panicked, or "" if it did not."""
        while self._read():
            pass
        text = self._tail.decode(errors="replace")
        last = ""  # before the panic; the kernel itself is told to print nothing else
        for line in text.splitlines():
            _, found, rest = line.partition(self._sign.decode())
            if found:
                reason = _printable(rest.removeprefix("not syncing: "), 200)
                if reason.startswith(_INIT_ENDED) and last:
                    return f"{last} ({reason})"
                return reason or "without an answer"
            last = _printable(line.strip(), 300) or last
        return ""

    def text(self) -> str:
        """Return what has arrived, as far as it is kept."""
        while self._read():
            pass
        return self._tail.decode(errors="replace")

    def last_output(self) -> str:
        """Return the last line, printable, or ""."""
        lines = self.text().strip().splitlines()
        return _printable(lines[-1], 300) if lines else ""

    def close(self) -> None:
        """Stop reading and close the channel. Idempotent."""
        if self._channel is not None:
            self._readable.close()
            self._channel.close()
            self._channel = None


def _printable(line: str, most: int) -> str:
    """Return the printable characters of what a guest has written, at most that many."""
    return "".join(filter(str.isprintable, line))[:most]
