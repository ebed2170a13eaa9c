"""Where a broker is, and how one logs in there."""

import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from boincvm.bus.client import Address, StompBus
from boincvm.bus.dialects import DIALECTS
from boincvm.errors import BusError


class BrokerAddress(NamedTuple):
    """path of a UNIX socket, or host and port. authority: a file of the certificates that TLS is
    to trust, empty for no TLS. dialect: "embedded", "rabbitmq" or "activemq"."""

    login: str
    passcode: str
    path: str = ""
    host: str = ""
    port: int = 0
    authority: str = ""
    dialect: str = "embedded"

    @property
    def can_be_read(self) -> bool:
        """Whether the network has all that is said, the passcode first."""
        return not self.path and not self.authority and is_elsewhere(self.host)


async def open_bus(bus: BrokerAddress) -> StompBus:
    """Raises BusError."""
    try:
        security = ssl.create_default_context(cafile=bus.authority) if bus.authority else None
    except OSError as error:  # SSLError is one
        raise BusError(
            f"the certificates in {bus.authority} cannot be used: {error.strerror or error}",
            hint="give a file of the authority that signed the broker's certificate",
        ) from error
    path = Path(bus.path) if bus.path else None
    address = Address(path, bus.host, bus.port, security)
    return await StompBus.open(address, bus.login, bus.passcode, dialect=DIALECTS[bus.dialect])


def is_elsewhere(host: str) -> bool:
    """Whether what is said to `host` leaves this one."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() != "localhost"
