"""The controller's operations: one table, from which all its interfaces are built.

An interface (JSON, XML-RPC, the command line) names an operation and gives its arguments; `call`
checks them. Arguments and results are plain JSON; docs/controller-api.md describes the results.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from boincvm import __version__
from boincvm.controller.arguments import Arguments, Kind, Parameter
from boincvm.controller.commands import json as command_table
from boincvm.controller.guest_finder import FoundGuests
from boincvm.controller.machines import creation
from boincvm.controller.protocol.guest import check_id
from boincvm.controller.protocol.program import Request
from boincvm.controller.protocol.selector import parse_selector
from boincvm.errors import UsageError
from boincvm.json_value import Json

if TYPE_CHECKING:
    from boincvm.controller.events import EventLog
    from boincvm.controller.guest_finder import GuestFinder
    from boincvm.controller.guests.hub import Hub
    from boincvm.controller.hosts.hosts import Hosts
    from boincvm.controller.machines.machines import Machines
    from boincvm.controller.machines.operations import MachineOperations
    from boincvm.controller.overview import Overview

Result = Awaitable[dict[str, Json]]


class Parts(Protocol):
    """The parts of a controller that its operations need."""

    @property
    def events(self) -> EventLog: ...

    @property
    def hosts(self) -> Hosts: ...

    @property
    def hub(self) -> Hub: ...

    @property
    def machine_operations(self) -> MachineOperations: ...

    @property
    def machines(self) -> Machines: ...

    @property
    def overview(self) -> Overview: ...

    @property
    def guest_finder(self) -> GuestFinder: ...

    def commit(self) -> None:
        """Commit everything that has happened so far to the store."""


class Operation(NamedTuple):
    """An operation of the controller."""

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    run: Callable[[Parts, Arguments], Result]
    changes: bool = True
    """False if it only reads."""


async def call(parts: Parts, name: str, arguments: Mapping[str, object]) -> dict[str, Json]:
    """Run an operation and return its result. Raises BoincvmError."""
    operation = OPERATIONS.get(name)
    if operation is None:
        raise UsageError(
            f"there is no operation {name[:64]!r}", hint="openapi.json lists all of them"
        )
    result = await operation.run(parts, Arguments(operation.parameters, arguments))
    parts.commit()  # what is reported as done survives a crash
    return result


_SELECTOR = "an id, a pattern such as 1.2.*, labels such as site=cern,cpus>=2, or all"
_LARGEST_SIGNAL = 64
_VMS = Parameter("vms", Kind.TEXT, f"which machines: {_SELECTOR}", is_required=True)
_VM = Parameter("vm", Kind.TEXT, "the machine's id", is_required=True)
_ID = Parameter("id", Kind.TEXT, "the command's id", is_required=True)


async def _version(_parts: Parts, _given: Arguments) -> dict[str, Json]:
    return {"version": __version__}


async def _list(parts: Parts, given: Arguments) -> dict[str, Json]:
    return {"vms": list(parts.overview.vms(given.text("vms")))}


async def _invite(parts: Parts, given: Arguments) -> dict[str, Json]:
    return parts.hosts.invite(given.text("name"))


async def _invitations(parts: Parts, _given: Arguments) -> dict[str, Json]:
    return parts.hosts.table()


async def _revoke(parts: Parts, given: Arguments) -> dict[str, Json]:
    parts.hosts.revoke(given.text("name"))
    return {}


async def _create(parts: Parts, given: Arguments) -> dict[str, Json]:
    name, host = given.text("name"), given.text("host")
    if host:
        name = name if name.startswith(f"{host}.") else f"{host}.{name}"
    invited = parts.hosts.invited(name)
    if host and invited != host:
        raise UsageError(f"no host {host[:64]!r} is invited", hint="boincvm invite lists them")
    if invited is not None:
        options = {**given.table_of(creation.PARAMETERS), "name": name}
        await parts.machine_operations.create_elsewhere(invited, "create", check_id(name), options)
        return parts.overview.vm(name)
    parts.hosts.check_is_free(name)
    return parts.overview.vm(creation.create(parts.machines, given).id)


async def _clone(parts: Parts, given: Arguments) -> dict[str, Json]:
    source, name = given.text("vm"), given.text("name")
    invited = parts.hosts.invited(name)
    if invited is not None and parts.hosts.invited(source) == invited:
        options: dict[str, Json] = {"source": source}
        await parts.machine_operations.create_elsewhere(invited, "clone", check_id(name), options)
        return parts.overview.vm(name)
    parts.hosts.check_is_free(name)
    made = await parts.machines.clone(parts.machines.required(source), name)
    return parts.overview.vm(made.id)


async def _image_from_machine(parts: Parts, given: Arguments) -> dict[str, Json]:
    machine = parts.machines.required(given.text("vm"))
    name = given.text("name")
    force = given.flag("force")
    return {"name": name, "digest": await parts.machines.make_image(machine, name, force=force)}


async def _each(
    parts: Parts, given: Arguments, verb: str, options: Mapping[str, Json]
) -> dict[str, Json]:
    return await parts.machine_operations.each(given.text("vms"), verb, options)


def _on_machines(verb: str) -> Callable[[Parts, Arguments], Result]:
    async def run(parts: Parts, given: Arguments) -> dict[str, Json]:
        return {"outcomes": await _each(parts, given, verb, {})}

    return run


async def _stop(parts: Parts, given: Arguments) -> dict[str, Json]:
    options: dict[str, Json] = {"within": given.number("within")}
    return {"outcomes": await _each(parts, given, "stop", options)}


async def _remove(parts: Parts, given: Arguments) -> dict[str, Json]:
    options: dict[str, Json] = {"force": given.flag("force")}
    return {"outcomes": await parts.machine_operations.each(given.text("vms"), "remove", options)}


async def _snapshot_take(parts: Parts, given: Arguments) -> dict[str, Json]:
    options: dict[str, Json] = {
        "name": given.maybe_text("name"),
        "description": given.text("description"),
    }
    outcomes = await _each(parts, given, "snapshot_take", options)
    for vm, outcome in outcomes.items():
        if isinstance(outcome, dict) and "snapshot" in outcome:
            taken = "".join(filter(str.isprintable, str(outcome["snapshot"])[:64]))
            parts.events.add("snapshot", vm, f"the snapshot {taken} is taken")
    return {"outcomes": outcomes}


async def _snapshot_list(parts: Parts, given: Arguments) -> dict[str, Json]:
    return await parts.machine_operations.run(given.text("vm"), "snapshot_list", {})


async def _snapshot_restore(parts: Parts, given: Arguments) -> dict[str, Json]:
    options: dict[str, Json] = {"name": given.maybe_text("name")}
    return {
        "outcomes": await parts.machine_operations.each(
            given.text("vms"), "snapshot_restore", options
        )
    }


async def _snapshot_remove(parts: Parts, given: Arguments) -> dict[str, Json]:
    options: dict[str, Json] = {"name": given.text("name")}
    return {
        "outcomes": await parts.machine_operations.each(
            given.text("vms"), "snapshot_remove", options
        )
    }


async def _ping(parts: Parts, given: Arguments) -> dict[str, Json]:
    vms = given.text("vms")
    if not parts.machine_operations.targets(parse_selector(vms)):
        return {"answers": {}, "refused": {}}
    guests, refused = await parts.guest_finder.find(vms)
    answers = await parts.hub.pings.ping([guest.id for guest in guests], given.number("timeout"))
    return {
        "answers": {**answers, **dict.fromkeys(refused)},
        "refused": {vm: {**error.table()} for vm, error in refused.items()},
    }


async def _exec(parts: Parts, given: Arguments) -> dict[str, Json]:
    commands, vms = parts.hub.commands, given.text("vms")
    guests, refused = FoundGuests([], {})
    if not commands.knows(given.maybe_text("id")):
        guests, refused = (await parts.guest_finder.find(vms)).required(vms)
    request = Request(
        given.texts("argv"),
        given.table("env"),
        given.text("directory"),
        given.maybe_number("timeout"),
        given.text("stdin").encode(),
    )
    command = commands.submit(
        guests,
        request,
        command_id=given.maybe_text("id"),
        first=given.maybe_whole("first"),
        within=given.maybe_number("within"),
        keep_input=given.flag("keep_input"),
        refused={vm: error.message for vm, error in refused.items()},
    )
    return {"command": command.id, "vms": list(command.answers)}


async def _command(parts: Parts, given: Arguments) -> dict[str, Json]:
    found = parts.hub.commands.find(given.text("id"))
    return command_table.table(found, with_output=given.flag("output"))


async def _commands(parts: Parts, given: Arguments) -> dict[str, Json]:
    wanted = given.flag("finished") if given.maybe_text("finished") is not None else None
    found = [
        command for command in parts.hub.commands.all() if wanted in (None, command.is_finished)
    ]
    return {"commands": [command_table.table(command) for command in found]}


async def _signal(parts: Parts, given: Arguments) -> dict[str, Json]:
    number = given.whole("signal")
    if not 1 <= number <= _LARGEST_SIGNAL:
        raise UsageError(f"found the signal {number}, expected one from 1 to {_LARGEST_SIGNAL}")
    parts.hub.commands.signal(given.text("id"), number)
    return {}


async def _cancel(parts: Parts, given: Arguments) -> dict[str, Json]:
    parts.hub.commands.drop(given.text("id"))
    return {}


async def _history(parts: Parts, given: Arguments) -> dict[str, Json]:
    return {"samples": list(parts.overview.history(given.text("vm")))}


async def _logs(parts: Parts, given: Arguments) -> dict[str, Json]:
    vm, count, hosts = given.text("vm"), given.whole("lines"), parts.hub.other_hosts
    found = None if parts.machines.find(vm) else hosts.find(vm)
    if found is None:
        return {"lines": list(parts.machines.log_lines(vm, count))}
    return {"lines": list(await hosts.log_lines(found[0], vm, count))}


async def _events(parts: Parts, given: Arguments) -> dict[str, Json]:
    found = parts.events.list_after(given.whole("after"), given.whole("most"))
    return {"events": [event.table() for event in found], "last": parts.events.last}


_EXEC = (
    _VMS,
    Parameter("argv", Kind.TEXTS, "the program and its arguments", is_required=True),
    Parameter("env", Kind.TABLE, "environment variables", default={}),
    Parameter(
        "directory", Kind.TEXT, "its directory, beneath the guest's work directory", default=""
    ),
    Parameter("stdin", Kind.TEXT, "its standard input, at most 64 KiB", default=""),
    Parameter("timeout", Kind.NUMBER, "seconds after which the guest kills it"),
    Parameter("id", Kind.TEXT, "the client's own id, so that a retry never runs it twice"),
    Parameter("first", Kind.WHOLE, "stop after this many answers"),
    Parameter("within", Kind.NUMBER, "seconds after which to stop waiting for answers"),
    Parameter("keep_input", Kind.FLAG, "more input follows", default=False),
)
_CREATE = (
    *creation.PARAMETERS,
    Parameter(
        "host",
        Kind.TEXT,
        "the invited host to create it on, whose name its id begins with or gets",
        default="",
    ),
)
_HOST = Parameter(
    "name", Kind.TEXT, "the host's name; its machines' ids begin with it", is_required=True
)
_NAME = Parameter("name", Kind.TEXT, "the snapshot's name; empty for the newest")

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("version", "boincvm's version", (), _version, changes=False),
        Operation(
            "list",
            "machines of this host and of invited hosts, and guests of the bus",
            (Parameter("vms", Kind.TEXT, f"which: {_SELECTOR}", default="all"),),
            _list,
            changes=False,
        ),
        Operation("create", "create a machine, powered off", _CREATE, _create),
        Operation(
            "clone",
            "create a copy of a machine that is off, with its disk",
            (_VM, _CREATE[0]),
            _clone,
        ),
        Operation(
            "image_from_machine",
            "make an image of the disk of a machine that is off",
            (
                _VM,
                Parameter(
                    "name",
                    Kind.TEXT,
                    "the new image's name",
                    is_required=True,
                ),
                Parameter("force", Kind.FLAG, "replace an image of this name", default=False),
            ),
            _image_from_machine,
        ),
        Operation("start", "boot, or resume from the saved state", (_VMS,), _on_machines("start")),
        Operation("pause", "pause them", (_VMS,), _on_machines("pause")),
        Operation("resume", "resume paused ones", (_VMS,), _on_machines("resume")),
        Operation("save", "save their state to disk and end them", (_VMS,), _on_machines("save")),
        Operation(
            "stop",
            "shut down; power off those that have not shut down in time",
            (_VMS, Parameter("within", Kind.NUMBER, "seconds to end in", default=20.0)),
            _stop,
        ),
        Operation("power_off", "power them off at once", (_VMS,), _on_machines("power_off")),
        Operation("reset", "power them off at once and boot", (_VMS,), _on_machines("reset")),
        Operation("discard", "discard their saved state", (_VMS,), _on_machines("discard")),
        Operation(
            "remove",
            "remove machines with all their files",
            (_VMS, Parameter("force", Kind.FLAG, "also those that are running", default=False)),
            _remove,
        ),
        Operation(
            "snapshot_take",
            "save their state while they keep running",
            (
                _VMS,
                Parameter("name", Kind.TEXT, "its name; empty to have one chosen"),
                Parameter("description", Kind.TEXT, "a one-line description", default=""),
            ),
            _snapshot_take,
        ),
        Operation("snapshot_list", "a machine's snapshots", (_VM,), _snapshot_list, changes=False),
        Operation(
            "snapshot_restore", "restore them to that state", (_VMS, _NAME), _snapshot_restore
        ),
        Operation(
            "snapshot_remove",
            "remove a snapshot",
            (_VMS, _NAME._replace(help="the snapshot's name", is_required=True)),
            _snapshot_remove,
        ),
        Operation(
            "ping",
            "check that guests answer",
            (_VMS, Parameter("timeout", Kind.NUMBER, "seconds", default=5.0)),
            _ping,
            changes=False,
        ),
        Operation("exec", "run a program in them; returns at once", _EXEC, _exec),
        Operation(
            "command",
            "a command's state and results",
            (_ID, Parameter("output", Kind.FLAG, "with the output that is kept", default=False)),
            _command,
            changes=False,
        ),
        Operation(
            "commands",
            "all known commands",
            (Parameter("finished", Kind.FLAG, "only those that have, or have not, ended"),),
            _commands,
            changes=False,
        ),
        Operation(
            "signal",
            "send a signal to a command's programs",
            (_ID, Parameter("signal", Kind.WHOLE, "its number", default=15)),
            _signal,
        ),
        Operation("cancel", "kill a command's programs", (_ID,), _cancel),
        Operation("history", "its load in the last hour", (_VM,), _history, changes=False),
        Operation(
            "logs",
            "the last lines of a machine's log",
            (_VM, Parameter("lines", Kind.WHOLE, "so many", default=200)),
            _logs,
            changes=False,
        ),
        Operation(
            "events",
            "what has happened",
            (
                Parameter("after", Kind.WHOLE, "the number of the last one seen", default=0),
                Parameter("most", Kind.WHOLE, "so many", default=1000),
            ),
            _events,
            changes=False,
        ),
        Operation("invite", "let another host's machines onto this bus", (_HOST,), _invite),
        Operation("invitations", "hosts that are invited", (), _invitations, changes=False),
        Operation("revoke", "withdraw a host's invitation and disconnect it", (_HOST,), _revoke),
    )
}
