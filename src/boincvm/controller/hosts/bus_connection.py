"""The controller's side of the bus, whichever broker it has."""

from collections.abc import Callable
from typing import NamedTuple

from boincvm.bus.broker import Broker
from boincvm.bus.broker_address import BrokerAddress
from boincvm.bus.client import StompBus
from boincvm.controller.hosts.invitations import Invitations


class Listen(NamedTuple):
    """Where guests of other hosts reach the embedded broker."""

    host: str
    port: int
    certificate: str = ""
    """A file, for TLS; empty for no TLS."""
    key: str = ""
    """The file of its key; empty if `certificate` contains the key."""


class BusConnection(NamedTuple):
    """The controller's side of the bus."""

    bus: StompBus
    """The controller's connection."""
    address_for: Callable[[str, str], BrokerAddress]
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
