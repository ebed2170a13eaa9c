"""Exchange frames with the host over one port, with a bounded queue of outgoing data."""

from __future__ import annotations

import posix as os  # see __init__.py

from boincvm.bus import stomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from boincvm_agent.port import Port

READ_SIZE = 1 << 16
QUEUE_ENOUGH = 1 << 18  # number of queued bytes at which producers should stop


class HostGoneError(Exception):
    """The host has closed its end, or the port has gone."""


class Link:
    """The agent's side of the guest link."""

    def __init__(self, port: Port) -> None:
        self.descriptor = port.descriptor
        self._read = port.read
        self._parser = stomp.Parser()
        self._queue: list[bytes | memoryview] = []
        self._queued = 0
        self._producers: list[Iterator[bool]] = []
        self._waiting: list[Iterator[bool]] = []
        self._held: list[bytes] | None = None

    @property
    def has_output(self) -> bool:
        return bool(self._queue or self._producers)

    @property
    def has_room(self) -> bool:
        """Tell whether a producer may add to the queue."""
        return self._queued < QUEUE_ENOUGH

    def command(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Queue a frame."""
        self._put(stomp.encode(command, headers, body))

    def send(self, kind: str, call: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Queue a message of this kind; `call` names the request that it belongs to."""
        head = {"destination": "/host", "message": kind, "call": call, **headers}
        if len(body) < 4096:
            self._put(stomp.encode("SEND", head, body))
        else:  # no copy of what is large
            self._put(stomp.encode_head("SEND", head, len(body)))
            self._put(body)
            self._put(b"\0")

    def beat(self) -> None:
        """Queue a heartbeat, unless something is queued, which serves as one."""
        if not self._queue:
            self._put(stomp.HEARTBEAT)

    def produce(self, producer: Iterator[bool]) -> None:
        """Advance `producer`, which queues a little at each step, whenever there is room.

        A producer that yields True has nothing to queue until `resume` is called.
        """
        self._producers.append(producer)

    def resume(self) -> None:
        """Advance the waiting producers again: what they wait for may have arrived."""
        self._producers += self._waiting
        self._waiting.clear()

    def hold(self) -> None:
        """Hold back what is queued from now on until `go_on`."""
        self._held = []

    def go_on(self) -> None:
        """Send what `hold` has held back."""
        held, self._held = self._held or [], None
        for data in held:
            self._put(data)

    def _put(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
            return
        self._queue.append(data)
        self._queued += len(data)

    def read(self) -> list[stomp.Frame]:
        """Read the frames that have arrived. Raises HostGoneError, stomp.StompError."""
        try:
            data = self._read(READ_SIZE)
        except BlockingIOError:
            return []
        except OSError:
            raise HostGoneError from None
        if not data:
            raise HostGoneError
        return self._parser.feed(data)

    def read_all(self, last: str) -> list[stomp.Frame]:
        """Read all frames, from a host that may be gone by now. Raises stomp.StompError.

        Reading stops after a message of the kind `last`: finding that nothing follows it would
        cost an exception.
        """
        frames: list[stomp.Frame] = []
        while not frames or frames[-1].headers.get("message") != last:
            try:
                data = self._read(READ_SIZE)
            except OSError:  # nothing more, or no host
                return frames
            if not data:
                return frames
            frames += self._parser.feed(data)
        return frames

    def write(self) -> None:
        """Write as much as the host accepts now. Raises HostGoneError."""
        while True:
            while self.has_room and self._producers:
                producer = self._producers.pop(0)
                for waits in producer:
                    (self._waiting if waits else self._producers).append(producer)
                    break
            if not self._queue:
                return
            try:
                # The driver takes at most 32 KiB at once, and only from one buffer.
                written = os.write(self.descriptor, self._queue[0])
            except BlockingIOError:
                return
            except OSError:
                raise HostGoneError from None
            self._queued -= written
            if written == len(self._queue[0]):
                del self._queue[0]
            else:
                self._queue[0] = memoryview(self._queue[0])[written:]
