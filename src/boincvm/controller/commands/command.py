"""A command to guests, and what each has answered so far."""

import asyncio
import time
from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple, Self

from boincvm.controller.protocol.commands import Request
from boincvm.controller.protocol.messages import Word
from boincvm.controller.protocol.output_log import OutputLog
from boincvm.errors import GuestProtocolError
from boincvm.json_value import LARGEST

KEPT_OUTPUT = 1 << 20
"""Bytes of each stream of each guest: the last of it."""
_LARGEST_SIGNAL = 64
_LARGEST_CODE = 255
_MOST_RESOURCES = 32
_LONGEST_ERROR = 1000


class State(Enum):
    """Of one guest's answer; the last four are final."""

    SENT = auto()
    """The guest has not said a word of it yet."""
    RUNNING = auto()
    ENDED = auto()
    """`result` has how."""
    LOST = auto()
    """The guest has gone, or was started anew, and nobody knows how far it came."""
    DROPPED = auto()
    """Not wanted any more: cancelled, too late, or enough others had answered."""
    REFUSED = auto()
    """The machine was in no state for it, and the program did not begin."""


class Result(NamedTuple):
    """How a program ended: `code` or `signal`; or why it did not start: `error`. resources:
    seconds and bytes by name. stdout, stderr: how many bytes there were of each. timed_out: the
    guest killed it when its time was over."""

    code: int | None
    signal: int | None
    error: str
    resources: Mapping[str, float]
    stdout: int = 0
    stderr: int = 0
    timed_out: bool = False


class Answer:
    """What one guest has answered. `instance`: of the guest when it was asked. `progress`: from
    0 to 1, if its program says so. `input_heard`, `input_taken`: bytes of the command's input
    that the guest, and its program, has; `input_ends`: and the end of it."""

    def __init__(self, guest_id: str, instance: str) -> None:
        self.guest_id = guest_id
        self.instance = instance
        self.state = State.SENT
        self.result: Result | None = None
        self.why = ""
        self.progress: float | None = None
        self.input_heard = self.input_taken = 0
        self.input_ends = False
        self.outputs = {"stdout": OutputLog(KEPT_OUTPUT), "stderr": OutputLog(KEPT_OUTPUT)}

    @classmethod
    def refused(cls, guest_id: str, why: str) -> Self:
        """Of a machine that cannot be asked."""
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
    """`wanted`: so many guests' answers are enough. `finished_at`: by the table's clock;
    `submitted_at`, and `ends_at`, after which no answer is waited for: seconds since 1970."""

    def __init__(self, command_id: str, request: Request, wanted: int) -> None:
        self.id = command_id
        self.request = request
        self.wanted = wanted
        self.answers: dict[str, Answer] = {}
        self.finished_at: float | None = None
        self.submitted_at = time.time()
        self.ends_at: float | None = None
        self._news = asyncio.Event()

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None

    def tell(self) -> None:
        """Wakes whoever waits in `changed`."""
        self._news.set()
        self._news = asyncio.Event()

    async def changed(self) -> None:
        """Until there is more output, another state, or the end."""
        await self._news.wait()

    async def finished(self) -> None:
        """Until no answer is open any more."""
        while not self.is_finished:
            await self.changed()


def read_result(word: Word) -> Result:
    """Of a CMD_RESULT. Raises GuestProtocolError."""
    table = word.table
    code = word.whole("code", _LARGEST_CODE) if "code" in table else None
    signal = word.whole("signal", _LARGEST_SIGNAL) if "signal" in table else None
    error, resources = table.get("error", ""), table.get("resources", {})
    if not isinstance(error, str) or not isinstance(resources, dict):
        raise GuestProtocolError("a result on the bus makes no sense")
    if (code is not None) + (signal is not None) + bool(error) != 1:
        raise GuestProtocolError("a result on the bus has not one end")
    numbers = {
        str(name)[:64]: float(value)
        for name, value in list(resources.items())[:_MOST_RESOURCES]
        if isinstance(value, int | float) and 0 <= value <= LARGEST
    }
    shown = "".join(filter(str.isprintable, error[:_LONGEST_ERROR]))
    sizes = word.whole("stdout"), word.whole("stderr")
    return Result(code, signal, shown, numbers, *sizes, timed_out=table.get("timed-out") is True)
