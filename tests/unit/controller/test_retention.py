"""How much of the output of all commands together is kept."""

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from boincvm.controller.commands import retention
from boincvm.controller.commands.command import Answer, Command, State
from boincvm.controller.commands.journal import NoJournal
from boincvm.controller.commands.retention import RetainedCommands
from boincvm.controller.protocol.program import Request
from boincvm.controller.store import Store

MOST = 1000


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_OUTPUT", MOST)


def command(command_id: str) -> Command:
    made = Command(command_id, Request(("x",)), 1)
    made.answers["g"] = Answer("g", "life")
    return made


def send(stored: RetainedCommands, reported: Command, count: int, stream: str = "stdout") -> None:
    log = reported.answers["g"].outputs[stream]
    stored.take_output(reported.answers["g"], stream, log.end, b"x" * count)


def sizes(reported: Command) -> list[int]:
    return [log.size for log in reported.answers["g"].outputs.values()]


class Recorder(NoJournal):
    def __init__(self) -> None:
        self.lost: list[str] = []

    def output_forgotten(self, command_id: str) -> None:
        self.lost.append(command_id)


async def test_output_of_those_that_ended_first_goes_first() -> None:
    journal = Recorder()
    stored = RetainedCommands(journal)
    a, b, runs = command("a"), command("b"), command("runs")
    for one in (runs, a, b):
        stored.add(one)
        send(stored, one, 200)
        send(stored, one, 100, "stderr")
    stored.end(b)
    stored.end(a)
    send(stored, runs, 100)
    assert journal.lost == []
    send(stored, runs, 1)
    assert journal.lost == ["b"]
    assert (sizes(a), sizes(b), sizes(runs)) == ([200, 100], [0, 0], [301, 100])
    # Where it was is known still.
    assert b.answers["g"].outputs["stdout"].read(0, 10) == (200, b"")
    send(stored, runs, 299)
    assert journal.lost == ["b"]
    assert stored.all() == [runs, a, b]


async def test_those_that_run_lose_their_older_half() -> None:
    journal = Recorder()
    stored = RetainedCommands(journal)
    ended, one, two = command("ended"), command("one"), command("two")
    for reported in (ended, one, two):
        stored.add(reported)
    send(stored, ended, 10)
    stored.end(ended)
    send(stored, one, 900)
    send(stored, two, 101)
    assert journal.lost == ["ended"]
    assert (sizes(one), sizes(two)) == ([450, 0], [50, 0])
    assert one.answers["g"].outputs["stdout"].first == 450
    send(stored, two, MOST * 3)
    assert (sizes(one), sizes(two)) == ([112, 0], [762, 0])


async def test_a_command_of_a_former_life_counts() -> None:
    stored = RetainedCommands(Recorder())
    former = command("former")
    former.answers["g"].outputs["stdout"].append(b"x" * 700)
    former.answers["g"].state = State.ENDED
    former.finished_at = 0.0
    stored.add(former)
    now = command("now")
    stored.add(now)
    send(stored, now, 301)
    assert (sizes(former), sizes(now)) == ([0, 0], [301, 0])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some.lists(
        some.tuples(
            some.sampled_from(["add", "end", "say", "skip", "wait"]),
            some.integers(0, 7),
            some.integers(0, MOST),
        ),
        max_size=60,
    )
)
async def test_what_is_counted_is_what_there_is(steps: list[tuple[str, int, int]]) -> None:
    now = 0.0
    stored = RetainedCommands(Recorder(), lambda: now)
    for number, (step, which, count) in enumerate(steps):
        known = stored.all()
        reported = known[which % len(known)] if known else None
        if step == "add" or reported is None:
            stored.add(command(f"c{number}"))
        elif step == "end" and not reported.is_finished:
            stored.end(reported)
        elif step == "wait":
            now += count * 300.0
        elif step in ("say", "skip"):
            begin = reported.answers["g"].outputs["stdout"].end + (count if step == "skip" else 0)
            stored.take_output(reported.answers["g"], "stdout", begin, b"x" * count)
        present = sum(sum(sizes(one)) for one in stored.all())
        assert stored._size == present
        assert present <= MOST


async def test_it_is_gone_from_the_disk_too(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "store")) as store:
        reported = command("a")
        store.submitted(reported)
        reported.answers["g"].outputs["stdout"].append(b"abc")
        store.has_output(reported, reported.answers["g"], "stdout", 0)
        store.output_forgotten("a")
        (found,) = store.commands()
        assert found.answers["g"].outputs["stdout"].end == 0
