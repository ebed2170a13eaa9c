"""Hosts that are invited, listed and revoked: what the controller's operations say of it."""

import ipaddress
import platform
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.controller.arguments import Json
from boincvm.controller.hosts.broker import BusSide
from boincvm.controller.hosts.invitations import Invitations
from boincvm.controller.protocol.messages import belongs
from boincvm.controller.protocol.selector import Selector, parse_selector
from boincvm.errors import UsageError

if TYPE_CHECKING:
    from boincvm.controller.controller import Controller


def invite(controller: "Controller", name: str) -> dict[str, Json]:
    """Its passcode, and what is to be done with it. Raises UsageError, HostError."""
    machines = [machine.id for machine in controller.machines.all()]
    passcode = _invitations(controller.side).add(name, machines)
    controller.events.add("host_invited", None, f"the host {name} is invited")
    return {
        "name": name,
        "passcode": passcode,
        "command": _command(controller.side, name),
        "notes": list(_notes(controller.side)),
    }


def invitations(controller: "Controller") -> dict[str, Json]:
    """All that hold. Raises UsageError."""
    guests = [guest.id for guest in controller.desk.registry.find(parse_selector("all"))]
    return {
        "invitations": [
            {
                "name": one.name,
                "made": one.made,
                "guests": sum(belongs(guest, one.name) for guest in guests),
            }
            for one in _invitations(controller.side).all()
        ]
    }


def revoke(controller: "Controller", name: str) -> None:
    """It is cut off, and its machines are gone from here. Raises UsageError, HostError."""
    _invitations(controller.side).remove(name)
    controller.events.add("host_revoked", None, f"the host {name} is not invited any more")
    registry = controller.desk.registry
    for guest in registry.find(parse_selector("all")):
        if belongs(guest.id, name):
            registry.bye(guest.id)


def check_is_free(controller: "Controller", machine_id: str) -> None:
    """Raises UsageError where a guest of another host has that id."""
    for guest in controller.desk.registry.find(Selector(machine_id, only=machine_id)):
        if guest.host != platform.node():  # else it may be one that has just been removed here
            raise UsageError(
                f"{guest.id} is on the bus already, of the host {guest.host or 'without a name'}",
                hint="an id is there once: choose another name",
            )


def _invitations(side: BusSide) -> Invitations:
    if side.invitations is None:
        raise UsageError(
            "this controller is on another's broker, and invites nobody there",
            hint="ask the controller that has the broker; or make an account there, if it is none",
        )
    return side.invitations


def _command(side: BusSide, name: str) -> str:
    place = "HOST:PORT"
    if side.listen is not None and side.address is not None:
        host = platform.node() if _is_unspecified(side.listen.host) else side.listen.host
        place = f"{f'[{host}]' if ':' in host else host}:{side.address[1]}"
    words = ["boincvm", "controller", "--broker", f"stomp://{name}@{place}"]
    words += ["--passcode-file", "passcode"]
    if side.listen is not None and side.listen.certificate:
        words += ["--broker-ca", Path(side.listen.certificate).name]
    return shlex.join(words)


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _notes(side: BusSide) -> Iterator[str]:
    if side.listen is None:
        yield (
            "nobody can reach this controller's bus: start it with --bus HOST:PORT, and put that"
            " into the command"
        )
    elif side.listen.certificate:
        yield (
            f"{Path(side.listen.certificate).name} is this controller's certificate, or that of"
            " the authority that signed it: copy it there, too; the command must have a name that"
            " is in it"
        )
    else:
        yield "without --bus-certificate whoever listens on the network has the passcode"
    yield "boincvm guest, in place of boincvm controller, makes that host itself a guest"
