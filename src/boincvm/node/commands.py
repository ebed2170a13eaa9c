"""The commands that a node was given, whatever runs their programs."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

from boincvm.controller.protocol.commands import (
    CommandEnded,
    ForgetCommand,
    GiveInput,
    OutputTaken,
    RunCommand,
    SignalCommand,
)
from boincvm.controller.protocol.messages import CommandOrder
from boincvm.controller.protocol.program import Result
from boincvm.errors import BoincvmError
from boincvm.guestlink.program import ProgramEnd
from boincvm.node.command import Listener, NodeCommand, RunningProgram, StartProgram

MOST_RUNNING = 64
_REMEMBERED = 10_000
_LARGEST_SIGNAL = 64


class NodeCommands:
    """The commands that a node was given in one of its lives."""

    def __init__(
        self,
        instance: str,
        start: StartProgram,
        send: Callable[[bytes], None],
        group: asyncio.TaskGroup,
    ) -> None:
        """Create an empty set of commands.

        `send` sends a message to the controller, which may be lost. `beat` must be called now and
        then, to send again what the controller has not acknowledged.
        """
        self.instance = instance
        self._start = start
        self._send = send
        self._group = group
        self._commands: dict[str, NodeCommand] = {}
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._waiting: set[asyncio.Task[None]] = set()
        self._held: list[RunCommand] | None = None

    # Saved and restored with the machine.

    def states(self) -> list[dict[str, object]]:
        """Return the states for `load`; only while the guest is stopped."""
        return [command.state() for command in self._commands.values()]

    def hold(self) -> None:
        """Start no programs until `release`."""
        self._held = []

    def release(self) -> None:
        """Start the programs that were held; calling it again is harmless."""
        held, self._held = self._held or [], None
        for message in held:
            self._run(message)

    def freeze(self) -> None:
        """Report no program's end any more: the programs continue in the saved machine.

        Held commands are dropped; the controller sends them again.
        """
        for task in self._waiting:
            task.cancel()

    def load(self, states: Iterable[Mapping[str, object]]) -> None:
        """Restore commands of the same life, whose programs `attach` then brings back.

        Raises KeyError, TypeError, ValueError, GuestProtocolError if a state is invalid.
        """
        for state in states:
            command = NodeCommand.restored(state, self._send)
            self._commands[command.id] = command

    def attach(
        self, bring_back: Callable[[Mapping[str, object], Listener], RunningProgram]
    ) -> None:
        """Attach the programs that still run.

        `bring_back` is given a program's state and its listener.
        """
        for command in self._commands.values():
            if command.program_state is not None:
                program = bring_back(command.program_state, command)
                command.attach(program)
                self._wait_for(command, program)

    def give_up(self, why: str) -> None:
        """Fail the commands whose programs were to be attached."""
        for command in self._commands.values():
            if command.program_state is not None and command.result is None:
                command.end(Result.failed(why))

    # From the controller.

    def handle(self, message: CommandOrder) -> None:
        """Handle a message about a command. Raises GuestProtocolError."""
        command = self._commands.get(message.command_id)
        if isinstance(message, RunCommand):
            if command is None:
                self._run(message)
            else:
                command.drop(message.stdout, message.stderr)
                command.send_all()
            return
        if command is None:
            return  # already forgotten: the message was repeated
        match message:
            case OutputTaken():
                command.drop(message.stdout, message.stderr)
                if message.again:
                    command.send_all()
            case GiveInput():
                command.take_input(message)
            case SignalCommand():
                command.signal(message.signal)
            case ForgetCommand():
                if command.result is not None:
                    self._forget(command)
            case _:
                assert_never(message)

    def _forget(self, command: NodeCommand) -> None:
        del self._commands[command.id]
        self._forgotten[command.id] = None
        while len(self._forgotten) > _REMEMBERED:
            self._forgotten.popitem(last=False)

    def beat(self) -> None:
        """Send again whatever the controller has not acknowledged."""
        for command in self._commands.values():
            command.beat()

    def _run(self, message: RunCommand) -> None:
        command_id = message.command_id
        if command_id in self._commands:
            return  # it was held more than once
        if message.instance != self.instance:
            self._refuse(message, "the guest was restarted")
        elif command_id in self._forgotten:
            self._refuse(message, "it has run before")
        elif self._held is not None:
            if len(self._held) < MOST_RUNNING:
                self._held.append(message)
        elif len(self._commands) >= MOST_RUNNING:
            self._refuse(message, f"{MOST_RUNNING} commands are already running here")
        else:
            self._begin(NodeCommand(command_id, message.request, self._send))

    def _refuse(self, message: RunCommand, error: str) -> None:
        result = Result.failed(error, message.stdout, message.stderr)
        self._send(CommandEnded(message.command_id, result).encode())

    def _begin(self, command: NodeCommand) -> None:
        self._commands[command.id] = command
        try:
            program = command.begin(self._start)
        except BoincvmError as error:
            command.end(Result.failed(error.message, hint=error.hint))
            return
        self._wait_for(command, program)

    def _wait_for(self, command: NodeCommand, program: RunningProgram) -> None:
        task = self._group.create_task(_wait(command, program))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)


async def _wait(command: NodeCommand, program: RunningProgram) -> None:
    try:
        result = _result(await program.wait(), command.seconds)
    except BoincvmError as error:
        result = Result.failed(error.message, hint=error.hint)
    command.end(result)


def _result(end: ProgramEnd, seconds: float) -> Result:
    resources = {
        "wall_time": seconds,
        "user_time": end.user_time,
        "system_time": end.system_time,
        "max_rss": end.max_rss,
        "out_of_memory_kills": end.out_of_memory_kills,
    }
    signal = end.signal if end.code is None else None
    return Result(end.code, signal, "", resources)
