"""One command in a guest: its program, and what the controller has not received of it yet."""

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Protocol, Self, cast

from boincvm.controller.protocol.commands import (
    WINDOW,
    CommandEnded,
    CommandOutput,
    CommandProgress,
    CommandStarted,
    GiveInput,
    InputTaken,
)
from boincvm.controller.protocol.envelope import Envelope
from boincvm.controller.protocol.output_log import OutputLog
from boincvm.controller.protocol.program import Request, Result
from boincvm.errors import GuestProtocolError
from boincvm.guestlink.program import ProgramEnd

PIECE = 1 << 16
"""Bytes of output in one message."""
MOST_WAITING = 4 << 20
"""Bytes of output held for the controller; without credit the program waits before that."""
PROGRESS_EVERY = 1.0
STATUS_CHANNEL_RATE = 1 << 16
"""Bytes per second that a program may write to its status channel; beyond that it waits."""
_KILL = 9


class RunningProgram(Protocol):
    """A running program, such as `guestlink.program.GuestProgram`."""

    def grant(self, count: int) -> None: ...

    def signal(self, number: int) -> None: ...

    def feed(self, data: bytes) -> None: ...

    def end_input(self) -> None: ...

    def state(self) -> dict[str, object]:
        """Return the state for attaching to it again; only while its guest is stopped."""

    async def wait(self) -> ProgramEnd:
        """Wait for the program to end. Raises BoincvmError."""


class Listener(Protocol):
    """Receives what one program does."""

    def output(self, stream: str, data: bytes) -> None:
        """Receive output of "stdout" or "stderr", which must be granted back."""

    def input_taken(self, count: int) -> None:
        """Note that the program has read `count` more bytes of its standard input."""

    def status_channel(self, fraction: float | None, count: int) -> None:
        """Receive the fraction done, if any, from `count` bytes that must be granted back."""


StartProgram = Callable[[Request, Listener], RunningProgram]
"""Starts a program and reports to the listener; its input ends unless `keep_input`. May raise
BoincvmError."""


class NodeCommand:
    """A command and its program. `send` sends a message to the controller, which may be lost."""

    def __init__(self, command_id: str, request: Request, send: Callable[[bytes], None]) -> None:
        self.id = command_id
        self.result: Result | None = None
        """The table of CMD_RESULT, once the program has ended."""
        self._request = request
        self._send = send
        self._program: RunningProgram | None = None
        self._outputs = {"stdout": OutputLog(MOST_WAITING), "stderr": OutputLog(MOST_WAITING)}
        self._input_received = len(request.stdin)
        self._input_consumed = 0
        self._input_ends = not request.keep_input
        self._fraction: float | None = None
        self._fraction_is_sent = True
        self._ungranted = 0
        self._status_channel_timer: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._is_timed_out = False
        self.program_state: dict[str, object] | None = None
        """State of a program that will be attached again."""
        self.time_left: float | None = None
        """Seconds that such a program may still run."""
        self._seconds_before = 0.0
        self._runs_since: float | None = None

    @property
    def seconds(self) -> float:
        """The run time of its program, without the time during which its machine was saved."""
        if self._runs_since is None:
            return self._seconds_before
        return self._seconds_before + asyncio.get_running_loop().time() - self._runs_since

    def begin(self, start: StartProgram) -> RunningProgram:
        """Start the program. Raises BoincvmError."""
        loop = asyncio.get_running_loop()
        self._runs_since = loop.time()
        self._program = program = start(self._request, self)
        self._send(CommandStarted(self.id).encode())
        if self._request.timeout is not None:
            self._alarm = loop.call_later(self._request.timeout, self._time_out)
        return program

    # Saved and restored with its machine.

    def state(self) -> dict[str, object]:
        """Return the state for `restored`, fit for JSON; only while its guest is stopped."""
        loop = asyncio.get_running_loop()
        outputs = {
            name: {"first": log.first, "data": base64.b64encode(log.read(0, log.end)[1]).decode()}
            for name, log in self._outputs.items()
        }
        return {
            "id": self.id,
            "request": {**self._request._asdict(), "stdin": ""},
            "result": self.result.fields() if self.result else None,
            "program": self._program.state() if self._program and self.result is None else None,
            "outputs": outputs,
            "input": [self._input_received, self._input_consumed, self._input_ends],
            "fraction": self._fraction,
            "time_left": self._alarm.when() - loop.time() if self._alarm else None,
            "seconds": self.seconds,
        }

    @classmethod
    def restored(cls, state: Mapping[str, object], send: Callable[[bytes], None]) -> Self:
        """Restore a command from its `state`; its program is still to be attached.

        Raises KeyError, TypeError, ValueError if the state is invalid.
        """
        table = cast("dict[str, dict[str, str | int]]", state)
        request = Request(**{**table["request"], "stdin": b""})  # type: ignore[arg-type]
        made = cls(str(state["id"]), request._replace(argv=tuple(request.argv)), send)
        for name, saved in cast("dict[str, dict[str, str | int]]", state["outputs"]).items():
            made._outputs[name].skip(int(saved["first"]))
            made._outputs[name].append(base64.b64decode(str(saved["data"]), validate=True))
        received, taken, ends = cast("list[int]", state["input"])
        made._input_received, made._input_consumed, made._input_ends = (
            int(received),
            int(taken),
            bool(ends),
        )
        made._fraction = cast("float | None", state["fraction"])
        result = cast("dict[str, object] | None", state["result"])
        made.result = Result.read(Envelope(CommandEnded.NAME, result)) if result else None
        made.time_left = cast("float | None", state["time_left"])
        made._seconds_before = cast("float", state["seconds"])
        made.program_state = cast("dict[str, object] | None", state["program"])
        return made

    def attach(self, program: RunningProgram) -> None:
        """Continue with its program, which still runs."""
        self._program, self.program_state = program, None
        loop = asyncio.get_running_loop()
        self._runs_since = loop.time()
        if self.time_left is not None:
            self._alarm = loop.call_later(max(self.time_left, 0), self._time_out)
        if self._request.keep_input and not self._input_ends:
            self._send_input_taken(again=True)

    def end(self, result: Result) -> None:
        """Record that the program has ended, and add how much it wrote."""
        for timer in (self._alarm, self._status_channel_timer):
            if timer is not None:
                timer.cancel()
        self._send_progress()
        self.result = result._replace(
            timed_out=self._is_timed_out,
            stdout=self._outputs["stdout"].end,
            stderr=self._outputs["stderr"].end,
        )
        self._send(CommandEnded(self.id, self.result).encode())

    def _time_out(self) -> None:
        self._is_timed_out = True
        self.signal(_KILL)

    def signal(self, number: int) -> None:
        """Send the program a signal, if it still runs."""
        if self._program is not None and self.result is None:
            self._program.signal(number)

    def _grant(self, count: int) -> None:
        if count and self._program is not None and self.result is None:
            self._program.grant(count)

    # From the program.

    def output(self, stream: str, data: bytes) -> None:
        log = self._outputs[stream]
        begin = log.end
        log.append(data)
        self._send_output(stream, begin)

    def input_taken(self, count: int) -> None:
        self._input_consumed += count
        if self._request.keep_input:
            self._send_input_taken()

    def status_channel(self, fraction: float | None, count: int) -> None:
        if fraction is not None and fraction != self._fraction:
            self._fraction, self._fraction_is_sent = fraction, False
        self._ungranted += count
        if self._status_channel_timer is None:
            self._report_status()

    def _report_status(self) -> None:
        """Send new progress; a program faster than STATUS_CHANNEL_RATE waits for credit."""
        self._status_channel_timer = None
        self._send_progress()
        count, self._ungranted = self._ungranted, 0
        if count:
            self._grant(count)
            wait = max(PROGRESS_EVERY, count / STATUS_CHANNEL_RATE)
            self._status_channel_timer = asyncio.get_running_loop().call_later(
                wait, self._report_status
            )

    # From the controller.

    def take_input(self, message: GiveInput) -> None:
        """Receive more of the standard input. Raises GuestProtocolError."""
        if not self._request.keep_input:
            raise GuestProtocolError("input for a command whose input has ended")
        if self.program_state is not None:
            return  # no program can take it now; `attach` asks for it again
        is_missing = message.offset > self._input_received
        fresh = b"" if is_missing else message.data[self._input_received - message.offset :]
        if self._input_received + len(fresh) - self._input_consumed > WINDOW or (
            fresh and self._input_ends
        ):
            raise GuestProtocolError("more input than was granted")
        is_end = message.ends and not is_missing and not self._input_ends
        self._input_received += len(fresh)
        if self._program is not None and self.result is None:
            if fresh:
                self._program.feed(fresh)
            if is_end:
                self._program.end_input()
        self._input_ends = self._input_ends or is_end
        if is_missing or is_end or not fresh:
            self._send_input_taken(again=is_missing)

    def drop(self, stdout: int, stderr: int) -> None:
        """Forget output that the controller has, and let the program write as much again.

        `stdout` and `stderr` are offsets. Raises GuestProtocolError.
        """
        for log, taken in ((self._outputs["stdout"], stdout), (self._outputs["stderr"], stderr)):
            if taken > log.end:
                raise GuestProtocolError("the controller acknowledged output that was not sent")
            count = max(taken - log.first, 0)
            log.drop(taken)
            self._grant(count)

    def beat(self) -> None:
        """Send again what the controller has not acknowledged."""
        if self.result is not None or any(log.end > log.first for log in self._outputs.values()):
            self.send_all()
        elif self._fraction is not None:
            self._send(CommandProgress(self.id, self._fraction).encode())

    def send_all(self) -> None:
        """Send all that the controller may not have: output, progress and state."""
        for name, log in self._outputs.items():
            self._send_output(name, log.first)
        if self._fraction is not None:
            self._send(CommandProgress(self.id, self._fraction).encode())
        if self.result is not None:
            self._send(CommandEnded(self.id, self.result).encode())
        else:
            self._send(CommandStarted(self.id).encode())

    def _send_output(self, stream: str, offset: int) -> None:
        """Send the output from `offset` on; if there is none, send its offset."""
        log = self._outputs[stream]
        is_sent = False
        while offset < log.end or not is_sent:
            offset, data = log.read(offset, PIECE)
            self._send(CommandOutput(self.id, stream, offset, log.first, data).encode())
            offset += len(data)
            is_sent = True

    def _send_progress(self) -> None:
        if not self._fraction_is_sent and self._fraction is not None:
            self._fraction_is_sent = True
            self._send(CommandProgress(self.id, self._fraction).encode())

    def _send_input_taken(self, *, again: bool = False) -> None:
        message = InputTaken(
            self.id, self._input_consumed, self._input_received, self._input_ends, again
        )
        self._send(message.encode())
