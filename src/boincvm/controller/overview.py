"""Describe machines and guests to clients, and keep the history of their load."""

from collections import deque
from collections.abc import Callable, Iterator
from time import time
from typing import NamedTuple

from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import Presence
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines
from boincvm.controller.machines.operations import MachineOperations, as_guest_of
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.host_machines import HostMachine
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.selector import parse_selector
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import UsageError
from boincvm.json_value import Json

SAMPLES = 360
"""Samples kept of each guest that reports its load: an hour, at one every 10 s."""


_PRESENCE = {None: "absent", Presence.PRESENT: "present", Presence.SILENT: "silent"}


class Sample(NamedTuple):
    """The load at one moment; the fields but `at` are those of Report."""

    at: float
    """Seconds since 1970."""
    cpu: float | None
    memory: int | None
    progress: float | None


class Overview:
    """The descriptions of machines and guests; `take_report` updates them."""

    def __init__(
        self,
        machines: Machines,
        hub: Hub,
        operations: MachineOperations,
        host: str,
        invited_as: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Describe the machines and guests of `machines` and `hub`; `host` is this host's name.

        `invited_as` returns by which name the host of a machine or guest was invited, if it was.
        """
        self._machines = machines
        self._hub = hub
        self._operations = operations
        self._host = host
        self._invited_as = invited_as
        self._reports: dict[str, Report] = {}
        self._samples: dict[str, deque[Sample]] = {}

    def take_report(self, guest_id: str, report: Report) -> VmState | None:
        """Store a guest's report; return the state that it had before."""
        former = self._reports.get(guest_id)
        self._reports[guest_id] = report
        if report.cpu is not None or report.memory is not None:
            samples = self._samples.setdefault(guest_id, deque(maxlen=SAMPLES))
            samples.append(Sample(time(), report.cpu, report.memory, report.progress))
        return former.state if former else None

    def forget(self, guest_id: str) -> None:
        """Forget a guest that has gone, and its history unless it is a machine of this host.

        The report of a shim that still runs is kept: it shows that the shim was heard once.
        """
        machine = self._machines.find(guest_id)
        if machine is None or not machine.has_shim:
            self._reports.pop(guest_id, None)
        if machine is None:
            self._samples.pop(guest_id, None)

    def vms(self, selector: str) -> Iterator[Json]:
        """Describe every machine and guest that a selector matches. Raises UsageError."""
        for vm in self._operations.targets(parse_selector(selector)):
            yield self.vm(vm)

    def vm(self, vm: str) -> dict[str, Json]:
        """Describe one machine or guest. Raises UsageError."""
        machine = self._machines.find(vm)
        guest = self._hub.registry.get(vm)
        found = None if machine else self._hub.other_hosts.find(vm)
        if machine is None and guest is None and found is None:
            raise UsageError(f"there is no machine {vm[:64]!r}", hint="boincvm ls shows them")
        seen = as_guest_of(*found) if found and guest is None else guest
        return {
            **self._who(vm, machine, seen),
            **self._what(machine or (found and found[1])),
            **self._how(vm, machine, guest),
        }

    def _who(self, vm: str, machine: LocalMachine | None, guest: Guest | None) -> dict[str, Json]:
        labels = dict(machine.definition.labels) if machine else {}
        presence = self._hub.registry.presence(vm)
        return {
            "id": vm,
            "name": guest.name if guest else vm,
            "host": guest.host if guest else self._host,
            "invited_as": None if machine else self._invited_as(vm),
            "labels": dict(guest.labels) if guest else dict(labels),
            "capabilities": [*sorted(guest.capabilities)] if guest else [],
            "presence": _PRESENCE[presence],
            "is_local": machine is not None,
        }

    def _what(self, machine: LocalMachine | HostMachine | None) -> dict[str, Json]:
        names = ("image", "memory", "cpus", "disk", "network", "display", "autostart")
        if machine is None:
            return dict.fromkeys(names)
        table = (
            machine.definition._asdict() if isinstance(machine, LocalMachine) else machine._asdict()
        )
        return {name: table.get(name) for name in names}

    def _how(self, vm: str, machine: LocalMachine | None, guest: Guest | None) -> dict[str, Json]:
        report = self._reports.get(vm)
        if machine is not None and not machine.has_shim:
            report = None
        state, why = self.state(vm)
        operations = state.meaning.operations
        if machine is None:
            operations = operations & self._operations.elsewhere(vm)
        elif machine.status.saved is None:
            operations -= {"discard"}
        return {
            "operations": [*sorted(operations)],
            "state": str(state),
            "state_label": _label(state, guest, self._hub.registry.presence(vm)),
            "why": why,
            "cpu": report.cpu if report else None,
            "memory_used": report.memory if report else None,
            "progress": report.progress if report else None,
            "started_at": report.started_at if report else None,
            "commands": self._hub.commands.open_in(vm) if guest else 0,
        }

    def state(self, vm: str) -> tuple[VmState, str]:
        """Return the state of a known machine or guest, and the reason for it."""
        machine, report = self._machines.find(vm), self._reports.get(vm)
        if machine is not None:
            return machine.state, machine.why
        if self._hub.registry.get(vm) is None:
            return self._hub.other_hosts.state(vm)
        if report is None:
            return VmState.UNKNOWN, ""
        if not report.state.is_off and self._hub.registry.presence(vm) is not Presence.PRESENT:
            return VmState.STUCK, report.why
        return report.state, report.why

    def history(self, vm: str) -> Iterator[Json]:
        """Return a guest's samples, the oldest one first. Raises UsageError."""
        self.vm(vm)
        for sample in self._samples.get(vm, ()):
            yield dict(sample._asdict())


def _label(state: VmState, guest: Guest | None, presence: Presence | None) -> str:
    """Return the words for a state, as all lists show it; some guests report none."""
    if state is VmState.UNKNOWN and guest is not None:
        return _PRESENCE[presence]
    return f"{state.label}, silent" if presence is Presence.SILENT else state.label
