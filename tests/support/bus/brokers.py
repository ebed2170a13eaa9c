"""Brokers in processes of their own, which the same client must work with unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.activemq import activemq
from benchmarks.bus_fanout import peer
from benchmarks.rabbitmq import LOGIN, PASSCODE, rabbitmq

from boincvm.bus.client import Address, StompBus
from boincvm.bus.dialects import ACTIVEMQ, EMBEDDED, RABBITMQ, Dialect

KINDS = ("embedded", "rabbitmq", "activemq")


class RunningBroker(NamedTuple):
    """A broker that accepts connections."""

    kind: str
    """One of KINDS."""
    address: Address
    dialect: Dialect

    async def connect(self, passcode: str = PASSCODE, heart_beat: int = 10_000) -> StompBus:
        return await StompBus.open(
            self.address, LOGIN, passcode, dialect=self.dialect, heart_beat=heart_beat
        )


@contextmanager
def running_broker(kind: str, directory: Path) -> Iterator[RunningBroker]:
    """Run a broker within the block, with `directory` as its own."""
    if kind == "rabbitmq":
        with rabbitmq(directory) as (port, _):
            yield RunningBroker(kind, Address(port=port), RABBITMQ)
    elif kind == "activemq":
        with activemq(directory) as (port, _):
            yield RunningBroker(kind, Address(port=port), ACTIVEMQ)
    else:
        with peer("broker") as (word, _):
            yield RunningBroker(kind, Address(port=int(word)), EMBEDDED)
