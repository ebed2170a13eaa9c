"""The commands that guests were given, and what became of them.

Words to a guest (a message may be lost, so whatever is not answered is said again):

    CMD_RUN {"cmd-id", "instance", "argv", "env", "directory", "timeout", "stdout", "stderr"}
            run it, with the word's data as standard input; or, if it runs already or has ended,
            say its output again from there
    CMD_TAKEN {"cmd-id", "stdout", "stderr", "again"}
            so much has come of each; with `again`: say what follows once more
    CMD_SIGNAL {"cmd-id", "signal"}     to the program
    CMD_FORGET {"cmd-id"}               the result has come
    CMD_INPUT                           see command_input.py

and from it: CMD_STARTED {"cmd-id"}, CMD_OUTPUT {"cmd-id", "stream", "offset", "first"} with
the bytes from `offset` on (the guest has none before `first` any more),
CMD_PROGRESS {"cmd-id", "fraction"},
CMD_RESULT {"cmd-id", "code" or "signal" or "error", "resources", "stdout", "stderr"}. An id is run
at most once in a guest's life, and `instance` says which life is meant.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from boincvm.controller.commands.command import Answer, Command, State, read_result
from boincvm.controller.commands.input import CommandInput
from boincvm.controller.commands.journal import Journal, NoJournal
from boincvm.controller.commands.retention import MOST_COMMANDS, KeptCommands
from boincvm.controller.protocol.commands import LONGEST_ID, Request, check_request, run_table
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.messages import Post, Word, encode_word
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.guestlink import signals


class CommandTable:
    """Of what is known of them see retention.py. `counts`: what was heard and not believed."""

    def __init__(
        self,
        post: Post,
        clock: Callable[[], float] = time.monotonic,
        journal: Journal | None = None,
        owner: str = "",
    ) -> None:
        """`owner`: on the bus all ids begin with it, and what others asked is left to them."""
        self._post = post
        self._owner = owner
        self._journal = journal or NoJournal()
        self._kept = KeptCommands(self._journal, clock)
        self._open: dict[str, dict[str, Command]] = {}  # by guest, then by the command's id
        self._inputs: dict[str, CommandInput] = {}
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self.counts: Counter[str] = Counter()

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
        """Sends `request` to all `guests`, and returns at once.

        `command_id`: the client's own; the same request under the same id is the same command,
        and runs no second time. `first`: so many answers are enough. `within`: seconds, after
        which what is still open is dropped. `keep_input`: more follows by `give_input`.
        `refused`: by id, machines that were meant too and cannot answer, and why. Raises
        UsageError.
        """
        self._kept.expire()
        request = request._replace(keep_input=request.keep_input or keep_input)
        known = self._kept.get(command_id or "")
        if known is not None:
            if known.request != request:
                raise UsageError(
                    f"there is another command with the id {known.id}",
                    hint="choose another id, or none",
                )
            return known
        made = self._make(list(guests), request, command_id, first)
        for guest_id, why in refused.items():
            made.answers[guest_id] = Answer.refused(guest_id, why)
        made.ends_at = None if within is None else time.time() + within
        self._journal.submitted(made)
        for answer in made.answers.values():
            if answer.is_open:
                self._say_run(made, answer)
        self._set_alarm(made)
        self._see_end(made)
        return made

    def _make(
        self, guests: list[Guest], request: Request, command_id: str | None, first: int | None
    ) -> Command:
        check_request(request, command_id)
        if first is not None and first < 1:
            raise UsageError("no answer at all would be enough", hint="first is 1 or more")
        if self._kept.are_too_many:
            raise UsageError(f"there are {MOST_COMMANDS} commands that have not ended")
        chosen = command_id or secrets.token_hex(8)
        wanted = len(guests) if first is None else min(first, len(guests))
        made = Command(chosen, request, wanted)
        self._kept.add(made)
        if request.keep_input:
            self._inputs[chosen] = CommandInput(len(request.stdin))
        for guest in guests:
            made.answers[guest.id] = Answer(guest.id, guest.instance)
            self._open.setdefault(guest.id, {})[chosen] = made
        return made

    def _set_alarm(self, command: Command) -> None:
        if command.ends_at is not None:
            wait = max(command.ends_at - time.time(), 0)
            loop = asyncio.get_running_loop()
            self._alarms[command.id] = loop.call_later(wait, self.drop, command.id, "too late")

    def load(self, commands: Iterable[Command]) -> None:
        """Those of a former life, the oldest one first; who has not answered yet may do so."""
        for command in commands:
            self._kept.add(command)
            if command.is_finished:
                continue
            for answer in command.answers.values():
                if answer.is_open:
                    self._open.setdefault(answer.guest_id, {})[command.id] = command
            self._set_alarm(command)
            self._see_end(command)

    def open_in(self, guest_id: str) -> int:
        """How many commands that guest has not answered yet."""
        return len(self._open.get(guest_id, {}))

    def knows(self, command_id: str | None) -> bool:
        return self._kept.get(command_id or "") is not None

    def find(self, command_id: str) -> Command:
        """Raises UsageError."""
        found = self._kept.get(command_id)
        if found is None:
            raise UsageError(
                f"there is no command {command_id[:LONGEST_ID]!r}",
                hint="it may have ended long ago: results are kept for a day",
            )
        return found

    def all(self) -> list[Command]:
        """The oldest one first."""
        return self._kept.all()

    def signal(self, command_id: str, number: int) -> None:
        """To the programs that still run. Raises UsageError."""
        for answer in self.find(command_id).answers.values():
            if answer.is_open:
                self._say(answer.guest_id, "CMD_SIGNAL", command_id, signal=number)

    def drop(self, command_id: str, why: str = "cancelled") -> None:
        """Kills what still runs, and waits for no answer. Raises UsageError."""
        command = self.find(command_id)
        for answer in command.answers.values():
            if answer.is_open:
                self._say(answer.guest_id, "CMD_SIGNAL", command_id, signal=signals.KILL)
                self._close(command, answer, State.DROPPED, why)
        self._see_end(command)

    async def give_input(self, command_id: str, data: bytes, *, ends: bool = False) -> None:
        """Standard input of a command of which it was kept open; with `ends` the last of it.

        Waits until each guest has room; what none wants any more is dropped. Raises UsageError.
        """
        command = self.find(command_id)
        given = self._inputs.get(command_id)
        if given is not None:
            async with given.turn:
                await given.give(command, data, lambda one: self._say_input(command, one), ends)
        elif not command.request.keep_input:
            raise UsageError(
                f"the command {command_id!r} takes no input", hint="submit it with keep_input"
            )
        elif not command.is_finished:
            raise UsageError(
                f"the command {command_id!r} takes no more input: its controller was started anew",
                hint="cancel it, and run it again",
            )

    # What guests say, and what happens to them.

    def take(self, guest_id: str, word: Word) -> None:
        """A word of a guest's that begins with CMD_. Raises GuestProtocolError."""
        if not word.text("cmd-id").startswith(self._owner):
            self.counts["asked by another"] += 1
            return
        command_id = word.text("cmd-id").removeprefix(self._owner)
        command = self._open.get(guest_id, {}).get(command_id)
        if command is None:
            # It answers late, or again, or what nobody asked it.
            self.counts["not asked"] += 1
            if word.name == "CMD_RESULT":
                self._say(guest_id, "CMD_FORGET", command_id)
            return
        answer = command.answers[guest_id]
        if word.name == "CMD_STARTED":
            answer.state = State.RUNNING
        elif word.name == "CMD_INPUT_TAKEN":
            self._take_input_taken(command, answer, word)
        elif word.name == "CMD_PROGRESS":
            answer.progress = word.number("fraction", 1.0)
        elif word.name == "CMD_OUTPUT":
            self._take_output(command, answer, word)
        elif word.name == "CMD_RESULT":
            answer.result = read_result(word)
            self._end_if_whole(command, answer, again=True)
        else:
            raise GuestProtocolError(f"a guest said {word.name}")
        command.tell()

    def _take_output(self, command: Command, answer: Answer, word: Word) -> None:
        stream, offset = word.text("stream"), word.whole("offset")
        log = answer.outputs.get(stream)
        if log is None:
            raise GuestProtocolError("output of a stream that there is not")
        answer.state = State.RUNNING
        begin = log.end
        if offset > begin and word.whole("first") == offset:
            begin = offset  # the guest has no more: another controller has taken it
        fresh = word.data[begin - offset :] if offset <= begin else b""
        self._kept.take_output(answer, stream, begin, fresh)
        if fresh:
            self._journal.has_output(command, answer, stream, begin)
        self._say_taken(command, answer, again=offset > begin)
        self._end_if_whole(command, answer, again=False)

    def _take_input_taken(self, command: Command, answer: Answer, word: Word) -> None:
        given = self._inputs.get(command.id)
        if given is None:
            raise GuestProtocolError("a guest has taken input that there is not")
        given.take(answer, word)
        if word.table.get("again") is True:
            self._say_input(command, answer)

    def _end_if_whole(self, command: Command, answer: Answer, *, again: bool) -> None:
        if answer.result is None:
            return
        if answer.has_all_output:
            self._say(answer.guest_id, "CMD_FORGET", command.id)
            self._close(command, answer, State.ENDED)
            self._see_end(command)
        elif again:
            self._say_taken(command, answer, again=True)

    def guest_beats(self, guest_id: str) -> None:
        """What it has said nothing of may have been lost on its way."""
        for command in list(self._open.get(guest_id, {}).values()):
            answer = command.answers[guest_id]
            if answer.state is State.SENT:
                self._say_run(command, answer)
            given = self._inputs.get(command.id)
            if given is not None and answer.wants_input and not given.is_whole(answer):
                self._say_input(command, answer)

    def guest_says_hello(self, guest: Guest) -> None:
        """It has connected again, or was started anew."""
        for command in list(self._open.get(guest.id, {}).values()):
            answer = command.answers[guest.id]
            if answer.instance == guest.instance:
                self._say_run(command, answer)
            else:
                self._close(command, answer, State.LOST, "the guest was started anew")
                self._see_end(command)

    def guest_is_lost(self, guest_id: str, why: str) -> None:
        """It has gone: its answers will not come."""
        for command in list(self._open.get(guest_id, {}).values()):
            self._close(command, command.answers[guest_id], State.LOST, why)
            self._see_end(command)

    # The end.

    def _close(self, command: Command, answer: Answer, state: State, why: str = "") -> None:
        answer.state, answer.why = state, why
        self._journal.answered(command, answer)
        command.tell()
        still_open = self._open.get(answer.guest_id, {})
        still_open.pop(command.id, None)
        if not still_open:
            self._open.pop(answer.guest_id, None)

    def _see_end(self, command: Command) -> None:
        answers = command.answers.values()
        if any(answer.is_open for answer in answers):
            if sum(answer.state is State.ENDED for answer in answers) < command.wanted:
                return
            self.drop(command.id, "enough others have answered")
            return
        if not command.is_finished:
            self._kept.end(command)
            self._journal.finished(command)
            self._inputs.pop(command.id, None)
            alarm = self._alarms.pop(command.id, None)
            if alarm is not None:
                alarm.cancel()
        command.tell()

    def close(self) -> None:
        """No alarm rings any more; again is harmless."""
        for alarm in self._alarms.values():
            alarm.cancel()
        self._alarms.clear()

    # What guests are told.

    def _say_run(self, command: Command, answer: Answer) -> None:
        table = {**run_table(command.request), "instance": answer.instance, **_ends(answer)}
        body = encode_word(
            "CMD_RUN", {"cmd-id": self._owner + command.id, **table}, command.request.stdin
        )
        self._post(answer.guest_id, body)

    def _say_input(self, command: Command, answer: Answer) -> None:
        given = self._inputs[command.id]
        self._post(answer.guest_id, given.word(self._owner + command.id, answer))

    def _say_taken(self, command: Command, answer: Answer, *, again: bool) -> None:
        self._say(answer.guest_id, "CMD_TAKEN", command.id, again=again, **_ends(answer))

    def _say(self, guest_id: str, name: str, command_id: str, **values: int) -> None:
        self._post(guest_id, encode_word(name, {"cmd-id": self._owner + command_id, **values}))


def _ends(answer: Answer) -> dict[str, int]:
    return {name: log.end for name, log in answer.outputs.items()}
