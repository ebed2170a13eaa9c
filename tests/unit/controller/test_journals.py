"""What is recorded of commands: everything in the store, starts and ends in the list of events."""

from collections import Counter

import pytest

from boincvm.controller.commands.command import Answer, Command, State
from boincvm.controller.commands.journal import EventJournal, Journal, NoJournal
from boincvm.controller.commands.table import CommandTable
from boincvm.controller.events import EventLog
from boincvm.controller.protocol.envelope import Envelope
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.messages import from_guest
from boincvm.controller.protocol.program import Request, Result


class Counting:
    """A Journal that counts its calls."""

    def __init__(self) -> None:
        self.reported: Counter[str] = Counter()

    def submitted(self, command: Command) -> None:
        self.reported["submitted"] += 1

    def has_output(self, command: Command, answer: Answer, stream: str, offset: int) -> None:
        self.reported[f"{stream} from {offset}"] += 1

    def answered(self, command: Command, answer: Answer) -> None:
        self.reported[f"{answer.guest_id} {answer.state.name}"] += 1

    def finished(self, command: Command) -> None:
        self.reported["finished"] += 1

    def forgotten(self, command_id: str) -> None:
        self.reported["forgotten"] += 1

    def output_forgotten(self, command_id: str) -> None:
        self.reported["output forgotten"] += 1


def table_with(journal: Journal) -> CommandTable:
    return CommandTable(lambda _guest, _word: None, journal=journal)


def story(table: CommandTable) -> Command:
    """Run a command for three guests: one answers, one is lost, one is not needed."""
    guests = [Guest(name, name, instance="1") for name in "abc"]
    made = table.submit(guests, Request(("x", "y\nz")), command_id="mine", first=1)
    table.handle("a", from_guest(Envelope("CMD_STARTED", {"cmd-id": "mine"})))
    output = {"cmd-id": "mine", "stream": "stdout", "offset": 0, "first": 0}
    table.handle("a", from_guest(Envelope("CMD_OUTPUT", output, b"four")))
    table.handle("a", from_guest(Envelope("CMD_OUTPUT", output, b"fourteen")))
    table.handle_loss("b", "it was struck by lightning")
    end = {"cmd-id": "mine", "code": 3, "stdout": 8, "stderr": 0}
    table.handle("a", from_guest(Envelope("CMD_RESULT", end)))
    table.handle("a", from_guest(Envelope("CMD_RESULT", end)))
    return made


EXPECTED = Counter(
    {
        "submitted": 1,
        "stdout from 0": 1,
        "stdout from 4": 1,
        "a ENDED": 1,
        "b LOST": 1,
        "c DROPPED": 1,
        "finished": 1,
    }
)


async def test_each_thing_is_reported_once_and_when_it_has_happened() -> None:
    journal = Counting()
    made = story(table_with(journal))
    assert made.is_finished
    assert journal.reported == EXPECTED


async def test_events_tell_the_ends_and_the_store_is_told_all() -> None:
    journal, events = Counting(), EventLog()
    made = story(table_with(EventJournal(events, journal)))
    assert journal.reported == EXPECTED
    begun, ended = events.list_after(0)
    assert (begun.kind, begun.vm, begun.more) == ("command_started", None, {"command": made.id})
    assert begun.text.isprintable()
    assert "3 machines" in begun.text
    assert (ended.kind, ended.vm) == ("command_ended", None)
    assert ended.text == "1 of 3 have answered"


@pytest.mark.parametrize(
    ("state", "result", "text"),
    [
        (State.ENDED, Result(0, None, "", {}), "exit code 0"),
        (State.ENDED, Result(None, 9, "", {}), "signal 9"),
        (State.ENDED, Result(None, None, "no such program", {}), "did not run: no such program"),
        (State.LOST, None, "lost: it has left"),
        (State.DROPPED, None, "dropped: it has left"),
    ],
)
async def test_how_one_has_ended(state: State, result: Result | None, text: str) -> None:
    events = EventLog()
    command = Command("mine", Request(("x" * 10_000, "\x1b[2J")), 1)
    answer = command.answers["g"] = Answer("g", "1")
    answer.state, answer.result, answer.why = state, result, "it has left"
    journal = EventJournal(events, NoJournal())
    journal.submitted(command)
    journal.finished(command)
    begun, ended = events.list_after(0)
    assert (begun.vm, ended.vm) == ("g", "g")
    assert len(begun.text) < 300
    assert begun.text.isprintable()
    assert text in ended.text


async def test_without_one_nothing_is_written_down() -> None:
    assert story(table_with(NoJournal())).is_finished
