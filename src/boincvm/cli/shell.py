"""`boincvm shell`: opens a shell in a machine of the controller on the user's own terminal."""

import argparse
import os
from typing import TYPE_CHECKING

from boincvm.cli import controller_options
from boincvm.errors import BoincvmError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.standard_error import write_line

if TYPE_CHECKING:
    from boincvm.client.client import Client, Table

_STANDARD_INPUT, _STANDARD_OUTPUT = 0, 1
_EPILOG = """\
The exit code is the shell's. Leave it with exit or, if it does not respond, with ~. after Enter:
its programs then get a hang-up (SIGHUP).

examples:
  boincvm shell web.1
  boincvm shell web.1 -- top
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    controller_options.add_controller(parser)
    parser.usage = "boincvm shell [options] VM [-- PROGRAM [ARGUMENT ...]]"
    parser.epilog = _EPILOG
    vm = parser.add_argument(
        "vm", metavar="VM", help="the machine, or a selector that matches only one"
    )
    controller_options.completed(vm)


def run(arguments: argparse.Namespace) -> int:
    """Run the shell until it has ended. Raises BoincvmError."""
    from boincvm.client.terminal_session import TerminalSession
    from boincvm.guestlink.terminal.local import check_terminal, size_of
    from boincvm.guestlink.terminal.protocol import shell_argv, shell_environment

    check_terminal(_STANDARD_INPUT, "a shell", hint="boincvm exec runs programs without one")
    client = controller_options.client_of(arguments)
    vm = _only(client, arguments.vm)
    answer = client.call(
        "exec",
        vms=vm,
        argv=shell_argv(size_of(_STANDARD_INPUT), arguments.command or ()),
        env=shell_environment(os.environ),
        keep_input=True,
    )
    remote = _Shell(client, str(answer["command"]))
    if not TerminalSession(remote, _STANDARD_INPUT).run():
        write_line(f"\nleft {vm}")
        return ExitCode.HUNG_UP
    return _end(remote.command)


def _only(client: "Client", selector: str) -> str:
    """Return the id of the one machine that `selector` matches. Raises UsageError."""
    vms = controller_options.tables_in(client.call("list", vms=selector), "vms")
    if not vms:
        raise UsageError(f"{selector[:80]!r} matches no machine", hint="boincvm ls shows them")
    if len(vms) > 1:
        some = ", ".join(str(vm["id"]) for vm in vms[:3])
        raise UsageError(
            f"{selector[:80]!r} matches {len(vms)} machines, expected one",
            hint=f"choose one of them, like {some}; boincvm exec runs programs in several",
        )
    return str(vms[0]["id"])


class _Shell:
    """The remote end, which is a command of the controller. `command`: how it ended."""

    def __init__(self, client: "Client", command_id: str) -> None:
        self._client = client
        self._id = command_id
        self.command: Table = {}

    def show(self) -> None:
        from boincvm.client.run import Screen, follow

        self.command = follow(self._client.output(self._id), Screen(_write, is_prefixed=False))

    def send(self, data: bytes, *, ends: bool) -> None:
        self._client.give_input(self._id, data, ends=ends)

    def cancel(self) -> None:
        self._client.call("cancel", id=self._id)


def _write(stream: str, data: bytes) -> None:
    # stderr has lines of plain text, and the terminal is raw.
    left = memoryview(data if stream == "stdout" else data.replace(b"\n", b"\r\n"))
    while left:
        left = left[os.write(_STANDARD_OUTPUT, left) :]


def _end(command: "Table") -> int:
    from boincvm.client.run import ends_of

    for end in ends_of(command).values():
        if end.is_ours:
            raise BoincvmError(
                end.message, hint=end.hint, exit_code=controller_options.known_code(end.code)
            )
        return end.code
    return 0
