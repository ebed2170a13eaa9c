"""A broker that runs elsewhere: another controller's, RabbitMQ or ActiveMQ."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from boincvm.bus.broker_address import BrokerAddress, open_bus
from boincvm.controller.hosts.bus_connection import BusConnection
from boincvm.errors import UsageError


@asynccontextmanager
async def external_broker(address: BrokerAddress) -> AsyncIterator[BusConnection]:
    """Use an external broker, where all guests share one login. Raises BusError.

    It is another controller's, which has invited this host, or RabbitMQ or ActiveMQ.
    """
    part = address.login if address.dialect == "embedded" else ""

    def address_for(guest_id: str, _known: str) -> BrokerAddress:
        if part and not guest_id.startswith(f"{part}."):
            raise UsageError(
                f"{guest_id} cannot be on this bus: this host was invited as {part}",
                hint=f"its machines' names begin with {part}. like {part}.{guest_id}",
            )
        return address

    bus = await open_bus(address)
    try:
        yield BusConnection(bus, address_for, part=part)
    finally:
        await bus.close()
