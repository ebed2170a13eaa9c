"""Later input reaches each program once and in order, no faster than the program reads it."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm.controller.commands.command import Command, State
from boincvm.controller.commands.table import CommandTable
from boincvm.controller.protocol.commands import WINDOW, GiveInput
from boincvm.controller.protocol.envelope import Envelope, unpack
from boincvm.controller.protocol.messages import from_guest, to_guest
from boincvm.controller.protocol.program import Request
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.node import command as guest_command
from boincvm.node.command import NodeCommand
from support.controller.lossy import FakeProgram, Net, net, states, stdout

CAT = Request(("cat",), keep_input=True)
DEAF = Request(("wait",), keep_input=True)


async def give_all(made: Net, command: Command, pieces: list[bytes]) -> None:
    for piece in pieces:
        await made.table.give_input(command.id, piece)
    await made.table.give_input(command.id, b"", ends=True)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.floats(0, 0.7),
    st.floats(0, 0.5),
    st.lists(st.integers(0, 3000), max_size=12),
    st.integers(0, 2000),
)
def test_whatever_is_lost_doubled_or_late_each_byte_comes_once(
    seed: int, loses: float, muddles: float, sizes: list[int], first: int
) -> None:
    pieces = [bytes((n * 31 + at) % 251 for at in range(size)) for n, size in enumerate(sizes)]
    begin = b"b" * first

    async def run() -> None:
        async with net("g1", "g2", seed=seed) as made, asyncio.TaskGroup() as givers:
            made.loses, made.doubles, made.delays = loses, muddles, muddles
            command = made.table.submit(
                made.guests.values(), Request(("cat",), stdin=begin), keep_input=True
            )
            giver = givers.create_task(give_all(made, command, pieces))
            for beat in range(200):
                if beat > 20:
                    made.loses = made.doubles = made.delays = 0.0
                await made.beat()
                if command.is_finished:
                    break
            await giver
            assert states(command) == {"g1": "ENDED", "g2": "ENDED"}
            whole = begin + b"".join(pieces)
            assert [stdout(answer) for answer in command.answers.values()] == [whole] * 2
            assert made.runs == {"g1": 1, "g2": 1}

    asyncio.run(run())


async def test_more_than_there_is_room_for_waits() -> None:
    async with net("g1", "g2") as made, asyncio.TaskGroup() as givers:
        command = made.table.submit(made.guests.values(), DEAF)
        giver = givers.create_task(made.table.give_input(command.id, bytes(WINDOW + 1)))
        await made.run_until_idle()
        assert [program.untaken for program in made.programs] == [WINDOW, WINDOW]
        assert not giver.done()
        made.programs[0]._listener.input_taken(10)
        await made.run_until_idle()
        assert not giver.done()  # the other one has taken nothing
        made.programs[1].signal(15)  # has ended, and holds up nobody
        await made.run_until_idle()
        await giver
        assert made.programs[0].untaken == WINDOW + 1
        await made.table.give_input(command.id, b"ab")


async def test_a_large_input_in_many_windows() -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), CAT)
        whole = bytes(range(256)) * 2000
        await made.table.give_input(command.id, whole, ends=True)
        await command.finished()
        assert stdout(command.answers["g1"]) == whole
        assert made.programs[0].most_untaken <= WINDOW


@pytest.mark.parametrize("lost", [True, False])
async def test_who_gives_to_a_guest_that_goes_does_not_wait(lost: bool) -> None:
    async with net() as made, asyncio.TaskGroup() as givers:
        command = made.table.submit(made.guests.values(), DEAF)
        giver = givers.create_task(made.table.give_input(command.id, bytes(2 * WINDOW)))
        await made.run_until_idle()
        assert not giver.done()
        if lost:
            made.table.handle_loss("g1", "it said BYE")
        else:
            made.table.drop(command.id)
        await giver
        await made.table.give_input(command.id, b"nobody hears it", ends=True)


async def test_one_guest_of_two_is_lost() -> None:
    async with net("g1", "g2") as made, asyncio.TaskGroup() as givers:
        command = made.table.submit(made.guests.values(), DEAF)
        giver = givers.create_task(made.table.give_input(command.id, bytes(WINDOW + 5)))
        await made.run_until_idle()
        made.programs[0]._listener.input_taken(5)
        await made.run_until_idle()
        assert not giver.done()
        made.table.handle_loss("g2", "it said BYE")
        await giver
        assert command.answers["g1"].state is State.RUNNING


async def test_two_givers_do_not_mix() -> None:
    async with net() as made, asyncio.TaskGroup() as givers:
        command = made.table.submit(made.guests.values(), CAT)
        size = WINDOW + 1000
        for letter in (b"a", b"b"):
            givers.create_task(made.table.give_input(command.id, letter * size))
        await made.run_until_idle()
        await made.table.give_input(command.id, b"", ends=True)
        await command.finished()
        assert stdout(command.answers["g1"]) == b"a" * size + b"b" * size


async def test_a_controller_that_was_started_anew_loses_no_input_silently() -> None:
    async with net() as made:
        running = made.table.submit(made.guests.values(), CAT)
        anew = CommandTable(lambda _guest, _body: None)
        anew.load([running])
        with pytest.raises(UsageError, match="restarted"):
            await anew.give_input(running.id, b"more")


async def test_input_for_a_program_that_is_yet_to_come_back() -> None:
    sent: list[Envelope] = []
    state = {
        "id": "1",
        "request": {**CAT._asdict(), "stdin": ""},
        "result": None,
        "program": {"any": "state"},
        "outputs": {name: {"first": 0, "data": ""} for name in ("stdout", "stderr")},
        "input": [3, 3, False],
        "fraction": None,
        "time_left": None,
        "seconds": 0.0,
    }
    command = NodeCommand.restored(state, lambda body: sent.append(unpack(body)))
    fed = GiveInput("1", 3, True, b"def")
    command.take_input(fed)
    assert sent == []
    program = FakeProgram(CAT, command)
    command.attach(program)
    (asks,) = sent
    assert asks.name == "CMD_INPUT_TAKEN"
    assert asks.fields == {**ID, "offset": 3, "received": 3, "ends": False, "again": True}
    command.take_input(fed)
    command.take_input(fed)
    assert program.untaken == 3
    assert (await program.wait()).code == 3


async def test_input_that_nobody_takes() -> None:
    async with net() as made:
        closed = made.table.submit(made.guests.values(), Request(("wait",)))
        with pytest.raises(UsageError, match="takes no input"):
            await made.table.give_input(closed.id, b"a")
        stored = made.table.submit(made.guests.values(), DEAF)
        await made.table.give_input(stored.id, b"a", ends=True)
        with pytest.raises(UsageError, match="has ended"):
            await made.table.give_input(stored.id, b"a")
        with pytest.raises(UsageError, match="no command"):
            await made.table.give_input("none", b"a")


ID = {"cmd-id": "1"}


@pytest.mark.parametrize(
    "table",
    [
        {"offset": 0},
        {"offset": 0, "received": 4},
        {"offset": 2, "received": 1},
        {"offset": 0, "received": -1},
        {"offset": 0, "received": 3, "ends": True},
    ],
)
async def test_a_guest_that_makes_no_sense(table: dict[str, object]) -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), DEAF, command_id="1")
        await made.table.give_input("1", b"abc")
        with pytest.raises(GuestProtocolError):
            made.table.handle("g1", from_guest(Envelope("CMD_INPUT_TAKEN", {**ID, **table})))
        other = made.table.submit(made.guests.values(), Request(("wait",)), command_id="2")
        with pytest.raises(GuestProtocolError):
            made.table.handle("g1", from_guest(Envelope("CMD_INPUT_TAKEN", {"cmd-id": other.id})))
        assert command.answers["g1"].input_confirmed == 0


@pytest.mark.parametrize(
    ("offset", "data"), [(0, bytes(WINDOW + 1)), (-1, b"a"), (None, b"a"), (0, b"more")]
)
async def test_a_controller_that_makes_no_sense(offset: object, data: bytes) -> None:
    async with net() as made:
        made.table.submit(made.guests.values(), DEAF, command_id="1")
        await made.run_until_idle()
        if data == b"more":
            await made.table.give_input("1", b"abc", ends=True)
            await made.run_until_idle()
        untaken = made.programs[0].untaken
        with pytest.raises(GuestProtocolError):
            made.ends["g1"].handle(to_guest(Envelope("CMD_INPUT", {**ID, "offset": offset}, data)))
        assert made.programs[0].untaken == untaken


async def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_command, "PROGRESS_EVERY", 3600.0)
    async with net() as made:
        command = made.table.submit(made.guests.values(), DEAF)
        await made.run_until_idle()
        made.programs[0]._listener.status_channel(0.25, 20)
        await made.run_until_idle()
        assert command.answers["g1"].progress == 0.25
        made.programs[0]._listener.status_channel(0.5, 20)
        made.programs[0]._listener.status_channel(None, 20)
        await made.run_until_idle()
        assert command.answers["g1"].progress == 0.25  # once in PROGRESS_EVERY seconds
        made.programs[0].signal(15)
        await command.finished()
        assert command.answers["g1"].progress == 0.5


async def test_progress_that_was_lost_is_said_again() -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), DEAF)
        await made.run_until_idle()
        made.loses = 1.0
        made.programs[0]._listener.status_channel(0.25, 20)
        made.loses = 0.0
        assert command.answers["g1"].progress is None
        await made.beat()
        assert command.answers["g1"].progress == 0.25


async def test_a_program_that_floods_its_status_channel_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guest_command, "PROGRESS_EVERY", 0.01)
    monkeypatch.setattr(guest_command, "STATUS_CHANNEL_RATE", 1000)
    async with net() as made:
        made.table.submit(made.guests.values(), DEAF)
        await made.run_until_idle()
        program = made.programs[0]
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for _ in range(10):
            program._listener.status_channel(None, 100)
        assert program.granted == 100
        while program.granted < 1000:
            program.was_granted.clear()
            await program.was_granted.wait()
        assert loop.time() - begin > 0.09


@pytest.mark.parametrize("fraction", [-0.1, 1.1, "1", True, None])
async def test_progress_that_is_none(fraction: object) -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), DEAF, command_id="1")
        with pytest.raises(GuestProtocolError):
            made.table.handle(
                "g1", from_guest(Envelope("CMD_PROGRESS", {**ID, "fraction": fraction}))
            )
        assert command.answers["g1"].progress is None
