"""What the controller stores on disk."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boincvm.controller.commands.command import Answer, Command, State
from boincvm.controller.events import Event
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.program import Request, Result
from boincvm.controller.store import Store
from boincvm.errors import HostError


@asynccontextmanager
async def store(directory: Path) -> AsyncIterator[Store]:
    made = Store(directory / "store.sqlite")
    try:
        yield made
    finally:
        made.close()


def command() -> Command:
    made = Command("mine", Request(("say", "hello"), {"WORD": "x"}, "d", 2.0, b"\0in"), 1)
    made.answers["g"] = Answer("g", "life")
    return made


async def test_commands_with_their_output_come_back(tmp_path: Path) -> None:
    reported = command()
    answer = reported.answers["g"]
    async with store(tmp_path) as first:
        first.submitted(reported)
        for data in (b"one\n", b"\xfftwo"):
            begin = answer.outputs["stdout"].end
            answer.outputs["stdout"].append(data)
            first.has_output(reported, answer, "stdout", begin)
        answer.state, answer.result = State.ENDED, Result(3, None, "", {"user_time": 0.5}, 8, 0)
        first.answered(reported, answer)
        first.finished(reported)
    async with store(tmp_path) as second:
        (found,) = second.commands()
        back = found.answers["g"]
        assert (found.id, found.request, found.is_finished) == ("mine", reported.request, True)
        assert (back.state, back.result, back.instance) == (State.ENDED, answer.result, "life")
        assert back.outputs["stdout"].read(0, 100) == (0, b"one\n\xfftwo")
        second.forgotten("mine")
        assert second.commands() == []


async def test_of_long_output_the_end_comes_back(tmp_path: Path) -> None:
    reported = command()
    log = reported.answers["g"].outputs["stdout"]
    async with store(tmp_path) as first:
        first.submitted(reported)
        for number in range(40):
            begin = log.end
            log.append(bytes([number]) * (1 << 16))
            first.has_output(reported, reported.answers["g"], "stdout", begin)
    async with store(tmp_path) as second:
        back = second.commands()[0].answers["g"].outputs["stdout"]
        assert (back.first, back.end) == (log.first, log.end)
        assert back.read(0, 1 << 20) == log.read(0, 1 << 20)


async def test_guests_and_events_come_back(tmp_path: Path) -> None:
    guest = Guest("g", "name", "host", {"site": "cern"}, frozenset(("run",)), "life")
    async with store(tmp_path) as first:
        first.add_guest(guest)
        first.add_guest(guest._replace(id="gone"))
        first.remove_guest("gone")
        first.add_event(Event(7, 1.5, "vm_state", "g", "it runs", {"state": "running"}))
    async with store(tmp_path) as second:
        assert list(second.guests()) == [guest]
        assert second.events() == [Event(7, 1.5, "vm_state", "g", "it runs", {"state": "running"})]


async def test_a_full_disk_stops_nobody_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "boincvm.controller")

    async def happen(numbers: range) -> None:
        for number in numbers:
            made.add_event(Event(number, 0.0, "vm_state", "g", "x" * 3000))
            await asyncio.sleep(0)

    async with store(tmp_path) as made:
        (pages,) = made._base.execute("PRAGMA page_count").fetchone()
        made._base.execute(f"PRAGMA max_page_count={pages + 5}")
        await happen(range(1, 50))
        stored = len(made.events())
        assert 0 < stored < 10
        assert [record.message.split(" for now")[0] for record in caplog.records] == [
            "events cannot be kept on disk"
        ]
        made._base.execute("PRAGMA max_page_count=100000")
        await happen(range(50, 52))
        assert len(made.events()) == stored + 2
        assert "again" in caplog.records[-1].message


async def test_what_is_no_store_of_ours(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(HostError, match="cannot be used"):
        Store(tmp_path / "store.sqlite")
    (tmp_path / "store.sqlite").unlink()
    async with store(tmp_path) as made:
        made._base.execute("PRAGMA user_version=99")
    with pytest.raises(HostError, match="another version of boincvm"):
        Store(tmp_path / "store.sqlite")
