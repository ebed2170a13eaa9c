"""The address of a broker and the credentials for it."""

import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from boincvm.bus.client import Address, StompBus
from boincvm.bus.dialects import DIALECTS
from boincvm.errors import BusError


class BrokerAddress(NamedTuple):
    """A broker's address: a UNIX socket's `path`, or `host` and `port`."""

    login: str
    passcode: str
    path: str = ""
    host: str = ""
    port: int = 0
    authority: str = ""
    """File with the certificates that TLS trusts; empty for no TLS."""
    dialect: str = "embedded"
    """One of "embedded", "rabbitmq" and "activemq"."""

    @property
    def can_be_read(self) -> bool:
        """Return True if the passcode and all messages cross the network unencrypted."""
        return not self.path and not self.authority and is_elsewhere(self.host)


async def open_bus(bus: BrokerAddress) -> StompBus:
    """Connect to the broker. Raises BusError."""
    try:
        security = ssl.create_default_context(cafile=bus.authority) if bus.authority else None
    except OSError as error:  # includes SSLError
        raise BusError(
            f"the certificates in {bus.authority} cannot be used: {error.strerror or error}",
            hint="give a file of the authority that signed the broker's certificate",
        ) from error
    path = Path(bus.path) if bus.path else None
    address = Address(path, bus.host, bus.port, security)
    return await StompBus.open(address, bus.login, bus.passcode, dialect=DIALECTS[bus.dialect])


def is_elsewhere(host: str) -> bool:
    """Return True if traffic to `host` leaves this machine."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() != "localhost"
