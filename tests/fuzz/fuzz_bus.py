"""A target for atheris: bytes of a hostile peer against the STOMP codec and the embedded broker.

`python tests/fuzz/fuzz_bus.py [CORPUS] [-max_total_time=SECONDS]`. The first byte determines how
the rest is divided, and whether the peer has logged in.
"""

import asyncio
import sys

import atheris

with atheris.instrument_imports(include=["boincvm.bus"]):
    from boincvm.bus.access import Account, Accounts, digest_of_passcode
    from boincvm.bus.broker import Broker, BrokerLimits
    from boincvm.bus.broker_connection import BrokerConnection
    from boincvm.bus.stomp import Frame, Parser, StompError

LONGEST = 4096
LOGIN = b"CONNECT\naccept-version:%s\nlogin:me\npasscode:x\n\n\0"
VERSIONS = (b"1.0", b"1.1", b"1.2")
ALL = ("/topic/**", "/queue/**")


def pieces(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


def parsed(parts: list[bytes]) -> tuple[list[Frame], bool]:
    """Return the frames, and whether they ended with a StompError."""
    parser, frames = Parser(LONGEST), []
    try:
        for part in parts:
            frames += parser.feed(part)
    except StompError:
        return frames, False
    return frames, True


def codec(data: bytes, step: int) -> None:
    """Check that bytes give the same frames however they are divided, or none at all."""
    whole, is_good = parsed([data])
    found, is_good_too = parsed(pieces(data, step))
    assert is_good == is_good_too
    if is_good:
        assert whole == found


class Wire(asyncio.Transport):
    """A transport that records what the broker writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def broker(data: bytes, step: int, version: bytes | None) -> None:
    """Check that nothing is raised, that the broker's answers are STOMP, and that nothing is left
    of the peer."""
    running = Broker(
        Accounts([Account("me", digest_of_passcode("x"), ALL, ALL)]),
        BrokerLimits(body=LONGEST, waiting=1 << 18, queued=8, subscriptions=4),
    )
    connection, wire = BrokerConnection(running), Wire()
    connection.connection_made(wire)
    if version is not None:
        connection.data_received(LOGIN % version)
        assert wire.written.startswith(b"CONNECTED\n")
    for part in pieces(data, step):
        if wire.is_closed:
            break
        connection.data_received(part)
    connection.connection_lost(None)
    parser = Parser()
    parser.has_escapes = connection.version != "1.0"  # it may have logged in by itself
    parser.feed(bytes(wire.written))
    assert running.connections == 0
    assert running.topics._root.is_empty
    assert all(queue.messages for queue in running._queues.values())


def main() -> None:
    loop = asyncio.new_event_loop()

    def one(data: bytes) -> None:
        if not data:
            return
        step, kind, rest = (data[0] >> 2) + 1, data[0] & 3, data[1:]
        codec(rest, step)
        loop.run_until_complete(broker(rest, step, VERSIONS[kind] if kind < 3 else None))

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
