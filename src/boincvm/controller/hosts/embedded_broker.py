"""The controller's own broker, which runs in its process."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from boincvm.bus.access import Account, Accounts, digest_of_passcode, new_passcode
from boincvm.bus.broker import Broker
from boincvm.bus.broker_address import BrokerAddress, open_bus
from boincvm.controller.hosts.bus_connection import BusConnection, Listen
from boincvm.controller.hosts.invitations import Invitations
from boincvm.controller.protocol.envelope import GUEST_FRAMES
from boincvm.errors import UsageError

SOCKET = "bus.sock"
_OUR_LOGIN = "/controller"  # cannot be a machine's id
_EVERYTHING = ("/topic/**",)


@asynccontextmanager
async def embedded_broker(directory: Path, listen: Listen | None) -> AsyncIterator[BusConnection]:
    """Run an embedded broker for as long as the block lasts. Raises BusError, HostError."""
    passcode = new_passcode()
    ours = Account(_OUR_LOGIN, digest_of_passcode(passcode), _EVERYTHING, _EVERYTHING)
    accounts = Accounts([ours])
    broker = Broker(accounts)
    path = directory / SOCKET
    invitations = Invitations(directory / "invitations.json", broker)

    def address_for(guest_id: str, known: str) -> BrokerAddress:
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
            yield BusConnection(bus, address_for, broker, address, listen, invitations)
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
