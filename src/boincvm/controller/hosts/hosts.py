"""Invite other hosts to the controller's bus, list them, and revoke invitations."""

import ipaddress
import platform
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from boincvm.controller.events import EventLog
from boincvm.controller.guests.hub import Hub
from boincvm.controller.hosts.bus_connection import BusConnection
from boincvm.controller.hosts.invitations import Invitations
from boincvm.controller.protocol.envelope import is_part_of
from boincvm.errors import UsageError
from boincvm.json_value import Json

_GUEST_NOTE = "boincvm guest, in place of boincvm controller, makes that host itself a guest"


class Hosts:
    """The hosts that were invited to the bus, and their guests on it."""

    def __init__(
        self,
        side: BusConnection,
        hub: Hub,
        events: EventLog,
        machine_ids: Callable[[], list[str]],
    ) -> None:
        """Manage the hosts on the bus; `machine_ids` returns the ids of this host's machines."""
        self._side = side
        self._registry = hub.registry
        self._other_hosts = hub.other_hosts
        self._events = events
        self._machine_ids = machine_ids

    def invite(self, name: str) -> dict[str, Json]:
        """Invite a host; return its passcode and how to use it. Raises UsageError, HostError."""
        passcode = self._invitations().add(name, self._machine_ids())
        self._events.add("host_invited", None, f"the host {name} is invited")
        return {
            "name": name,
            "passcode": passcode,
            "command": _command(self._side, name),
            "notes": [*_notes(self._side), _GUEST_NOTE],
        }

    def table(self) -> dict[str, Json]:
        """List the valid invitations, and how many guests each has. Raises UsageError."""
        guests = [guest.id for guest in self._registry.all()]
        return {
            "invitations": [
                {
                    "name": invitation.name,
                    "made": invitation.made,
                    "guests": sum(is_part_of(guest, invitation.name) for guest in guests),
                }
                for invitation in self._invitations().all()
            ]
        }

    def revoke(self, name: str) -> None:
        """Cut a host off and forget its machines. Raises UsageError, HostError."""
        self._invitations().remove(name)
        self._events.add("host_revoked", None, f"the host {name} is no longer invited")
        for guest in self._registry.all():
            if is_part_of(guest.id, name):
                self._registry.bye(guest.id)
        self._other_hosts.forget(name)

    def is_invited(self, name: str) -> bool:
        """Tell whether a host is invited by that name."""
        return self.invited(f"{name}.1") == name

    def invited(self, machine_id: str) -> str | None:
        """Return the name of the invited host to which a machine with that id would belong."""
        host = self.invited_as(machine_id)
        return None if host == machine_id else host

    def invited_as(self, guest_id: str) -> str | None:
        """Return the name of the invited host to which a guest or machine with that id belongs."""
        invitations = self._side.invitations
        return None if invitations is None else invitations.host_of(guest_id)

    def check_is_free(self, machine_id: str) -> None:
        """Raises UsageError if a guest of another host has that id."""
        guest = self._registry.get(machine_id)
        # A guest of this host may be a machine that has just been removed.
        if guest is not None and guest.host != platform.node():
            raise UsageError(
                f"{guest.id} is already on the bus, from the host {guest.host or 'without a name'}",
                hint="ids are unique: choose another name",
            )

    def _invitations(self) -> Invitations:
        if self._side.invitations is None:
            raise UsageError(
                "this controller uses another's broker, and cannot invite hosts to it",
                hint="ask the controller that runs the broker; with another broker, make an account"
                " there",
            )
        return self._side.invitations


def _command(side: BusConnection, name: str) -> str:
    address = "HOST:PORT"
    if side.listen is not None and side.address is not None:
        host = side.listen.host
        if _is_unspecified(host) or _is_loopback(host):
            host = platform.node()
        address = f"{f'[{host}]' if ':' in host else host}:{side.address[1]}"
    argv = ["boincvm", "controller", "--broker", f"stomp://{name}@{address}"]
    argv += ["--passcode-file", "passcode"]
    if side.listen is not None and side.listen.certificate:
        argv += ["--broker-ca", Path(side.listen.certificate).name]
    return shlex.join(argv)


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    """Tell whether only this host reaches itself there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _notes(side: BusConnection) -> Iterator[str]:
    if side.listen is None:
        yield (
            "no other host can reach this controller's bus: start it with --bus HOST:PORT, and use"
            " that address in the command"
        )
        return
    if _is_loopback(side.listen.host):
        yield (
            f"this controller's bus listens on {side.listen.host}, which no other host can reach:"
            " start it with --bus and an address of this host, or 0.0.0.0 for all of them"
        )
    if side.listen.certificate:
        yield (
            f"{Path(side.listen.certificate).name} is this controller's certificate, or that of"
            " the authority that signed it: copy it there too; the host name in the command"
            " must be one that it names"
        )
    else:
        yield "without --bus-certificate anyone who listens on the network learns the passcode"
