"""A command to guests, and what each has answered so far."""

import asyncio
import time
from enum import Enum, auto
from typing import Self

from boincvm.controller.protocol.commands import Request, Result
from boincvm.controller.protocol.output_log import OutputLog

KEPT_OUTPUT = 1 << 20
"""Bytes of each stream of each guest: the last of it."""


class State(Enum):
    """How far one guest's answer is; the last four are final."""

    SENT = auto()
    """The guest has said nothing of it yet."""
    RUNNING = auto()
    ENDED = auto()
    """`result` has how."""
    LOST = auto()
    """The guest has gone, or was started anew, and nobody knows how far it came."""
    DROPPED = auto()
    """Not wanted any more: cancelled, too late, or enough others had answered."""
    REFUSED = auto()
    """The machine was in no state for it, and the program did not begin."""


class Answer:
    """What one guest has answered."""

    def __init__(self, guest_id: str, instance: str) -> None:
        self.guest_id = guest_id
        self.instance = instance
        """Of the guest when it was asked."""
        self.state = State.SENT
        self.result: Result | None = None
        self.why = ""
        """Why it is in its state, where it has not ended by itself."""
        self.progress: float | None = None
        """From 0 to 1, if its program says so."""
        self.input_heard = 0
        """Bytes of the command's input that the guest has."""
        self.input_taken = 0
        """Bytes of it that its program has."""
        self.input_ends = False
        """The guest has the end of it."""
        self.outputs = {"stdout": OutputLog(KEPT_OUTPUT), "stderr": OutputLog(KEPT_OUTPUT)}

    @classmethod
    def refused(cls, guest_id: str, why: str) -> Self:
        """Return that of a machine that cannot be asked."""
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
        """Whether nothing is missing of what the result says that there was."""
        result = self.result
        ends = (self.outputs["stdout"].end, self.outputs["stderr"].end)
        return result is not None and ends == (result.stdout, result.stderr)


class Command:
    """A request to guests, and their answers."""

    def __init__(self, command_id: str, request: Request, wanted: int) -> None:
        self.id = command_id
        self.request = request
        self.wanted = wanted
        """So many guests' answers are enough."""
        self.answers: dict[str, Answer] = {}
        self.finished_at: float | None = None
        """By the table's clock."""
        self.submitted_at = time.time()
        """Seconds since 1970."""
        self.ends_at: float | None = None
        """When no more answers are waited for, in seconds since 1970."""
        self._news = asyncio.Event()

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None

    def notify(self) -> None:
        """Wake whoever waits in `changed`."""
        self._news.set()
        self._news = asyncio.Event()

    async def changed(self) -> None:
        """Wait until there is more output, another state, or the end."""
        await self._news.wait()

    async def finished(self) -> None:
        """Wait until no answer is open any more."""
        while not self.is_finished:
            await self.changed()
