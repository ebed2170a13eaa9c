"""The controller's bus: an embedded broker of its own, or one that runs elsewhere."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from boincvm.bus.access import Account, Accounts, digest_of_passcode, new_passcode
from boincvm.bus.broker import Broker
from boincvm.bus.broker_address import BrokerAddress, open_bus
from boincvm.bus.client import StompBus
from boincvm.controller.hosts.invitations import Invitations
from boincvm.controller.protocol.envelope import GUEST_FRAMES
from boincvm.errors import UsageError

SOCKET = "bus.sock"
_OUR_LOGIN = "/controller"  # cannot be a machine's id
_EVERYTHING = ("/topic/**",)


class Listen(NamedTuple):
    """Where guests of other hosts reach the embedded broker."""

    host: str
    port: int
    certificate: str = ""
    """A file, for TLS; empty for no TLS."""
    key: str = ""
    """The file of its key; empty if `certificate` contains the key."""


class BusSide(NamedTuple):
    """The controller's side of the bus."""

    bus: StompBus
    """The controller's connection."""
    place_for: Callable[[str, str], BrokerAddress]
    """Returns how the guest with an id reaches the bus, given its previous passcode or "".

    Raises UsageError for an id that no machine of this host may have.
    """
    broker: Broker | None = None
    """The embedded broker, or None if the broker is external."""
    address: tuple[str, int] | None = None
    """Where guests of other hosts reach the bus, if they can."""
    listen: Listen | None = None
    """The address that was requested for them."""
    invitations: Invitations | None = None
    """None if the broker is external."""
    part: str = ""
    """All ids that this controller may use begin with it and a dot; empty allows all ids."""


@asynccontextmanager
async def embedded(directory: Path, listen: Listen | None) -> AsyncIterator[BusSide]:
    """Run an embedded broker for as long as the block lasts. Raises BusError, HostError."""
    passcode = new_passcode()
    ours = Account(_OUR_LOGIN, digest_of_passcode(passcode), _EVERYTHING, _EVERYTHING)
    accounts = Accounts([ours])
    broker = Broker(accounts)
    path = directory / SOCKET
    invitations = Invitations(directory / "invitations.json", broker)

    def place_for(guest_id: str, known: str) -> BrokerAddress:
        host = invitations.host_of(guest_id)
        if host is not None:
            raise UsageError(
                f"{guest_id} would be a machine of the invited host {host}",
                hint="choose another name",
            )
        code = known or new_passcode()
        accounts.add(
            Account(
                guest_id,
                digest_of_passcode(code),
                may_send=("/topic/host.{login}",),
                may_subscribe=("/topic/guest.{login}",),
                frames=GUEST_FRAMES,
            )
        )
        return BrokerAddress(guest_id, code, path=str(path))

    try:
        await broker.listen_unix(path)
        address = None
        if listen is not None:
            address = await broker.listen_tcp(listen.host, listen.port, _security(listen))
        bus = await open_bus(BrokerAddress(_OUR_LOGIN, passcode, path=str(path)))
        try:
            yield BusSide(bus, place_for, broker, address, listen, invitations)
        finally:
            await bus.close()
    finally:
        await broker.close()
        path.unlink(missing_ok=True)


def _security(listen: Listen) -> ssl.SSLContext | None:
    if not listen.certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(listen.certificate, listen.key or None)
    return context


@asynccontextmanager
async def elsewhere(place: BrokerAddress) -> AsyncIterator[BusSide]:
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
