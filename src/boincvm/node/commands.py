"""A node's end of what commands/table.py says, whatever it is that runs the programs."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from boincvm.controller.protocol.commands import read_request
from boincvm.controller.protocol.messages import Word, encode_word
from boincvm.errors import BoincvmError
from boincvm.guestlink.program import ProgramEnd
from boincvm.node.command import GuestCommand, Listener, RunningProgram, Start

MOST_RUNNING = 64
_REMEMBERED = 10_000
_LARGEST_SIGNAL = 64


class GuestCommands:
    """`say` sends a message to the controller, and may lose it; `beat` is to be called now and
    then, to say again what the controller seems not to have heard."""

    def __init__(
        self, instance: str, start: Start, say: Callable[[bytes], None], group: asyncio.TaskGroup
    ) -> None:
        self.instance = instance
        self._start = start
        self._say = say
        self._group = group
        self._commands: dict[str, GuestCommand] = {}
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._waiting: set[asyncio.Task[None]] = set()
        self._held: list[Word] | None = None

    # Saved and restored with the machine.

    def states(self) -> list[dict[str, object]]:
        """For `load`; to be asked while the guest is quiet."""
        return [command.state() for command in self._commands.values()]

    def hold(self) -> None:
        """No program begins until `release`."""
        self._held = []

    def release(self) -> None:
        """Those begin that were to; again is harmless."""
        held, self._held = self._held or [], None
        for word in held:
            self._run(word.text("cmd-id"), word)

    def freeze(self) -> None:
        """Nothing is said of any program's end any more: it goes on elsewhere. What was held is
        left to the controller, who says it again."""
        for task in self._waiting:
            task.cancel()

    def load(self, states: Iterable[Mapping[str, object]]) -> None:
        """Commands of the same life, whose programs `attach` then brings back. Raises KeyError,
        TypeError, ValueError where one is no such state."""
        for state in states:
            command = GuestCommand.restored(state, self._say)
            self._commands[command.id] = command

    def attach(
        self, bring_back: Callable[[Mapping[str, object], Listener], RunningProgram]
    ) -> None:
        """`bring_back` takes a program's state and who hears of it."""
        for command in self._commands.values():
            if command.program_state is not None:
                program = bring_back(command.program_state, command)
                command.attach(program)
                self._wait_for(command, program)

    def give_up(self, why: str) -> None:
        """Programs that were to be attached do not come back."""
        for command in self._commands.values():
            if command.program_state is not None and command.result is None:
                command.end({"error": why})

    # What the controller says.

    def take(self, word: Word) -> None:
        """A word of the controller's that begins with CMD_. Raises GuestProtocolError."""
        command_id = word.text("cmd-id")
        command = self._commands.get(command_id)
        if word.name == "CMD_RUN":
            if command is None:
                self._run(command_id, word)
            else:
                command.drop(word.table)
                command.say_all()
        elif command is None:
            return  # forgotten: the controller has asked twice
        elif word.name == "CMD_TAKEN":
            command.drop(word.table)
            if word.table.get("again") is True:
                command.say_all()
        elif word.name == "CMD_INPUT":
            command.take_input(word)
        elif word.name == "CMD_SIGNAL":
            command.signal(word.whole("signal", _LARGEST_SIGNAL))
        elif word.name == "CMD_FORGET" and command.result is not None:
            del self._commands[command_id]
            self._forgotten[command_id] = None
            while len(self._forgotten) > _REMEMBERED:
                self._forgotten.popitem(last=False)

    def beat(self) -> None:
        """Says again whatever the controller has not taken."""
        for command in self._commands.values():
            command.beat()

    def _run(self, command_id: str, word: Word) -> None:
        if command_id in self._commands:
            return  # it was held twice
        if word.table.get("instance") != self.instance:
            self._refuse(word, "the guest was started anew")
        elif command_id in self._forgotten:
            self._refuse(word, "it has run before")
        elif self._held is not None:
            read_request(word)
            if len(self._held) < MOST_RUNNING:
                self._held.append(word)
        elif len(self._commands) >= MOST_RUNNING:
            self._refuse(word, f"{MOST_RUNNING} commands are running here already")
        else:
            self._begin(GuestCommand(command_id, read_request(word), self._say))

    def _refuse(self, word: Word, error: str) -> None:
        names = ("cmd-id", "stdout", "stderr")
        told = {name: word.table.get(name, 0) for name in names}
        self._say(encode_word("CMD_RESULT", {**told, "error": error}))

    def _begin(self, command: GuestCommand) -> None:
        self._commands[command.id] = command
        try:
            program = command.begin(self._start)
        except BoincvmError as error:
            command.end({"error": error.message})
            return
        self._wait_for(command, program)

    def _wait_for(self, command: GuestCommand, program: RunningProgram) -> None:
        task = self._group.create_task(_wait(command, program))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)


async def _wait(command: GuestCommand, program: RunningProgram) -> None:
    try:
        end = _table_of_end(await program.wait(), command.seconds)
    except BoincvmError as error:
        end = {"error": error.message}
    command.end(end)


def _table_of_end(end: ProgramEnd, seconds: float) -> dict[str, object]:
    told: dict[str, object] = {"code": end.code} if end.code is not None else {"signal": end.signal}
    told["resources"] = {
        "wall_time": seconds,
        "user_time": end.user_time,
        "system_time": end.system_time,
        "max_rss": end.max_rss,
        "out_of_memory_kills": end.out_of_memory_kills,
    }
    return told
