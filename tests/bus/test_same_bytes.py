"""The same bytes sent to the embedded broker, a real RabbitMQ and a real ActiveMQ."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Self

import pytest

from support.bus.brokers import KINDS, RunningBroker
from support.bus.conversations import HOST, REFUSED, TAKES, TALKS, TOPIC, WAITS, Talk, frame, login
from support.bus.embedded import LIMIT

pytestmark = pytest.mark.timeout(150)
_FENCE = "fence"
_ADDED = frozenset(
    ("ack", "content-length", "content-type", "destination", "expires", "message-id", "persistent",
     "priority", "receipt", "redelivered", "sender", "subscription", "timestamp", "transaction")
)  # fmt: skip
"""Headers of a message that are none of the talk's own."""


class Answer(NamedTuple):
    command: str
    headers: dict[str, str]
    body: bytes


class Talker:
    """A client that sends any bytes, and can read what no good client would send, as brokers pass
    it on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.has_escapes = False

    @classmethod
    async def open(cls, broker: RunningBroker) -> Self:
        return cls(*await asyncio.open_connection(broker.address.host, broker.address.port))

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self) -> Answer | None:
        """Return the next frame; None at the end of the connection."""
        try:
            head = (await self._reader.readuntil(b"\n\n")).lstrip(b"\n")
            while not head:
                head = (await self._reader.readuntil(b"\n\n")).lstrip(b"\n")
            command, *lines = head.decode("utf-8", "replace").removesuffix("\n\n").split("\n")
            headers: dict[str, str] = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers.setdefault(self._plain(name), self._plain(value))
            if "content-length" in headers:
                body = await self._reader.readexactly(int(headers["content-length"]) + 1)
            else:
                body = await self._reader.readuntil(b"\0")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Answer(command, headers, body[:-1])

    def _plain(self, text: str) -> str:
        if not self.has_escapes:
            return text
        plain = {"\\": "\\", "r": "\r", "n": "\n", "c": ":"}
        return re.sub(r"\\([\\rnc])", lambda found: plain[found[1]], text)

    async def log_in(self, broker: RunningBroker, version: str) -> None:
        self.send(login(version).replace(HOST, broker.dialect.host.encode()))
        welcome = await self.receive()
        assert welcome is not None
        assert welcome.headers["version"] == version
        self.has_escapes = version != "1.0"

    async def ask(self, command: str, *headers: str, body: str = "") -> None:
        """Send it; its receipt must be the next frame."""
        self.send(frame(command, *headers, "receipt:asked", body=body))
        receipt = await self.receive()
        assert receipt is not None
        assert receipt.headers["receipt-id"] == "asked"

    async def disconnect(self, broker: RunningBroker) -> None:
        """End the session as the standard says: DISCONNECT, its receipt, the end."""
        await self.ask("DISCONNECT")
        answer = await self.receive()
        if broker.kind == "activemq" and answer is not None:
            # It sends this receipt for each of its two steps, if the second gets through.
            assert (answer.command, answer.headers["receipt-id"]) == ("RECEIPT", "asked")
            answer = await self.receive()
        assert answer is None

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected(broker: RunningBroker) -> AsyncIterator[Talker]:
    talker = await Talker.open(broker)
    try:
        yield talker
    finally:
        talker.close()


async def take(broker: RunningBroker, talk: Talk, number: int) -> str:
    """Return how the broker reacts: the receipts, sorted, then the messages in their order."""
    topic = f"/topic/talk.{number}"
    async with asyncio.timeout(LIMIT), connected(broker) as talker:
        if talk.version is not None:
            await talker.log_in(broker, talk.version)
            await talker.ask("SUBSCRIBE", "id:s", f"destination:{topic}")
        data = talk.sent.replace(HOST, broker.dialect.host.encode())
        talker.send(data.replace(TOPIC, topic.encode()))
        if talk.version is None:
            return await _welcome(talker, broker)
        if not talk.ends:
            headers = (f"destination:{topic}", f"receipt:{_FENCE}")
            talker.send(b"\n" + frame("SEND", *headers, body=_FENCE))
        return await _answers(talker, broker, talk)


async def _welcome(talker: Talker, broker: RunningBroker) -> str:
    answer = await talker.receive()
    if answer is None or answer.command == "ERROR":
        return await _refusal(talker, broker, answer)
    return f"{answer.command} {answer.headers['version']}"


async def _answers(talker: Talker, broker: RunningBroker, talk: Talk) -> str:
    receipts: list[str] = []
    messages: list[str] = []
    fences = 0
    while talk.ends or fences < 1 + talk.hears:
        answer = await talker.receive()
        if talk.ends and (answer is None or (receipts and answer.command == "ERROR")):
            break  # ActiveMQ may have an ERROR for whatever comes then
        if answer is None or answer.command == "ERROR":
            return await _refusal(talker, broker, answer)
        if answer.headers.get("receipt-id") == _FENCE or answer.body == _FENCE.encode():
            fences += 1
        elif answer.command == "RECEIPT":
            receipts.append(f"RECEIPT {answer.headers['receipt-id']}")
        else:
            own = [
                f" {name[:9]}={text[:9]}"
                for name, text in answer.headers.items()
                if name not in _ADDED
            ]
            messages.append(f"{answer.command} {answer.body!r}" + "".join(sorted(own)[:1]))
    if talk.ends and broker.kind == "activemq":
        receipts = [*dict.fromkeys(receipts)]  # that of a DISCONNECT may come twice
    return ", ".join([*sorted(receipts), *messages])


async def _refusal(talker: Talker, broker: RunningBroker, answer: Answer | None) -> str:
    """Check that ours gives the reason and closes, as the standard requires; the others do not
    always."""
    if broker.kind == "embedded":
        assert answer is not None
        assert answer.headers["message"]
        assert await talker.receive() is None
    return REFUSED


@pytest.mark.parametrize("number", range(len(TALKS)), ids=[talk.name for talk in TALKS])
async def test_the_same_bytes(broker: RunningBroker, number: int) -> None:
    talk = TALKS[number]
    takes = TAKES[talk.name]
    expected = takes if isinstance(takes, str) else takes[KINDS.index(broker.kind)]
    if expected != WAITS:
        assert await take(broker, talk, number) == expected


_NUMBERS = ["1", "2", "3"]
_COMMIT = (("BEGIN", "transaction:t"), ("COMMIT", "transaction:t"))
_ABORT = (("BEGIN", "transaction:t"), ("ABORT", "transaction:t"))


@pytest.mark.parametrize("version", ["1.2", "1.1", "1.0"])
@pytest.mark.parametrize(
    ("mode", "extra", "around", "left"),
    [
        ("auto", None, (), []),
        ("client", None, (), _NUMBERS),
        ("client", (), (), ["3"]),
        ("client-individual", (), (), ["1", "3"]),
        ("client-individual", ("content-length:5",), (), ["1", "3"]),
        ("client", ("transaction:t",), _COMMIT, ["3"]),
        ("client", ("transaction:t",), _ABORT, _NUMBERS),
    ],
)
async def test_what_an_ack_takes_from_a_queue(
    broker: RunningBroker,
    version: str,
    mode: str,
    extra: tuple[str, ...] | None,
    around: tuple[tuple[str, str], ...],
    left: list[str],
) -> None:
    """Acknowledge messages of a queue.

    `extra`: headers of an ACK of the second of three messages, if there is one; `around`: what
    is sent before it and after it; `left`: what another client gets afterwards.
    """
    if version == "1.0" and mode == "client-individual":
        version = "1.1"  # in which it came
    name = "/queue/" + "-".join((version, mode, *(extra or ("none",)), *(one for one, _ in around)))
    async with asyncio.timeout(LIMIT), connected(broker) as first, connected(broker) as second:
        await first.log_in(broker, version)
        for number in _NUMBERS:
            await first.ask("SEND", f"destination:{name}", body=number)
        first.send(
            frame(
                "SUBSCRIBE", "id:s", f"destination:{name}", f"ack:{mode}", "activemq.prefetchSize:9"
            )
        )
        messages = [await _message(first) for _ in _NUMBERS]
        assert [message.body.decode() for message in messages] == _NUMBERS
        if around:
            await first.ask(*around[0])
        if extra is not None:
            which = messages[1].headers["ack" if version == "1.2" else "message-id"]
            which = which.replace("\\", "\\\\").replace(":", "\\c") if first.has_escapes else which
            id_name = "id" if version == "1.2" else "message-id"
            await first.ask("ACK", "subscription:s", f"{id_name}:{which}", *extra)
        if around:
            await first.ask(*around[1])
        await first.disconnect(broker)
        await second.log_in(broker, version)
        second.send(frame("SUBSCRIBE", "id:s", f"destination:{name}", "ack:auto"))
        found = [(await _message(second)).body.decode() for _ in left]
        assert sorted(found) == left
        second.send(frame("SEND", f"destination:{name}", body=_FENCE))
        assert (await _message(second)).body == _FENCE.encode()


async def _message(talker: Talker) -> Answer:
    answer = await talker.receive()
    assert answer is not None
    assert answer.command == "MESSAGE", answer
    return answer
