"""Faults of the store: kills, damage, a newer schema, large amounts."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from boincvm.controller.commands.command import OUTPUT_CAPACITY, Answer, Command, State
from boincvm.controller.controller import run_controller
from boincvm.controller.events import MOST_EVENTS, Event
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.program import Request
from boincvm.controller.store import SCHEMA, Store
from boincvm.errors import HostError

pytestmark = pytest.mark.timeout(120)
LIMIT = 60
# Tells one thing after the other, and a line when it is told; until it is killed.
_WRITER = """
import asyncio, sys
from pathlib import Path
from boincvm.controller.commands.command import Answer, Command, State
from boincvm.controller.protocol.program import Request
from boincvm.controller.events import Event
from boincvm.controller.store import Store

async def main():
    store, number = Store(Path(sys.argv[1])), 0
    while True:
        number += 1
        command = Command(f"c{number}", Request(("x" * 500,), stdin=b"y" * 3000), 1)
        answer = command.answers["g"] = Answer("g", "life")
        store.submitted(command)
        answer.outputs["stdout"].append(b"z" * 5000)
        store.has_output(command, answer, "stdout", 0)
        answer.state = State.LOST
        store.answered(command, answer)
        store.finished(command)
        store.add_event(Event(number, 0.0, "kind", None, "text"))
        await asyncio.sleep(0)
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def command(name: str) -> Command:
    made = Command(name, Request(("x",)), 1)
    made.answers["g"] = Answer("g", "life")
    return made


def damage(path: Path) -> Iterator[bytes]:
    """Yield the file's content, damaged in one way after the other."""
    whole = path.read_bytes()
    page = 4096
    for number in range(1, len(whole) // page):
        yield whole[: number * page] + os.urandom(page) + whole[(number + 1) * page :]
    yield whole[: len(whole) // 2]
    yield whole[: page + 7]
    yield b"SQLite format 3\0" + os.urandom(3 * page)


def test_one_that_is_killed_loses_nothing_that_was_reported(path: Path) -> None:
    reported = 0
    for _ in range(3):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert writer.stdout is not None
            for _ in range(random.randint(20, 60)):
                reported = int(writer.stdout.readline())
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate(timeout=LIMIT)
        with closing(Store(path)) as store:
            events, commands = store.events(), store.commands()
            assert len(events) >= reported
            # What was told in one turn is there as a whole.
            assert len(commands) == len(events)
            for one in commands:
                assert one.is_finished
                assert one.answers["g"].state is State.LOST
                assert one.answers["g"].outputs["stdout"].end == 5000


async def test_a_damaged_one_is_refused_in_words(path: Path, tmp_path: Path) -> None:
    with closing(Store(path)) as store:
        for number in range(1, 40):
            store.add_event(Event(number, 0.0, "kind", "g", "x" * 500))
            store.submitted(command(f"c{number}"))
            store.add_guest(Guest(f"g{number}", "n"))
    with closing(sqlite3.connect(path)) as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    refused = []
    for content in damage(path):
        for left in tmp_path.glob("store.sqlite-*"):
            left.unlink()
        path.write_bytes(content)
        try:
            with closing(Store(path)) as store:
                store.events(), list(store.guests()), store.commands()
        except HostError as error:
            refused.append((error.message, error.hint))
    assert len(refused) >= 3
    for message, hint in refused:
        assert "store.sqlite" in message
        assert "move the file away" in hint


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET more = '{'",
        "UPDATE events SET more = '[]'",
        "UPDATE events SET number = 'x'",
        "UPDATE guests SET told = '{}'",
        "UPDATE guests SET told = '[1]'",
        "UPDATE commands SET request = '7'",
        "UPDATE commands SET wanted = 'many'",
        "UPDATE commands SET submitted_at = NULL",
        "UPDATE answers SET state = 'ASLEEP'",
        "UPDATE answers SET result = '{\"no\": 1}'",
        "UPDATE outputs SET stream = 'stdin'",
        "UPDATE outputs SET data = 7",
        "UPDATE outputs SET at = 'x'",
        "DROP TABLE outputs",
        "DROP TABLE events",
    ],
)
async def test_rows_that_make_no_sense_are_refused_in_words(statement: str, path: Path) -> None:
    reported = command("mine")
    with closing(Store(path)) as store:
        store.add_event(Event(1, 0.0, "kind", "g", "text"))
        store.add_guest(Guest("g", "n"))
        store.submitted(reported)
        reported.answers["g"].outputs["stdout"].append(b"x")
        store.has_output(reported, reported.answers["g"], "stdout", 0)
    with closing(sqlite3.connect(path)) as base:
        try:
            base.execute(statement)
        except sqlite3.IntegrityError:
            return  # it cannot even be there
        base.commit()
    with closing(Store(path)) as store, pytest.raises(HostError, match="is damaged"):
        _ = store.events(), list(store.guests()), store.commands()
    with pytest.raises(HostError, match="is damaged"):
        async with run_controller(path.parent):
            raise AssertionError


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE events",
        "CREATE TRIGGER no BEFORE INSERT ON events BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        "CREATE UNIQUE INDEX no ON events (kind)",
    ],
)
async def test_one_that_is_damaged_meanwhile_stops_nobody(
    statement: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Store(path)) as store:
        store.add_event(Event(1, 0.0, "kind", "g", "text"))
        await asyncio.sleep(0)
        with closing(sqlite3.connect(path)) as base:
            base.execute(statement)
        for number in range(2, 5):
            store.add_event(Event(number, 0.0, "kind", "g", "text"))
            await asyncio.sleep(0)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        store.add_guest(Guest("g", "n"))
        await asyncio.sleep(0)
        assert [guest.id for guest in store.guests()] == ["g"]


@pytest.mark.parametrize("version", [SCHEMA + 1, 1 << 30, -1])
async def test_one_of_another_boincvm_stays_as_it_is(version: int, path: Path) -> None:
    with closing(Store(path)) as store:
        store.add_event(Event(1, 0.0, "kind", "g", "text"))
    with closing(sqlite3.connect(path)) as base:
        base.execute(f"PRAGMA user_version = {version}")
        base.execute("ALTER TABLE events ADD COLUMN newer TEXT")
    with pytest.raises(HostError, match="was written by another version of boincvm"):
        Store(path)
    with closing(sqlite3.connect(path)) as base:  # which nobody has open
        assert base.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
        assert base.execute("PRAGMA user_version").fetchone() == (version,)
        assert base.execute("SELECT count(*) FROM events").fetchone() == (1,)


@pytest.mark.parametrize("kind", ["directory", "other file"])
async def test_what_is_no_store(kind: str, path: Path) -> None:
    if kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"x" * 100_000)
    with pytest.raises(HostError, match="cannot be used"):
        Store(path)


async def test_of_very_many_events_the_last_are_kept(path: Path) -> None:
    many = 3 * MOST_EVENTS + 77
    with closing(Store(path)) as store:
        for number in range(1, many + 1):
            store.add_event(Event(number, 0.0, "kind", "g", "text"))
            if number % 256 == 0:
                await asyncio.sleep(0)
        found = store.events()
        assert [found[0].number, found[-1].number] == [many - MOST_EVENTS + 1, many]
        assert len(found) == MOST_EVENTS
        (rows,) = store._base.execute("SELECT count(*) FROM events").fetchone()
        assert rows < MOST_EVENTS + 1000


async def test_what_is_forgotten_leaves_nothing(path: Path) -> None:
    with closing(Store(path)) as store:
        for number in range(300):
            reported = command(f"c{number}")
            store.submitted(reported)
            reported.answers["g"].outputs["stderr"].append(b"x" * 1000)
            store.has_output(reported, reported.answers["g"], "stderr", 0)
            store.answered(reported, reported.answers["g"])
        for number in range(300):
            store.forgotten(f"c{number}")
        store.forgotten("never known")
        for table in ("commands", "answers", "outputs"):
            assert store._base.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


@settings(deadline=None, max_examples=60)
@example([("append", 1), ("skip", 0)])
@given(
    some.lists(
        some.tuples(some.sampled_from(["append", "skip"]), some.integers(0, OUTPUT_CAPACITY // 2)),
        max_size=12,
    )
)
def test_output_comes_back_however_it_came(steps: list[tuple[str, int]]) -> None:
    async def check() -> None:
        store, reported = Store(Path(":memory:")), command("mine")
        log = reported.answers["g"].outputs["stdout"]
        last = log.read(0, OUTPUT_CAPACITY)  # what there was when something came
        with closing(store):
            store.submitted(reported)
            for how, count in steps:
                if how == "skip":
                    log.skip(log.end + count)
                before = log.end
                log.append(random.randbytes(count))
                if count:
                    store.has_output(reported, reported.answers["g"], "stdout", before)
                    last = log.read(0, OUTPUT_CAPACITY)
            (found,) = store.commands()
            assert found.answers["g"].outputs["stdout"].read(0, OUTPUT_CAPACITY) == last

    asyncio.run(check())
