"""What an old client of the VM Controller can call, in the words of the operations.

Where a machine's name is wanted a selector does, too: then the result is a table by name. Unlike
then, results can be read more than once.
"""

import inspect
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from io import FileIO
from pathlib import Path
from typing import Any

from boincvm import __version__
from boincvm.controller import operations
from boincvm.controller.arguments import Json
from boincvm.controller.controller import Controller
from boincvm.controller.vm_state import VmState
from boincvm.errors import HostError, OutputFileError, UsageError
from boincvm.file_digest import open_regular

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
_RESOURCES = (
    "ru_utime", "ru_stime", "ru_maxrss", "ru_ixrss", "ru_idrss", "ru_isrss", "ru_minflt",
    "ru_majflt", "ru_nswap", "ru_inblock", "ru_oublock", "ru_msgsnd", "ru_msgrcv", "ru_nsignals",
    "ru_nvcsw", "ru_nivcsw",
)  # fmt: skip
_PIECE = 1 << 18

Method = Callable[..., Awaitable[object]]


class Methods:
    """`call` finds one by its name."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._unread: set[str] = set()
        self._methods = self._table()

    def _table(self) -> dict[str, Method]:
        table: dict[str, Method] = {
            "listRegisteredVMs": self.list_registered,
            "runCmd": self.run_cmd,
            "listFinishedCmds": self.list_finished,
            "getCmdResults": self.results,
            "getCmdDetails": self.details,
            "ping": self.ping,
            "cpFileToVM": self.copy_to,
            "cpFileFromVM": self.copy_from,
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
        for name, (operation, words) in _LIFE.items():
            table[name] = self._life(operation, words)
        return table

    async def call(self, name: str, parameters: tuple[object, ...]) -> object:
        """Its result. Raises BoincvmError."""
        method = self._methods.get(name)
        if method is None:
            raise UsageError(f"there is no method {name[:64]!r}", hint="system.listMethods()")
        try:
            inspect.signature(method).bind(*parameters)
        except TypeError as error:
            raise UsageError(f"{name}{inspect.signature(method)}: {error}") from error
        return await method(*parameters)

    async def _do(self, operation: str, **arguments: object) -> dict[str, Any]:
        return await operations.call(self._controller, operation, arguments)

    def _life(self, operation: str, words: tuple[str, ...]) -> Method:
        async def of(vm: str, name: str | None = None, description: str = "") -> object:
            given = {"name": name, "description": description}
            asked = {word: given[word] for word in words}
            return await self._each(operation, vm, **asked)

        async def simple(vm: str) -> object:
            return await self._each(operation, vm)

        chosen = of if words else simple
        chosen.__doc__ = operations.OPERATIONS[operation].summary
        return chosen

    async def _each(self, operation: str, vm: str, **asked: object) -> object:
        outcomes = (await self._do(operation, vms=vm, **asked))["outcomes"]
        if set(outcomes) == {vm}:
            if "error" in outcomes[vm]:
                raise HostError(outcomes[vm]["error"]["message"])
            return True
        return {
            one: outcome["error"]["message"] if "error" in outcome else True
            for one, outcome in outcomes.items()
        }

    async def start(self, vm: str, gui_mode: object = False) -> object:  # noqa: ARG002
        """Starts a machine. Its screen, if it has one, is on the web page."""
        return await self._each("start", vm)

    # Who is there.

    async def _vms(self, vms: str = "all") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._do("list", vms=vms))["vms"]
        return found

    async def list_registered(self) -> list[str]:
        """Names of the machines that have announced themselves."""
        return [vm["id"] for vm in await self._vms() if vm["presence"] != "absent"]

    async def list_all(self) -> list[str]:
        """Names of all machines."""
        return [vm["id"] for vm in await self._vms()]

    async def list_running(self) -> list[str]:
        """Names of those that run."""
        return [vm["id"] for vm in await self._vms() if vm["state"] == VmState.RUNNING]

    async def list_with_state(self, state: str | None = None) -> object:
        """Names and states; or the names of those in `state`."""
        found = {vm["id"]: STATES[VmState(vm["state"])] for vm in await self._vms()}
        return found if state is None else [name for name, one in found.items() if one == state]

    async def names_to_ids(self) -> dict[str, str]:
        """Both are the same."""
        return {vm["id"]: vm["id"] for vm in await self._vms()}

    async def state(self, vm: str) -> object:
        """A machine's state, a word of `states`."""
        found = {one["id"]: STATES[VmState(one["state"])] for one in await self._vms(vm)}
        if not found:
            raise UsageError(f"there is no machine {vm[:64]!r}")
        return found[vm] if set(found) == {vm} else found

    async def states(self) -> list[str]:
        """All states that there are."""
        return list(STATES.values())

    async def ping(self, vm: str, timeout_secs: float = 5.0) -> object:
        """Whether the machine answers."""
        answers = (await self._do("ping", vms=vm, timeout=timeout_secs))["answers"]
        told = {one: f"PONG from {one}" for one, took in answers.items() if took is not None}
        if len(answers) > 1:
            return told
        if not told:
            raise HostError(f"{vm[:64]} has not answered within {timeout_secs:g} s")
        return next(iter(told.values()))

    async def create(self, name: str, image: str = "base") -> object:
        """Makes a machine from an image."""
        await self._do("create", name=name, image=image)
        return True

    async def list_snapshots(self, vm: str) -> list[str]:
        """Their names, the oldest one first."""
        return [one["name"] for one in (await self._do("snapshot_list", vm=vm))["snapshots"]]

    async def performance(self, vm: str, key: str | None = None) -> object:
        """Its load and its size; or one value of it."""
        found = [one for one in await self._vms(vm) if one["id"] == vm]
        if not found:
            raise UsageError(f"there is no machine {vm[:64]!r}")
        names = ("cpu", "memory_used", "memory", "cpus", "progress", "started_at")
        told = {name: _number(found[0][name]) for name in names}
        if key is None:
            return told
        if key not in told:
            raise UsageError(f"found {key[:64]!r}, expected one of {', '.join(told)}")
        return told[key]

    # Commands.

    async def run_cmd(
        self,
        vm: str,
        cmd: str,
        args: str | list[str] = "",
        env: dict[str, str] | None = None,
        path: str = "",
        file_for_stdin: str = "",
    ) -> str:
        """Runs a program, and returns the command's id at once."""
        words = args if isinstance(args, list) else str(args).split()
        argv = [cmd, *words]
        if file_for_stdin:  # a file of the guest's, as it was then
            argv = ["sh", "-c", 'exec "$@" <"$0"', file_for_stdin, *argv]
        told = await self._do("exec", vms=vm, argv=argv, env=env or {}, directory=path or "")
        self._unread.add(told["command"])
        return str(told["command"])

    async def list_finished(self) -> list[str]:
        """Ids of commands that have ended, and whose results nobody has read yet."""
        found = (await self._do("commands", finished=True))["commands"]
        return [one["id"] for one in found if one["id"] in self._unread]

    async def results(self, command_id: str) -> object:
        """What a command has written, and how it ended. Of several machines: a table by name."""
        told = await self._do("command", id=command_id, output=True)
        if told["is_finished"]:
            self._unread.discard(command_id)
        answers = {vm: _result(answer) for vm, answer in told["answers"].items()}
        return next(iter(answers.values())) if len(answers) == 1 else answers

    async def details(self, command_id: str) -> object:
        """What was to be run."""
        request = self._controller.desk.commands.find(command_id).request
        return {
            "cmd": request.argv[0],
            "args": list(request.argv[1:]),
            "env": dict(request.environment),
            "path": request.directory,
            "vms": list(self._controller.desk.commands.find(command_id).answers),
        }

    # Files.

    async def copy_to(self, vm: str, local: str, remote: str) -> object:
        """A file of this host goes to the machine."""
        try:
            file = open_regular(Path(local))
        except (OSError, ValueError) as error:
            raise UsageError(f"{local[:200]!r} cannot be read: {error}") from error
        with file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            outcomes = await self._controller.files.put(
                vm, remote, _content(file), is_tree=False, mode=mode & 0o777
            )
        failed = [one["error"] for one in outcomes.values() if "error" in one]
        if failed:
            raise HostError(str(failed[0]["message"]))  # type: ignore[index]
        return True

    async def copy_from(self, vm: str, remote: str, local: str) -> object:
        """A file of the machine's comes to this host."""
        gotten = await self._controller.files.get(vm, remote)
        if gotten.is_tree:
            raise UsageError(f"{remote[:200]!r} is a directory", hint="boincvm cp copies trees")
        target = Path(local)
        part = target.with_name(f".{target.name}.{os.urandom(4).hex()}.part")
        try:
            with part.open("xb") as file:
                async for piece in gotten.chunks:
                    file.write(piece)
            part.chmod(gotten.mode & 0o777)
            part.replace(target)
        except OSError as error:
            raise OutputFileError(f"{local[:200]!r} cannot be written: {error}") from error
        finally:
            part.unlink(missing_ok=True)
        return True

    # Itself.

    async def version(self) -> str:
        """boincvm's."""
        return __version__

    async def list_methods(self) -> list[str]:
        """All names that can be called."""
        return sorted(self._methods)

    async def help(self, method: str) -> str:
        """A method's signature, and a line about it."""
        found = self._methods.get(method)
        if found is None:
            raise UsageError(f"there is no method {method[:64]!r}")
        return f"{method}{inspect.signature(found)}: {inspect.getdoc(found)}"


_LIFE: dict[str, tuple[str, tuple[str, ...]]] = {
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


def _result(answer: dict[str, Any]) -> dict[str, Json]:
    used = answer["resources"]
    known: dict[str, float] = {
        "ru_utime": used.get("user_time", 0.0),
        "ru_stime": used.get("system_time", 0.0),
        "ru_maxrss": float(int(used.get("max_rss", 0)) >> 10),
    }
    code = answer["code"] if answer["code"] is not None else -(answer["signal"] or 0)
    failed = answer["error"] or answer["why"]
    return {
        "out": answer["output"]["stdout"],
        "err": answer["output"]["stderr"] + (failed and f"{failed}\n"),
        "finished": answer["state"] not in ("sent", "running"),
        "exitCodeOrSignal": code if not failed else 127,
        "resources": {name: known.get(name, 0.0) for name in _RESOURCES},
    }


def _number(value: object) -> object:
    """XML-RPC's integers have 32 bits."""
    return float(value) if isinstance(value, int) and abs(value) >= 1 << 31 else value


async def _content(file: FileIO) -> AsyncIterator[bytes]:
    while data := file.read(_PIECE):
        yield data
