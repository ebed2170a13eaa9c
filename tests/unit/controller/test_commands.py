"""Commands reach their guests once, and their answers are complete, whatever is lost in transit."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm.controller.commands import retention
from boincvm.controller.commands.command import OUTPUT_CAPACITY, State
from boincvm.controller.protocol.envelope import Envelope, pack
from boincvm.controller.protocol.messages import from_guest, to_guest
from boincvm.controller.protocol.program import Request
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.node.commands import MOST_RUNNING
from support.controller.lossy import net, states, stdout

HELLO = Request(("say", "hello"))
WAIT = Request(("wait",))


async def test_one_command() -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), HELLO)
        assert states(command) == {"g1": "SENT"}
        await command.finished()
        answer = command.answers["g1"]
        assert (answer.state, stdout(answer)) == (State.ENDED, b"hello")
        assert answer.result is not None
        assert (answer.result.code, answer.result.signal) == (3, None)
        assert answer.result.resources["user_time"] == 0.5
        assert stdout(made.table.find(command.id).answers["g1"]) == b"hello"  # not gone by reading


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.floats(0, 0.8), st.integers(0, 5000))
def test_whatever_is_lost_it_runs_once_and_answers_whole(
    seed: int, loses: float, size: int
) -> None:
    async def run() -> None:
        text = "".join(str(n) for n in range(size))[:size]
        async with net("g1", "g2", seed=seed) as made:
            made.loses = loses
            command = made.table.submit(made.guests.values(), Request(("say", text)))
            await made.run_until_idle()
            for beat in range(200):
                if command.is_finished:
                    break
                if beat > 20:
                    made.loses = 0.0
                await made.beat()
            assert states(command) == {"g1": "ENDED", "g2": "ENDED"}
            assert [stdout(answer) for answer in command.answers.values()] == [text.encode()] * 2
            assert made.runs == {"g1": 1, "g2": 1}

    asyncio.run(run())


async def test_the_same_id_runs_once_and_another_request_may_not_have_it() -> None:
    async with net() as made:
        first = made.table.submit(made.guests.values(), HELLO, command_id="mine")
        assert made.table.submit(made.guests.values(), HELLO, command_id="mine") is first
        await first.finished()
        assert made.table.submit(made.guests.values(), HELLO, command_id="mine") is first
        with pytest.raises(UsageError, match="another command"):
            made.table.submit(made.guests.values(), WAIT, command_id="mine")
        assert made.runs == {"g1": 1}


async def test_a_replayed_request_runs_no_second_time() -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), HELLO)
        await command.finished()
        await made.run_until_idle()
        table = {"cmd-id": command.id, "instance": "1", "argv": ["say"], "stdout": 0, "stderr": 0}
        made.ends["g1"].handle(to_guest(Envelope("CMD_RUN", table)))
        await made.run_until_idle()
        assert made.runs == {"g1": 1}
        assert made.table.counts["not asked"] == 1


async def test_a_guest_that_was_started_anew_has_lost_it() -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), WAIT)
        await made.run_until_idle()
        made.restart("g1")
        assert states(command) == {"g1": "LOST"}
        assert command.answers["g1"].why == "the guest was restarted"
        assert made.runs == {"g1": 1}
        made.ends["g1"].handle(
            to_guest(Envelope("CMD_RUN", {"cmd-id": "late", "instance": "1", "argv": ["say"]}))
        )
        assert made.runs == {"g1": 1}


async def test_a_guest_that_comes_back_goes_on() -> None:
    async with net() as made:
        made.loses = 1.0
        command = made.table.submit(made.guests.values(), HELLO)
        await made.run_until_idle()
        assert states(command) == {"g1": "SENT"}
        made.loses = 0.0
        made.table.handle_hello(made.guests["g1"])
        await command.finished()
        assert stdout(command.answers["g1"]) == b"hello"


async def test_a_guest_that_goes_leaves_the_others() -> None:
    async with net("g1", "g2") as made:
        command = made.table.submit(made.guests.values(), WAIT)
        await made.run_until_idle()
        made.table.handle_loss("g1", "it said BYE")
        assert states(command) == {"g1": "LOST", "g2": "RUNNING"}
        made.table.signal(command.id, 15)
        await command.finished()
        result = command.answers["g2"].result
        assert result is not None
        assert result.signal == 15


async def test_a_signal_right_behind_the_request() -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), WAIT)
        made.table.signal(command.id, 15)
        await command.finished()
        result = command.answers["g1"].result
        assert result is not None
        assert result.signal == 15


async def test_the_first_answers_are_enough() -> None:
    async with net("g1", "g2", "g3") as made:
        command = made.table.submit(made.guests.values(), WAIT, first=1)
        await made.run_until_idle()
        made.ends["g2"].handle(
            to_guest(Envelope("CMD_SIGNAL", {"cmd-id": command.id, "signal": 2}))
        )
        await command.finished()
        assert states(command) == {"g1": "DROPPED", "g2": "ENDED", "g3": "DROPPED"}
        assert command.answers["g1"].why == "enough others have answered"


async def test_within_a_time() -> None:
    async with net("g1", "g2") as made:
        command = made.table.submit(made.guests.values(), WAIT, within=0.05)
        await command.finished()
        assert states(command) == {"g1": "DROPPED", "g2": "DROPPED"}
        assert command.answers["g1"].why == "too late"


async def test_a_timeout_kills_the_program() -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), WAIT._replace(timeout=0.05))
        await command.finished()
        result = command.answers["g1"].result
        assert result is not None
        assert (result.signal, result.timed_out) == (9, True)


async def test_a_program_that_does_not_start() -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), Request(("missing",)))
        await command.finished()
        result = command.answers["g1"].result
        assert result is not None
        assert (result.code, result.error) == (None, "there is no such program")


async def test_output_is_kept_bounded() -> None:
    async with net() as made:
        whole = (b"0123456789" * 7000)[:65536]
        request = Request(("say", *["x" * 10_000] * 5), stdin=whole)
        command = made.table.submit(made.guests.values(), request)
        await command.finished()
        log = command.answers["g1"].outputs["stdout"]
        assert (log.first, log.end) == (0, 50_000 + 65536)
        for number in range(20):
            log.append(bytes([number]) * 65536)
        assert log.end - log.first == OUTPUT_CAPACITY


async def test_nobody_to_ask() -> None:
    async with net() as made:
        command = made.table.submit([], HELLO)
        await command.finished()
        assert command.answers == {}


async def test_finished_commands_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_COMMANDS", 3)
    async with net() as made:
        waits = made.table.submit(made.guests.values(), WAIT)
        made.table.submit([], HELLO, command_id="old")
        made.now = retention.RETENTION_TIME + 1
        made.table.submit([], HELLO, command_id="new")
        assert [command.id for command in made.table.all()] == [waits.id, "new"]
        made.table.submit([], HELLO, command_id="newer")
        made.table.submit([], HELLO, command_id="newest")
        assert waits.id in [command.id for command in made.table.all()]
        with pytest.raises(UsageError, match="no command 'new'"):
            made.table.find("new")


async def test_so_many_run_in_one_guest_and_no_more() -> None:
    async with net() as made:
        for _ in range(MOST_RUNNING):
            made.table.submit(made.guests.values(), WAIT)
        one_more = made.table.submit(made.guests.values(), WAIT)
        await one_more.finished()
        result = one_more.answers["g1"].result
        assert result is not None
        assert result.error == "64 commands are already running here"
        assert made.runs == {"g1": MOST_RUNNING}


async def test_there_is_an_end_to_open_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_COMMANDS", 2)
    async with net() as made:
        for _ in range(2):
            made.table.submit(made.guests.values(), WAIT)
        with pytest.raises(UsageError, match="have not ended"):
            made.table.submit(made.guests.values(), WAIT)


@pytest.mark.parametrize(
    ("request_", "command_id"),
    [
        (Request(()), None),
        (Request(("",)), None),
        (Request(("a", "b" * 70_000)), None),
        (Request(("a",), stdin=bytes(70_000)), None),
        (HELLO, "a" * 129),
        (HELLO, "a\nb"),
        (HELLO, ""),
    ],
)
async def test_what_is_no_command(request_: Request, command_id: str | None) -> None:
    async with net() as made:
        with pytest.raises(UsageError):
            made.table.submit(made.guests.values(), request_, command_id=command_id)
        with pytest.raises(UsageError):
            made.table.submit(made.guests.values(), WAIT._replace(timeout=0))
        with pytest.raises(UsageError):
            made.table.submit(made.guests.values(), WAIT, first=0)
        assert made.runs == {"g1": 0}


ID = {"cmd-id": "1"}
SIZES = {"stdout": 0, "stderr": 0}


@pytest.mark.parametrize(
    "word",
    [
        Envelope("CMD_RESULT", {}),
        Envelope("CMD_RESULT", ID),
        Envelope("CMD_RESULT", {**ID, **SIZES, "code": 256}),
        Envelope("CMD_RESULT", {**ID, **SIZES, "code": 1, "signal": 2}),
        Envelope("CMD_RESULT", {**ID, **SIZES, "code": 1, "resources": 2}),
        Envelope("CMD_RESULT", {**ID, **SIZES, "error": ["a"]}),
        Envelope("CMD_RESULT", {**ID, **SIZES, "error": "a", "hint": ["a"]}),
        Envelope("CMD_RESULT", {**ID, "code": 1, "stdout": -1, "stderr": 0}),
        Envelope("CMD_OUTPUT", {**ID, "stream": "log", "offset": 0}, b"a"),
        Envelope("CMD_OUTPUT", {**ID, "stream": "stdout", "offset": -1}, b"a"),
        Envelope("CMD_EVAL", ID),
    ],
)
async def test_a_guest_that_makes_no_sense(word: Envelope) -> None:
    async with net() as made:
        command = made.table.submit(made.guests.values(), WAIT, command_id="1")
        with pytest.raises(GuestProtocolError):
            made.table.handle("g1", from_guest(word))
        assert command.answers["g1"].is_open


async def test_a_guest_answers_only_for_itself_and_only_what_it_was_asked() -> None:
    async with net("g1", "g2") as made:
        command = made.table.submit([made.guests["g1"]], WAIT)
        lie = Envelope("CMD_RESULT", {"cmd-id": command.id, **SIZES, "code": 0})
        made.table.handle("g2", from_guest(lie))
        assert (states(command), made.table.counts["not asked"]) == ({"g1": "SENT"}, 1)


@pytest.mark.parametrize(
    "table",
    list(
        itertools.chain(
            [{"argv": value} for value in ([], "a", [1], ["a\0"], None)],
            [{"argv": ["a"], "env": value} for value in ([], {"a": 1}, {"a": "\0"})],
            [{"argv": ["a"], "timeout": value} for value in (0, -1, "1")],
            [{"argv": ["a"], "directory": 1}],
        )
    ),
)
async def test_a_controller_that_makes_no_sense(table: dict[str, object]) -> None:
    async with net() as made:
        with pytest.raises(GuestProtocolError):
            made.ends["g1"].handle(to_guest(Envelope("CMD_RUN", {**ID, "instance": "1", **table})))
        assert made.runs == {"g1": 0}


def test_a_word_of_each_kind_fits() -> None:
    assert len(pack("CMD_OUTPUT", {**ID, "stream": "stdout", "offset": 1 << 52})) < 100
