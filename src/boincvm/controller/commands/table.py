"""Give commands to guests and collect their answers.

The messages are in protocol/commands.py. CMD_RUN is sent until the guest has answered, and again
when the guest has reconnected; missing input is sent again at the guest's beats.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import assert_never

from boincvm.controller.commands.command import Answer, Command, State
from boincvm.controller.commands.input import InputFeed
from boincvm.controller.commands.journal import Journal, NoJournal
from boincvm.controller.commands.retention import MOST_COMMANDS, RetainedCommands
from boincvm.controller.delivery import Delivery, Parcel
from boincvm.controller.protocol.commands import (
    CommandEnded,
    CommandOutput,
    CommandProgress,
    CommandStarted,
    ForgetCommand,
    GiveInput,
    InputTaken,
    OutputTaken,
    RunCommand,
    SignalCommand,
)
from boincvm.controller.protocol.envelope import Send
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.messages import CommandMessage
from boincvm.controller.protocol.program import LONGEST_ID, Request, check_request
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.guestlink import signals


class _Assignment(Parcel):
    """A command that a guest was given and has not answered."""

    def __init__(self, table: "CommandTable", command: Command, answer: Answer) -> None:
        super().__init__(answer.guest_id, answer.instance, command.id)
        self.command = command
        self.answer = answer
        self._table = table

    def message(self) -> bytes:
        return self._table.run_message(self.command, self.answer).encode()

    def overdue(self) -> Iterable[bytes]:
        if self.answer.state is State.SENT:
            yield self.message()
        missing = self._table.missing_input(self.command, self.answer)
        if missing is not None:
            yield missing.encode()

    def give_up(self, why: str) -> None:
        self._table.lose(self.command, self.answer, why)


class CommandTable:
    """All commands that are kept (see retention.py)."""

    def __init__(
        self,
        send: Send,
        clock: Callable[[], float] = time.monotonic,
        journal: Journal | None = None,
        owner: str = "",
    ) -> None:
        """Manage the commands whose ids on the bus begin with `owner`, ignoring all others."""
        self._send = send
        # Sent again at beats only: a command may go to thousands of guests.
        self._delivery: Delivery[_Assignment] = Delivery(send)
        self._owner = owner
        self._journal = journal or NoJournal()
        self._retained = RetainedCommands(self._journal, clock)
        self._inputs: dict[str, InputFeed] = {}
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self.counts: Counter[str] = Counter()
        """Messages rejected, by reason."""

    def submit(
        self,
        guests: Iterable[Guest],
        request: Request,
        *,
        command_id: str | None = None,
        first: int | None = None,
        within: float | None = None,
        keep_input: bool = False,
        refused: Mapping[str, str] = {},
    ) -> Command:
        """Send `request` to all `guests`, and return at once.

        `command_id`: chosen by the client; the same request with the same id is the same command
        and does not run twice. `first`: how many answers are enough. `within`: seconds after which
        open answers are dropped. `keep_input`: more input follows by `give_input`. `refused`: by
        id, why other machines that were meant cannot answer. Raises UsageError.
        """
        self._retained.expire()
        request = request._replace(keep_input=request.keep_input or keep_input)
        known = self._retained.get(command_id or "")
        if known is not None:
            if known.request != request:
                raise UsageError(
                    f"there is already another command with the id {known.id}",
                    hint="choose another id, or leave it out",
                )
            return known
        made = self._make(list(guests), request, command_id, first)
        for guest_id, why in refused.items():
            made.answers[guest_id] = Answer.refused(guest_id, why)
        made.ends_at = None if within is None else time.time() + within
        self._journal.submitted(made)
        for answer in made.answers.values():
            parcel = self._delivery.get(answer.guest_id, made.id)
            if parcel is not None:
                self._delivery.send(parcel)
        self._set_alarm(made)
        self._see_end(made)
        return made

    def _make(
        self, guests: list[Guest], request: Request, command_id: str | None, first: int | None
    ) -> Command:
        check_request(request, command_id)
        if first is not None and first < 1:
            raise UsageError(
                "0 answers would end the command at once", hint="`first` must be at least 1"
            )
        if self._retained.are_too_many:
            raise UsageError(f"there are {MOST_COMMANDS} commands that have not ended")
        chosen = command_id or secrets.token_hex(8)
        wanted = len(guests) if first is None else min(first, len(guests))
        made = Command(chosen, request, wanted)
        self._retained.add(made)
        if request.keep_input:
            self._inputs[chosen] = InputFeed(len(request.stdin))
        for guest in guests:
            answer = made.answers[guest.id] = Answer(guest.id, guest.instance)
            self._delivery.add(_Assignment(self, made, answer))
        return made

    def _set_alarm(self, command: Command) -> None:
        if command.ends_at is not None:
            wait = max(command.ends_at - time.time(), 0)
            loop = asyncio.get_running_loop()
            self._alarms[command.id] = loop.call_later(wait, self.drop, command.id, "too late")

    def load(self, commands: Iterable[Command]) -> None:
        """Add an earlier controller's commands, oldest first; guests may still answer them."""
        for command in commands:
            self._retained.add(command)
            if command.is_finished:
                continue
            for answer in command.answers.values():
                if answer.is_open:
                    self._delivery.add(_Assignment(self, command, answer))
            self._set_alarm(command)
            self._see_end(command)

    def open_in(self, guest_id: str) -> int:
        """Return how many commands a guest has not answered yet."""
        return self._delivery.count(guest_id)

    def knows(self, command_id: str | None) -> bool:
        """Tell whether a command exists."""
        return self._retained.get(command_id or "") is not None

    def find(self, command_id: str) -> Command:
        """Return a command. Raises UsageError if it does not exist."""
        found = self._retained.get(command_id)
        if found is None:
            raise UsageError(
                f"there is no command {command_id[:LONGEST_ID]!r}",
                hint="it may have ended long ago; results are kept for a day",
            )
        return found

    def all(self) -> list[Command]:
        """Return all commands, oldest first."""
        return self._retained.all()

    def signal(self, command_id: str, number: int) -> None:
        """Send a signal to the programs that are still running. Raises UsageError."""
        for answer in self.find(command_id).answers.values():
            if answer.is_open:
                self._send_signal(answer, command_id, number)

    def drop(self, command_id: str, why: str = "cancelled") -> None:
        """Kill a command's running programs and stop waiting for answers. Raises UsageError."""
        command = self.find(command_id)
        for answer in command.answers.values():
            if answer.is_open:
                self._send_signal(answer, command_id, signals.KILL)
                self._close(command, answer, State.DROPPED, why)
        self._see_end(command)

    async def give_input(self, command_id: str, data: bytes, *, ends: bool = False) -> None:
        """Give more standard input to a command with `keep_input`; with `ends`, the last of it.

        Waits until each guest has room; input that no guest wants is dropped. Raises UsageError.
        """
        command = self.find(command_id)
        given = self._inputs.get(command_id)
        if given is not None:
            async with given.turn:
                await given.give(
                    command, data, lambda answer: self._send_input(command, answer), ends
                )
        elif not command.request.keep_input:
            raise UsageError(
                f"the command {command_id!r} takes no input", hint="submit it with keep_input"
            )
        elif not command.is_finished:
            raise UsageError(
                f"the command {command_id!r} takes no more input: its controller was restarted",
                hint="cancel it and run it again",
            )

    # Messages from guests, and events.

    def handle(self, guest_id: str, message: CommandMessage) -> None:
        """Handle a guest's message about a command. Raises GuestProtocolError."""
        if not message.command_id.startswith(self._owner):
            self.counts["requested by another"] += 1
            return
        command_id = message.command_id.removeprefix(self._owner)
        parcel = self._delivery.get(guest_id, command_id)
        if parcel is None:
            # The answer is late, repeated, or to something that nobody asked.
            self.counts["not asked"] += 1
            if isinstance(message, CommandEnded):
                self._send(guest_id, ForgetCommand(message.command_id).encode())
            return
        command, answer = parcel.command, parcel.answer
        match message:
            case CommandStarted():
                answer.state = State.RUNNING
            case InputTaken():
                self._handle_input_taken(command, answer, message)
            case CommandProgress():
                answer.progress = message.fraction
            case CommandOutput():
                self._handle_output(command, answer, message)
            case CommandEnded():
                answer.result = message.result
                self._end_if_whole(command, answer, again=True)
            case _:
                assert_never(message)
        command.notify()

    def _handle_output(self, command: Command, answer: Answer, message: CommandOutput) -> None:
        offset, log = message.offset, answer.outputs[message.stream]
        answer.state = State.RUNNING
        begin = log.end
        if offset > begin and message.first == offset:
            begin = offset  # the guest has no older output: another controller took it
        fresh = message.data[begin - offset :] if offset <= begin else b""
        self._retained.take_output(answer, message.stream, begin, fresh)
        if fresh:
            self._journal.has_output(command, answer, message.stream, begin)
        self._send_output_taken(command, answer, again=offset > begin)
        self._end_if_whole(command, answer, again=False)

    def _handle_input_taken(self, command: Command, answer: Answer, message: InputTaken) -> None:
        given = self._inputs.get(command.id)
        if given is None:
            raise GuestProtocolError("a guest acknowledged input that does not exist")
        given.handle(answer, message)
        if message.again:
            self._send_input(command, answer)

    def _end_if_whole(self, command: Command, answer: Answer, *, again: bool) -> None:
        if answer.result is None:
            return
        if answer.has_all_output:
            self._send(answer.guest_id, ForgetCommand(self._owner + command.id).encode())
            self._close(command, answer, State.ENDED)
            self._see_end(command)
        elif again:
            self._send_output_taken(command, answer, again=True)

    def handle_beat(self, guest_id: str) -> None:
        """Send again whatever a guest has not reacted to: it may have been lost."""
        self._delivery.handle_beat(guest_id)

    def handle_hello(self, guest: Guest) -> None:
        """Handle that a guest has reconnected or was restarted."""
        self._delivery.handle_hello(guest, "the guest was restarted")

    def handle_loss(self, guest_id: str, why: str) -> None:
        """Handle that a guest has gone: its answers will not come."""
        self._delivery.handle_loss(guest_id, why)

    def lose(self, command: Command, answer: Answer, why: str) -> None:
        """Give up one guest's answer."""
        self._close(command, answer, State.LOST, why)
        self._see_end(command)

    # The end.

    def _close(self, command: Command, answer: Answer, state: State, why: str = "") -> None:
        answer.state, answer.why = state, why
        self._journal.answered(command, answer)
        command.notify()
        parcel = self._delivery.get(answer.guest_id, command.id)
        if parcel is not None:
            self._delivery.complete(parcel)

    def _see_end(self, command: Command) -> None:
        answers = command.answers.values()
        if any(answer.is_open for answer in answers):
            if sum(answer.state is State.ENDED for answer in answers) < command.wanted:
                return
            self.drop(command.id, "enough others have answered")
            return
        if not command.is_finished:
            self._retained.end(command)
            self._journal.finished(command)
            self._inputs.pop(command.id, None)
            alarm = self._alarms.pop(command.id, None)
            if alarm is not None:
                alarm.cancel()
        command.notify()

    def close(self) -> None:
        """Stop all timers; calling this again is harmless."""
        for alarm in self._alarms.values():
            alarm.cancel()
        self._alarms.clear()

    # Messages to guests.

    def run_message(self, command: Command, answer: Answer) -> RunCommand:
        """Return the message by which a guest runs a command, or reports on it again."""
        stdout, stderr = answer.outputs["stdout"].end, answer.outputs["stderr"].end
        command_id = self._owner + command.id
        return RunCommand(command_id, answer.instance, command.request, stdout, stderr)

    def missing_input(self, command: Command, answer: Answer) -> GiveInput | None:
        """Return the input that a guest seems to lack, or None if it has all of it."""
        given = self._inputs.get(command.id)
        if given is None or not answer.wants_input or given.is_whole(answer):
            return None
        return given.message(self._owner + command.id, answer)

    def _send_input(self, command: Command, answer: Answer) -> None:
        message = self._inputs[command.id].message(self._owner + command.id, answer)
        self._send(answer.guest_id, message.encode())

    def _send_output_taken(self, command: Command, answer: Answer, *, again: bool) -> None:
        stdout, stderr = answer.outputs["stdout"].end, answer.outputs["stderr"].end
        message = OutputTaken(self._owner + command.id, stdout, stderr, again)
        self._send(answer.guest_id, message.encode())

    def _send_signal(self, answer: Answer, command_id: str, number: int) -> None:
        message = SignalCommand(self._owner + command_id, int(number))
        self._send(answer.guest_id, message.encode())
