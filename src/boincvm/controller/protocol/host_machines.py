"""What the controller of an invited host tells the inviting one about its machines.

It sends MACHINES, which only says that there is a (new) list; the list is the answer to the request
`machines`, page by page, so that it arrives whole and as fast as it is read.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from boincvm.controller.protocol.envelope import Envelope, is_part_of, pack
from boincvm.controller.protocol.guest import check_id
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.json_value import LARGEST, Json, is_whole

PAGE = 128 << 10
"""Bytes of a page after which another one begins; less than a request's data by the largest
description."""
MOST_LABELS = 48
"""Labels of a machine, beside those that are made of its other fields."""
REVISION = "revision"
"""The field of an answer about one machine that has the revision of the list as of then."""
_CONTROLLER = ".@controller"  # which no machine's id can end with
_LONGEST = 255
_LONGEST_WHY = 500
_MOST_VERBS = 64


def controller_id(host: str) -> str:
    """Return the address on the bus of the controller of an invited host."""
    return host + _CONTROLLER


@dataclass(frozen=True, slots=True)
class HostMachines:
    """Says that an invited host's controller is there, and how new its list of machines is.

    Sent on each connection, after each change, and every BEAT seconds.
    """

    NAME: ClassVar[str] = "MACHINES"
    instance: str
    """Identifies one life of the controller."""
    revision: int
    """Grows with each change of the list."""
    host: str = ""
    """The host's own name."""
    verbs: frozenset[str] = frozenset()
    """What it does when it is asked to."""
    leaves: bool = False
    """The controller ends; its machines may keep running."""

    def encode(self) -> bytes:
        fields: dict[str, object] = {
            "instance": self.instance,
            "revision": self.revision,
            "host": self.host,
            "verbs": sorted(self.verbs),
            "leaves": self.leaves,
        }
        return pack(self.NAME, fields)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        host, verbs = envelope.any_text("host"), envelope.fields.get("verbs", [])
        if len(host) > _LONGEST or not host.isprintable():
            raise envelope.invalid("host")
        if (
            not isinstance(verbs, list)
            or len(verbs) > _MOST_VERBS
            or not all(isinstance(verb, str) and len(verb) <= _LONGEST for verb in verbs)
        ):
            raise envelope.invalid("verbs")
        return cls(
            envelope.text("instance"),
            envelope.whole("revision"),
            host,
            frozenset(verbs),
            envelope.flag("leaves"),
        )


class HostMachine(NamedTuple):
    """A machine of an invited host, as the host's controller describes it."""

    id: str
    state: VmState
    why: str
    image: str
    memory: int
    """Bytes."""
    cpus: int
    disk: int | None
    """Bytes; None for the image's size."""
    labels: Mapping[str, str]
    """Those that it was created with."""

    def table(self) -> dict[str, Json]:
        """Return it as a JSON object."""
        return {**self._asdict(), "state": str(self.state), "labels": dict(self.labels)}


def read_machine(value: object, host: str) -> HostMachine:
    """Check the description of a machine of `host`. Raises GuestProtocolError."""
    if not isinstance(value, dict):
        raise GuestProtocolError("a machine's description is not a JSON object")
    try:
        machine_id = check_id(value.get("id"))
        state = VmState(str(value.get("state")))
    except (UsageError, ValueError):
        raise GuestProtocolError("a machine's description has no valid id or state") from None
    if machine_id == host or not is_part_of(machine_id, host):
        raise GuestProtocolError(f"{machine_id} is not a machine of the host {host}")
    why, image = value.get("why", ""), value.get("image")
    memory, cpus, disk = value.get("memory"), value.get("cpus"), value.get("disk")
    labels = value.get("labels", {})
    if (
        not isinstance(why, str)
        or not isinstance(image, str)
        or not _is_line(image)
        or not is_whole(memory, most=LARGEST)
        or not is_whole(cpus, 1, 1 << 16)
        or not (disk is None or is_whole(disk))
        or not isinstance(labels, dict)
        or len(labels) > MOST_LABELS
        or not all(_is_line(text) for text in (*labels, *labels.values()))
    ):
        raise GuestProtocolError(f"the description of {machine_id} is invalid")
    line = "".join(filter(str.isprintable, why[:_LONGEST_WHY]))
    return HostMachine(machine_id, state, line, image, memory, cpus, disk, labels)


def _is_line(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()


def encode_page(machines: Iterable[HostMachine]) -> tuple[bytes, bool]:
    """Return the first of these machines as a page, and whether any are left out."""
    lines: list[bytes] = []
    size = 0
    for machine in machines:
        if size >= PAGE:
            return b"\n".join(lines), True
        lines.append(json.dumps(machine.table(), ensure_ascii=False).encode())
        size += len(lines[-1]) + 1
    return b"\n".join(lines), False


def read_page(data: bytes, host: str) -> list[HostMachine]:
    """Check a page with machines of `host`. Raises GuestProtocolError."""
    try:
        found = [json.loads(line) for line in data.split(b"\n") if line]
    except (ValueError, RecursionError):
        raise GuestProtocolError("a list of machines is not valid JSON") from None
    return [read_machine(value, host) for value in found]
