"""The XML-RPC methods of the old VM Controller, implemented by the controller's operations.

Wherever a machine's name is expected, a selector is accepted, too; the result is then a table by
name. Unlike in the old VM Controller, results can be read more than once.
"""

import inspect
from pathlib import Path
from typing import Any

from boincvm import __version__
from boincvm.controller import operations
from boincvm.controller.controller import Controller
from boincvm.controller.protocol.vm_state import VmState
from boincvm.controller.serve.xml_rpc_calls import Method, check_call, shown_signature
from boincvm.controller.serve.xml_rpc_commands import CommandMethods
from boincvm.controller.serve.xml_rpc_files import FileMethods
from boincvm.errors import HostError, UsageError

STATES = {
    VmState.UNKNOWN: "Unknown",
    VmState.POWERED_OFF: "PoweredOff",
    VmState.STARTING: "Starting",
    VmState.RUNNING: "Running",
    VmState.PAUSED: "Paused",
    VmState.SAVING: "Saving",
    VmState.SAVED: "Saved",
    VmState.RESTORING: "Restoring",
    VmState.STOPPING: "Stopping",
    VmState.ABORTED: "Aborted",
    VmState.STUCK: "Stuck",
    VmState.DISCARDING: "Discarding",
}
_STATISTICS = ("cpu", "memory_used", "memory", "cpus", "progress", "started_at")


class Methods:
    """All methods, called by name with `call`. `shared`: see FileMethods."""

    def __init__(self, controller: Controller, shared: Path | None) -> None:
        self._controller = controller
        self._shared = shared
        self._methods = self._table()

    def _table(self) -> dict[str, Method]:
        commands = CommandMethods(self._controller)
        files = FileMethods(self._controller, self._shared)
        table: dict[str, Method] = {
            "listRegisteredVMs": self.list_registered,
            "runCmd": commands.run,
            "listFinishedCmds": commands.list_finished,
            "getCmdResults": commands.results,
            "getCmdDetails": commands.details,
            "ping": self.ping,
            "cpFileToVM": files.copy_to,
            "cpFileFromVM": files.copy_from,
            "help": self.help,
            "start": self.start,
            "getState": self.state,
            "states": self.states,
            "listAvailableVMs": self.list_all,
            "listVMs": self.list_all,
            "listRunningVMs": self.list_running,
            "listVMsWithState": self.list_with_state,
            "listSnapshots": self.list_snapshots,
            "createVM": self.create,
            "getNamesToIdsMapping": self.names_to_ids,
            "getIdsToNamesMapping": self.names_to_ids,
            "getPerformanceData": self.performance,
            "getStats": self.performance,
            "version": self.version,
            "system.listMethods": self.list_methods,
            "system.methodHelp": self.help,
        }
        for name, (operation, parameters) in _LIFECYCLE.items():
            table[name] = self._lifecycle(operation, parameters)
        return table

    async def call(self, name: str, parameters: tuple[object, ...]) -> object:
        """Call a method and return its result. Raises BoincvmError."""
        method = self._methods.get(name)
        if method is None:
            raise UsageError(f"there is no method {name[:64]!r}", hint="system.listMethods()")
        return await method(*check_call(name, method, parameters))

    async def _do(self, operation: str, **arguments: object) -> dict[str, Any]:
        return await operations.call(self._controller, operation, arguments)

    def _lifecycle(self, operation: str, parameters: tuple[str, ...]) -> Method:
        async def of(vm: str, name: str | None = None, description: str = "") -> object:
            given = {"name": name, "description": description}
            options = {parameter: given[parameter] for parameter in parameters}
            return await self._each(operation, vm, **options)

        async def simple(vm: str) -> object:
            return await self._each(operation, vm)

        chosen = of if parameters else simple
        chosen.__doc__ = operations.OPERATIONS[operation].summary
        return chosen

    async def _each(self, operation: str, vm: str, **options: object) -> object:
        outcomes = (await self._do(operation, vms=vm, **options))["outcomes"]
        if set(outcomes) == {vm} and "error" in outcomes[vm]:
            error = outcomes[vm]["error"]
            raise HostError(error["message"], hint=error["hint"])
        results = {
            name: outcome["error"]["message"] if "error" in outcome else True
            for name, outcome in outcomes.items()
        }
        return _one_or_all(vm, results)

    async def start(self, vm: str, guiMode: object = False) -> object:  # noqa: ARG002, N803
        """Start a machine. Its screen, if it has one, is on the web page."""
        return await self._each("start", vm)

    # Machines.

    async def _vms(self, vms: str = "all") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._do("list", vms=vms))["vms"]
        return found

    async def list_registered(self) -> list[str]:
        """Return the names of the machines that have announced themselves."""
        return [vm["id"] for vm in await self._vms() if vm["presence"] != "absent"]

    async def list_all(self) -> list[str]:
        """Return the names of all machines."""
        return [vm["id"] for vm in await self._vms()]

    async def list_running(self) -> list[str]:
        """Return the names of all running machines."""
        return [vm["id"] for vm in await self._vms() if vm["state"] == VmState.RUNNING]

    async def list_with_state(self, state: str | None = None) -> object:
        """Return all names and states, or the names of the machines in `state`."""
        found = {vm["id"]: _state(vm) for vm in await self._vms()}
        return (
            found
            if state is None
            else [name for name, machine_state in found.items() if machine_state == state]
        )

    async def names_to_ids(self) -> dict[str, str]:
        """Return a table of names and ids, which are the same."""
        return {vm["id"]: vm["id"] for vm in await self._vms()}

    async def state(self, vm: str) -> object:
        """Return a machine's state, one of `states`."""
        return _one_or_all(vm, {machine["id"]: _state(machine) for machine in await self._vms(vm)})

    async def states(self) -> list[str]:
        """Return all possible states."""
        return list(STATES.values())

    async def ping(self, vm: str, timeout_secs: float = 5.0) -> object:
        """Ping a machine; of several, return those that answer."""
        options = await self._do("ping", vms=vm, timeout=timeout_secs)
        answers, refused = options["answers"], options["refused"]
        results = {name: f"PONG from {name}" for name, took in answers.items() if took is not None}
        if vm in refused:
            raise HostError(refused[vm]["message"], hint=refused[vm]["hint"])
        if vm in answers and not results:
            raise HostError(f"{vm} has not answered within {timeout_secs:g} s")
        return _one_or_all(vm, results)

    async def create(self, name: str, image: str = "base") -> object:
        """Create a machine from an image."""
        await self._do("create", name=name, image=image)
        return True

    async def list_snapshots(self, vm: str) -> list[str]:
        """Return the names of a machine's snapshots, oldest first."""
        found = (await self._do("snapshot_list", vm=vm)).get("snapshots")
        snapshots = found if isinstance(found, list) else []  # another host's result is unchecked
        return [str(one.get("name")) for one in snapshots if isinstance(one, dict)]

    async def performance(self, vm: str, key: str | None = None) -> object:
        """Return a machine's load and size, or one value of them."""
        names = _STATISTICS if key in (None, "*") else (key,)
        if not set(names) <= set(_STATISTICS):
            raise UsageError(f"found {names[0]!r}, expected one of {', '.join(_STATISTICS)}")
        results: dict[str, object] = {}
        for machine in await self._vms(vm):
            values = {name: machine[name] for name in _STATISTICS}
            results[machine["id"]] = values if len(names) > 1 else values[str(key)]
        return _one_or_all(vm, results)

    # The controller.

    async def version(self) -> str:
        """Return boincvm's version."""
        return __version__

    async def list_methods(self) -> list[str]:
        """Return the names of all methods."""
        return sorted(self._methods)

    async def help(self, methodName: str | None = None) -> str:  # noqa: N803
        """Return a method's signature and description, or those of all methods."""
        if not methodName:
            return "\n\n".join([await self.help(name) for name in await self.list_methods()])
        found = self._methods.get(methodName)
        if found is None:
            raise UsageError(f"there is no method {methodName[:64]!r}")
        return f"{methodName}{shown_signature(found)}:\n{inspect.getdoc(found)}"


_LIFECYCLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "shutdown": ("stop", ()),
    "reset": ("reset", ()),
    "powerOff": ("power_off", ()),
    "pause": ("pause", ()),
    "unpause": ("resume", ()),
    "resume": ("resume", ()),
    "saveState": ("save", ()),
    "discardState": ("discard", ()),
    "removeVM": ("remove", ()),
    "saveSnapshot": ("snapshot_take", ("name", "description")),
    "takeSnapshot": ("snapshot_take", ("name", "description")),
    "restoreSnapshot": ("snapshot_restore", ("name",)),
    "deleteSnapshot": ("snapshot_remove", ("name",)),
}


def _state(vm: dict[str, Any]) -> str:
    return STATES[VmState(vm["state"])]


def _one_or_all(vm: str, results: dict[str, Any]) -> object:
    """Return the value of `vm`, or the whole table. Raises UsageError if it is empty."""
    if not results:
        raise UsageError(f"there is no machine {vm[:64]!r}", hint="listVMs() has all names")
    return results[vm] if set(results) == {vm} else results
