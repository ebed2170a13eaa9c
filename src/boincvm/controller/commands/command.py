"""A command to guests, and the answers that have come so far."""

import asyncio
import time
from enum import Enum, auto
from typing import Self

from boincvm.controller.protocol.output_log import OutputLog
from boincvm.controller.protocol.program import Request, Result

OUTPUT_CAPACITY = 1 << 20
"""Bytes kept of each output stream of each guest: the last ones."""


class State(Enum):
    """The state of one guest's answer; the last four are final."""

    SENT = auto()
    """The guest has not reacted yet."""
    RUNNING = auto()
    ENDED = auto()
    """`result` tells how."""
    LOST = auto()
    """The guest has gone or was restarted; how far the program came is unknown."""
    DROPPED = auto()
    """No longer needed: cancelled, too late, or enough others had answered."""
    REFUSED = auto()
    """The machine's state did not allow it, and the program was not started."""


class Answer:
    """The answer of one guest."""

    def __init__(self, guest_id: str, instance: str) -> None:
        self.guest_id = guest_id
        self.instance = instance
        """The guest's life when it was asked."""
        self.state = State.SENT
        self.result: Result | None = None
        self.why = ""
        """Why the answer is in its state, unless the program ended by itself."""
        self.progress: float | None = None
        """From 0 to 1; None if the program does not report it."""
        self.input_confirmed = 0
        """Bytes of the command's input that the guest has received."""
        self.input_taken = 0
        """Bytes of the input that the program has read."""
        self.input_ends = False
        """The guest knows where the input ends."""
        self.outputs = {"stdout": OutputLog(OUTPUT_CAPACITY), "stderr": OutputLog(OUTPUT_CAPACITY)}

    @classmethod
    def refused(cls, guest_id: str, why: str) -> Self:
        """Return the answer of a machine that cannot be asked."""
        answer = cls(guest_id, "")
        answer.state, answer.why = State.REFUSED, why
        return answer

    @property
    def is_open(self) -> bool:
        return self.state in (State.SENT, State.RUNNING)

    @property
    def wants_input(self) -> bool:
        return self.is_open and self.result is None

    @property
    def has_all_output(self) -> bool:
        """Tell whether all output has come that the result announces."""
        result = self.result
        ends = (self.outputs["stdout"].end, self.outputs["stderr"].end)
        return result is not None and ends == (result.stdout, result.stderr)


class Command:
    """A request to guests, and their answers."""

    def __init__(self, command_id: str, request: Request, wanted: int) -> None:
        self.id = command_id
        self.request = request
        self.wanted = wanted
        """How many guests' answers are enough."""
        self.answers: dict[str, Answer] = {}
        self.finished_at: float | None = None
        """Seconds of the table's clock; None while the command runs."""
        self.submitted_at = time.time()
        """Seconds since 1970."""
        self.ends_at: float | None = None
        """When to stop waiting for answers, in seconds since 1970; None for no limit."""
        self._news = asyncio.Event()

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None

    def notify(self) -> None:
        """Wake all callers of `changed`."""
        self._news.set()
        self._news = asyncio.Event()

    async def changed(self) -> None:
        """Wait for more output, another state, or the end."""
        await self._news.wait()

    async def finished(self) -> None:
        """Wait until no answer is open."""
        while not self.is_finished:
            await self.changed()
