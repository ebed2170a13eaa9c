"""A guest's end of the words of commands.py, whatever it is that runs the programs."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

from boincvm.controller.command import Request
from boincvm.controller.output_log import OutputLog
from boincvm.controller.words import LONGEST_TABLE, Word, encode_word
from boincvm.errors import BoincvmError, GuestProtocolError
from boincvm.guestlink.program import ProgramEnd

PIECE = 1 << 16
"""Bytes of output in one message."""
MOST_WAITING = 4 << 20
"""Bytes of output that wait for the controller; the program waits before, for want of credit."""
MOST_RUNNING = 64
_REMEMBERED = 10_000
_LARGEST_SIGNAL = 64
_KILL = 9


class RunningProgram(Protocol):
    """As `guestlink.program.GuestProgram` is one."""

    def grant(self, count: int) -> None: ...

    def signal(self, number: int) -> None: ...

    async def wait(self) -> ProgramEnd:
        """Raises BoincvmError."""


Start = Callable[[Request, Callable[[str, bytes], None]], RunningProgram]
"""Starts a program whose output goes to the second one. May raise BoincvmError."""


class _Command:
    def __init__(self, command_id: str) -> None:
        self.id = command_id
        self.program: RunningProgram | None = None
        self.outputs = {"stdout": OutputLog(MOST_WAITING), "stderr": OutputLog(MOST_WAITING)}
        self.result: dict[str, object] | None = None
        self.is_timed_out = False
        self.alarm: asyncio.TimerHandle | None = None


class GuestCommands:
    """`say` sends a message to the controller, and may lose it; `beat` is to be called now and
    then, to say again what the controller seems not to have heard."""

    def __init__(
        self, instance: str, start: Start, say: Callable[[bytes], None], group: asyncio.TaskGroup
    ) -> None:
        self._instance = instance
        self._start = start
        self._say = say
        self._group = group
        self._commands: dict[str, _Command] = {}
        self._forgotten: OrderedDict[str, None] = OrderedDict()

    def take(self, word: Word) -> None:
        """A word of the controller's that begins with CMD_. Raises GuestProtocolError."""
        command_id = word.text("cmd-id")
        command = self._commands.get(command_id)
        if word.name == "CMD_RUN":
            if command is None:
                self._run(command_id, word)
            else:
                self._drop(command, word.table)
                self._say_all(command)
        elif command is None:
            return  # forgotten: the controller has asked twice
        elif word.name == "CMD_TAKEN":
            self._drop(command, word.table)
            if word.table.get("again") is True:
                self._say_all(command)
        elif word.name == "CMD_SIGNAL":
            if command.program is not None and command.result is None:
                command.program.signal(word.whole("signal", _LARGEST_SIGNAL))
        elif word.name == "CMD_FORGET" and command.result is not None:
            del self._commands[command_id]
            self._forgotten[command_id] = None
            while len(self._forgotten) > _REMEMBERED:
                self._forgotten.popitem(last=False)

    def beat(self) -> None:
        """Says again whatever the controller has not taken."""
        for command in self._commands.values():
            waits = any(log.end > log.first for log in command.outputs.values())
            if waits or command.result is not None:
                self._say_all(command)

    def _run(self, command_id: str, word: Word) -> None:
        if word.table.get("instance") != self._instance:
            self._refuse(word, "the guest was started anew")
        elif command_id in self._forgotten:
            self._refuse(word, "it has run before")
        elif len(self._commands) >= MOST_RUNNING:
            self._refuse(word, f"{MOST_RUNNING} commands are running here already")
        else:
            self._begin(_Command(command_id), read_request(word))

    def _refuse(self, word: Word, error: str) -> None:
        names = ("cmd-id", "stdout", "stderr")
        told = {name: word.table.get(name, 0) for name in names}
        self._say(encode_word("CMD_RESULT", {**told, "error": error}))

    def _begin(self, command: _Command, request: Request) -> None:
        def take(stream: str, data: bytes) -> None:
            log = command.outputs[stream]
            begin = log.end
            log.append(data)
            self._say_output(command, stream, begin)

        self._commands[command.id] = command
        self._say(encode_word("CMD_STARTED", {"cmd-id": command.id}))
        try:
            command.program = self._start(request, take)
        except BoincvmError as error:
            self._end(command, {"error": error.message})
            return
        if request.timeout is not None:
            loop = asyncio.get_running_loop()
            command.alarm = loop.call_later(request.timeout, self._time_out, command)
        self._group.create_task(self._wait(command, command.program))

    async def _wait(self, command: _Command, program: RunningProgram) -> None:
        try:
            end = _table_of_end(await program.wait())
        except BoincvmError as error:
            end = {"error": error.message}
        finally:
            if command.alarm is not None:
                command.alarm.cancel()
        self._end(command, end)

    def _end(self, command: _Command, end: dict[str, object]) -> None:
        if command.is_timed_out:
            end["timed-out"] = True
        sizes = {name: log.end for name, log in command.outputs.items()}
        command.result = {"cmd-id": command.id, **end, **sizes}
        self._say(encode_word("CMD_RESULT", command.result))

    def _time_out(self, command: _Command) -> None:
        command.is_timed_out = True
        if command.program is not None:
            command.program.signal(_KILL)

    def _drop(self, command: _Command, table: Mapping[str, object]) -> None:
        """What the controller has is not kept, and the program may say as much again."""
        for name, log in command.outputs.items():
            taken = table.get(name)
            if not isinstance(taken, int) or not 0 <= taken <= log.end:
                raise GuestProtocolError("the controller has taken what was not said")
            count = max(taken - log.first, 0)
            log.drop(taken)
            if count and command.program is not None and command.result is None:
                command.program.grant(count)

    def _say_all(self, command: _Command) -> None:
        for name, log in command.outputs.items():
            self._say_output(command, name, log.first)
        if command.result is not None:
            self._say(encode_word("CMD_RESULT", command.result))
        else:
            self._say(encode_word("CMD_STARTED", {"cmd-id": command.id}))

    def _say_output(self, command: _Command, stream: str, offset: int) -> None:
        """All from `offset` on; at least where that is."""
        log = command.outputs[stream]
        is_said = False
        while offset < log.end or not is_said:
            offset, data = log.read(offset, PIECE)
            table = {"cmd-id": command.id, "stream": stream, "offset": offset, "first": log.first}
            self._say(encode_word("CMD_OUTPUT", table, data))
            offset += len(data)
            is_said = True


def read_request(word: Word) -> Request:
    """Of a CMD_RUN. Raises GuestProtocolError."""
    table = word.table
    argv, environment = table.get("argv"), table.get("env", {})
    directory, timeout = table.get("directory", ""), table.get("timeout")
    is_good = (
        isinstance(argv, list)
        and bool(argv)
        and isinstance(environment, dict)
        and all(_is_argument(one) for one in (*argv, *environment, *environment.values()))
        and _is_argument(directory)
        and (timeout is None or (isinstance(timeout, int | float) and timeout > 0))
    )
    if not is_good:
        raise GuestProtocolError("a command on the bus makes no sense")
    return Request(tuple(argv), environment, str(directory), timeout, word.data)  # type: ignore[arg-type]


def _is_argument(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and len(value) <= LONGEST_TABLE


def _table_of_end(end: ProgramEnd) -> dict[str, object]:
    told: dict[str, object] = {"code": end.code} if end.code is not None else {"signal": end.signal}
    told["resources"] = {
        "user_time": end.user_time,
        "system_time": end.system_time,
        "max_rss": end.max_rss,
        "out_of_memory_kills": end.out_of_memory_kills,
    }
    return told
