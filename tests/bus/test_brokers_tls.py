"""The client as a controller opens it, on a real RabbitMQ and a real ActiveMQ with TLS."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks.activemq import activemq
from benchmarks.rabbitmq import LOGIN, PASSCODE, rabbitmq

from boincvm.bus.broker_address import BrokerAddress, open_bus
from boincvm.bus.transport import Message
from boincvm.errors import BusError
from support.bus.embedded import LIMIT
from support.certificates import Certificate, self_signed

pytestmark = pytest.mark.timeout(150)


@contextmanager
def running(kind: str, directory: Path, known: Certificate) -> Iterator[int]:
    """Run the broker within the block; yield its port."""
    if kind == "rabbitmq":
        with rabbitmq(directory, (known.certificate, known.key)) as (port, _):
            yield port
    else:
        with activemq(directory, tls=known.store) as (port, _):
            yield port


@pytest.mark.parametrize("kind", ["rabbitmq", "activemq"])
async def test_a_stock_broker_over_tls(kind: str, tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    for directory in (ours, other):
        directory.mkdir()
    known, strange = self_signed(ours, PASSCODE), self_signed(other, PASSCODE)
    with running(kind, ours, known) as port:

        def location(authority: Path) -> BrokerAddress:
            return BrokerAddress(
                LOGIN, PASSCODE, host="127.0.0.1", port=port, authority=str(authority), dialect=kind
            )

        bus = await open_bus(location(known.certificate))
        messages: asyncio.Queue[Message] = asyncio.Queue()
        await bus.subscribe("/topic/x", messages.put_nowait)
        await bus.send("/topic/x", {}, bytes(300_000))
        async with asyncio.timeout(LIMIT):
            assert (await messages.get()).body == bytes(300_000)
        await bus.close()
        with pytest.raises(BusError, match="cannot be reached"):
            await open_bus(location(strange.certificate))
