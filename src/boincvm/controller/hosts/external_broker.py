"""A broker that runs elsewhere: another controller's, RabbitMQ or ActiveMQ."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from boincvm.bus.broker_address import BrokerAddress, open_bus
from boincvm.controller.hosts.bus_side import BusSide
from boincvm.errors import UsageError


@asynccontextmanager
async def external_broker(place: BrokerAddress) -> AsyncIterator[BusSide]:
    """Use an external broker, where all guests share one login. Raises BusError.

    It is another controller's, which has invited this host, or RabbitMQ or ActiveMQ.
    """
    part = place.login if place.dialect == "embedded" else ""

    def place_for(guest_id: str, _known: str) -> BrokerAddress:
        if part and not guest_id.startswith(f"{part}."):
            raise UsageError(
                f"{guest_id} cannot be on this bus: this host was invited as {part}",
                hint=f"its machines' names begin with {part}. like {part}.{guest_id}",
            )
        return place

    bus = await open_bus(place)
    try:
        yield BusSide(bus, place_for, part=part)
    finally:
        await bus.close()
