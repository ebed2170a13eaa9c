"""The XML-RPC methods for commands, as old clients of the VM Controller know them."""

import secrets
from typing import Any
from weakref import WeakKeyDictionary

from boincvm.controller import operations
from boincvm.controller.controller import Controller
from boincvm.json_value import Json

_PREFIX = "rpc-"
"""The prefix of ids chosen here, so that commands of other interfaces are not listed."""
_RESOURCES = (
    "ru_utime", "ru_stime", "ru_maxrss", "ru_ixrss", "ru_idrss", "ru_isrss", "ru_minflt",
    "ru_majflt", "ru_nswap", "ru_inblock", "ru_oublock", "ru_msgsnd", "ru_msgrcv", "ru_nsignals",
    "ru_nvcsw", "ru_nivcsw",
)  # fmt: skip
_NOT_STARTED = 127

# Shared by all servers of a controller.
_READ: WeakKeyDictionary[Controller, set[str]] = WeakKeyDictionary()


class CommandMethods:
    """Methods for commands; their XML-RPC names are in xml_rpc_methods.py."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._read = _READ.setdefault(controller, set())

    async def _do(self, operation: str, **arguments: object) -> dict[str, Any]:
        return await operations.call(self._controller, operation, arguments)

    async def run(
        self,
        vm: str,
        cmd: str,
        args: str | list[str] = "",
        env: dict[str, str] | None = None,
        path: str | None = None,
        fileForStdin: str | None = None,  # noqa: N803 - the original name
    ) -> str:
        """Run a program; return the command's id at once. fileForStdin: a file in the machine."""
        argv = args.split() if isinstance(args, str) else [str(argument) for argument in args]
        argv = [cmd, *argv]
        if fileForStdin:
            argv = ["sh", "-c", 'exec "$@" <"$0"', fileForStdin, *argv]
        command = await self._do(
            "exec",
            vms=vm,
            argv=argv,
            env={name: str(value) for name, value in (env or {}).items()},
            directory=path or "",
            id=_PREFIX + secrets.token_hex(8),
        )
        return str(command["command"])

    async def list_finished(self) -> list[str]:
        """Return the ids of ended commands whose results nobody has read yet."""
        known = self._controller.hub.commands.all()
        self._read &= {command.id for command in known}
        return [
            command.id
            for command in known
            if command.is_finished
            and command.id.startswith(_PREFIX)
            and command.id not in self._read
        ]

    async def results(self, cmdId: str) -> object:  # noqa: N803
        """Return a command's output and how it ended, any number of times.

        For several machines the result is a table by name.
        """
        command = await self._do("command", id=cmdId, output=True)
        if command["is_finished"]:
            self._read.add(cmdId)
        answers = {vm: _result(answer) for vm, answer in command["answers"].items()}
        return next(iter(answers.values())) if len(answers) == 1 else answers

    async def details(self, cmdId: str) -> object:  # noqa: N803
        """Return what the command was to run."""
        command = self._controller.hub.commands.find(cmdId)
        request = command.request
        return {
            "timestamp": command.submitted_at,
            "cmd": request.argv[0],
            "args": list(request.argv[1:]),
            "env": dict(request.environment),
            "path": request.directory,
            "vms": list(command.answers),
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
        "exitCodeOrSignal": code if not failed else _NOT_STARTED,
        "resources": {name: known.get(name, 0.0) for name in _RESOURCES},
    }
