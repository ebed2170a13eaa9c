"""Decide how long commands are kept, and how much of their output."""

import time
from collections import deque
from collections.abc import Callable, Iterable

from boincvm.controller.commands.command import Answer, Command
from boincvm.controller.commands.journal import Journal

RETENTION_TIME = 24 * 3600.0
"""Seconds for which a command is kept after its end."""
MOST_COMMANDS = 10_000
MOST_OUTPUT = 256 << 20
"""Bytes of output of all commands together."""


class RetainedCommands:
    """The commands that are kept, in the order in which they were submitted.

    Each is kept for RETENTION_TIME seconds after its end, or less if there are too many commands.
    If there is too much output, that of the commands that ended first is deleted; if that is not
    enough, so is the older half of the output of the others.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self._clock = clock
        self._commands: dict[str, Command] = {}
        # Both are ordered by when the commands ended.
        self._ended: deque[Command] = deque()
        self._with_output: deque[Command] = deque()
        self._size = 0

    def get(self, command_id: str) -> Command | None:
        return self._commands.get(command_id)

    def all(self) -> list[Command]:
        """Return all commands, oldest first."""
        self.expire()
        return list(self._commands.values())

    @property
    def are_too_many(self) -> bool:
        """Tell whether there is no room for another command."""
        return len(self._commands) >= MOST_COMMANDS

    def add(self, command: Command) -> None:
        """Add a new command, or one that was stored by an earlier controller."""
        self._commands[command.id] = command
        self._size += _size((command,))
        if command.is_finished:
            self.end(command)
        self._make_room()

    def end(self, command: Command) -> None:
        """Record that a command has ended."""
        command.finished_at = self._clock()
        self._ended.append(command)
        self._with_output.append(command)

    def take_output(self, answer: Answer, stream: str, offset: int, data: bytes) -> None:
        """Keep output from `offset` on; what is missing before it will not come."""
        log = answer.outputs[stream]
        before = log.size
        if offset > log.end:
            log.skip(offset)
        log.append(data)
        self._size += log.size - before
        self._make_room()

    def expire(self) -> None:
        """Forget commands that have expired."""
        oldest = self._clock() - RETENTION_TIME
        while self._ended and (self.are_too_many or (self._ended[0].finished_at or 0) < oldest):
            command = self._ended.popleft()
            if self._with_output and self._with_output[0] is command:
                self._with_output.popleft()
            self._size -= _size((command,))
            del self._commands[command.id]
            self._journal.forgotten(command.id)

    def _make_room(self) -> None:
        while self._size > MOST_OUTPUT and self._with_output:
            command = self._with_output.popleft()
            self._size -= _size((command,))
            for answer in command.answers.values():
                for log in answer.outputs.values():
                    log.drop(log.end)
            self._journal.output_forgotten(command.id)
        while self._size > MOST_OUTPUT:
            for command in self._commands.values():
                for answer in command.answers.values():
                    for log in answer.outputs.values():
                        log.drop(log.first + (log.size + 1) // 2)
            self._size = _size(self._commands.values())


def _size(commands: Iterable[Command]) -> int:
    return sum(
        log.size
        for command in commands
        for answer in command.answers.values()
        for log in answer.outputs.values()
    )
