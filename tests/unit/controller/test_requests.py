"""A guest handles each request once and answers it, whatever is lost in transit."""

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm.controller.guests import requests
from boincvm.controller.protocol.envelope import Envelope, unpack
from boincvm.controller.protocol.messages import from_guest, to_guest
from boincvm.controller.protocol.requests import MOST_DATA, MOST_OPEN, Answer, Reply
from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestProtocolError,
    InputFileError,
    LimitError,
    UsageError,
)
from boincvm.exit_codes import ExitCode
from boincvm.node import responder
from boincvm.node.responder import Responder
from support.controller.lossy_asks import ask_net, run_loop


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be sent because time passes, but in the tests that are about that."""
    monkeypatch.setattr(requests, "FIRST_WAIT", 3600.0)
    monkeypatch.setattr(responder, "TAKEN_AFTER", 3600.0)


class Verbs:
    """Operations of a guest.

    `done`: the requests in the order in which they arrived. `go`: lets `wait` end.
    """

    def __init__(self) -> None:
        self.done: list[object] = []
        self.go = asyncio.Event()
        self.table = {"say": self.send, "wait": self.wait, "fail": self.fail, "large": self.large}

    async def send(self, arguments: Mapping[str, object], data: bytes) -> Reply:
        self.done.append(arguments.get("number"))
        return Reply({"said": arguments.get("number")}, data[::-1])

    async def wait(self, arguments: Mapping[str, object], data: bytes) -> Reply:
        self.done.append("wait")
        await self.go.wait()
        return Reply({})

    async def fail(self, arguments: Mapping[str, object], _: bytes) -> Reply:
        if "limit" in arguments:
            raise LimitError("too slow", exit_code=ExitCode.TIME_LIMIT_EXCEEDED)
        raise InputFileError("there is no such file", hint="look for it")

    async def large(self, _: Mapping[str, object], data: bytes) -> Reply:
        return Reply({"text": "a" * 70_000}) if data else Reply({}, bytes(MOST_DATA + 1))


async def test_a_question_and_its_answer() -> None:
    verbs = Verbs()
    async with ask_net(verbs.table) as net:
        reply = await net.requester.ask(net.guests["g1"], "say", {"number": 1}, b"abc\n\0")
        assert reply == Reply({"said": 1}, b"\0\ncba")
        assert net.sent == {"ASK": 1, "ANSWER": 1}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1 << 30), st.floats(0, 0.8), st.floats(0, 0.8), st.integers(0, 8),
    st.integers(1, 30),
)  # fmt: skip
def test_whatever_is_lost_each_is_done_once_and_answered(
    seed: int, loses: float, doubles: float, late: int, count: int
) -> None:
    async def run() -> None:
        verbs = {name: Verbs() for name in ("g1", "g2")}
        tables = {name: one.table for name, one in verbs.items()}
        async with ask_net(tables, seed) as net, asyncio.TaskGroup() as tasks:
            net.loses, net.doubles, net.late = loses, doubles, late
            asked = [
                tasks.create_task(net.requester.ask(guest, "say", {"number": number}, b"ab"))
                for number in range(count)
                for guest in net.guests.values()
            ]
            await net.beat_until(*asked)
            for at, task in enumerate(asked):
                assert task.result() == Reply({"said": at // 2}, b"ba")
            for one in verbs.values():
                assert sorted(one.done, key=str) == sorted(range(count), key=str)

    asyncio.run(run())


async def test_a_lost_word_does_not_cost_a_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "FIRST_WAIT", 0.02)
    verbs = Verbs()
    async with ask_net(verbs.table) as net, asyncio.TaskGroup() as tasks:
        net.loses = 1.0
        asked = tasks.create_task(net.requester.ask(net.guests["g1"], "say", {"number": 1}))
        await net.until_sent("ASK", 3)
        net.loses = 0.0
        assert (await asked).table == {"said": 1}


async def test_what_takes_its_time_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "TAKEN_AFTER", 0.01)
    for wait in (0.05, 0.2, 1.0, 4.0):  # on a busy host, the guest may take longer to say so
        monkeypatch.setattr(requests, "FIRST_WAIT", wait)
        verbs = Verbs()
        async with ask_net(verbs.table) as net, asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(net.requester.ask(net.guests["g1"], "wait"))
            await net.until_sent("ASK_TAKEN", 1)
            await run_loop()  # it arrives
            is_in_time = net.sent["ASK"] == 1
            if is_in_time:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(3 * wait):
                        await net.until_sent("ASK", 2)
            verbs.go.set()
            await asked
        if is_in_time:
            break
    assert net.sent == {"ASK": 1, "ASK_TAKEN": 1, "ANSWER": 1}
    assert verbs.done == ["wait"]


async def test_too_late() -> None:
    verbs = Verbs()
    async with ask_net(verbs.table) as net:
        with pytest.raises(BoincvmError, match=r"not answered within 0\.02 s") as caught:
            await net.requester.ask(net.guests["g1"], "wait", within=0.02)
        assert caught.value.exit_code is ExitCode.GUEST_HUNG
        verbs.go.set()
        await run_loop()
        assert net.requester.counts["not asked"] == 1
        assert (await net.requester.ask(net.guests["g1"], "say")).table == {"said": None}


async def test_who_does_not_wait_any_more_leaves_nothing_behind() -> None:
    verbs = Verbs()
    async with ask_net(verbs.table) as net, asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(net.requester.ask(net.guests["g1"], "wait"))
        await run_loop()
        asked.cancel()
        await asyncio.wait((asked,))
        await net.beat()
        assert net.sent["ASK"] == 1
        verbs.go.set()


async def test_what_the_guest_says_went_wrong() -> None:
    async with ask_net(Verbs().table) as net:
        guest = net.guests["g1"]
        with pytest.raises(InputFileError, match="no such file") as caught:
            await net.requester.ask(guest, "fail")
        assert caught.value.hint == "look for it"
        with pytest.raises(BoincvmError, match="too slow") as other:
            await net.requester.ask(guest, "fail", {"limit": 1})
        assert other.value.exit_code is ExitCode.TIME_LIMIT_EXCEEDED
        with pytest.raises(UsageError, match="does not know the request 'dance'"):
            await net.requester.ask(guest, "dance")
        for data in (b"", b"a"):
            with pytest.raises(UsageError, match="too large"):
                await net.requester.ask(guest, "large", data=data)


async def test_a_guest_that_was_started_anew_is_not_asked() -> None:
    verbs = Verbs()
    async with ask_net(verbs.table) as net, asyncio.TaskGroup() as tasks:
        before = net.guests["g1"]
        waits = tasks.create_task(caught(net.requester.ask(before, "wait")))
        await run_loop()
        net.restart("g1")
        assert isinstance(await waits, GuestDiedError)
        with pytest.raises(GuestDiedError, match="restarted"):
            await net.requester.ask(before, "say")
        assert verbs.done == ["wait"]
        verbs.go.set()


async def caught(asked) -> BoincvmError | None:  # type: ignore[no-untyped-def]
    try:
        await asked
    except BoincvmError as error:
        return error
    return None


async def test_guests_that_leave_and_a_controller_that_ends() -> None:
    verbs = {name: Verbs() for name in ("g1", "g2", "g3")}
    async with (
        ask_net({name: one.table for name, one in verbs.items()}) as net,
        asyncio.TaskGroup() as tasks,
    ):
        asked = [
            tasks.create_task(caught(net.requester.ask(guest, "wait")))
            for guest in net.guests.values()
        ]
        await run_loop()
        net.requester.handle_loss("g1")
        assert "g1 has left" in str(await asked[0])
        verbs["g2"].go.set()
        assert await asked[1] is None
        net.requester.close()
        assert "the controller is shutting down" in str(await asked[2])
        with pytest.raises(BoincvmError, match="the controller is shutting down"):
            await net.requester.ask(net.guests["g1"], "say")
        for one in verbs.values():
            one.go.set()


async def test_a_guest_that_comes_back_is_asked_again() -> None:
    async with ask_net(Verbs().table) as net, asyncio.TaskGroup() as tasks:
        net.loses = 1.0
        asked = tasks.create_task(net.requester.ask(net.guests["g1"], "say"))
        await run_loop()
        net.loses = 0.0
        net.requester.handle_hello(net.guests["g1"])
        assert (await asked).table == {"said": None}


async def test_what_is_too_large_or_too_much() -> None:
    verbs = Verbs()
    async with ask_net(verbs.table) as net, asyncio.TaskGroup() as tasks:
        guest = net.guests["g1"]
        for arguments, data in (({"a": "b" * 70_000}, b""), ({}, bytes(MOST_DATA + 1))):
            with pytest.raises(UsageError):
                await net.requester.ask(guest, "say", arguments, data)
        asked = [tasks.create_task(net.requester.ask(guest, "wait")) for _ in range(MOST_OPEN)]
        await run_loop()
        with pytest.raises(UsageError, match="unanswered requests already"):
            await net.requester.ask(guest, "say")
        verbs.go.set()
        await asyncio.gather(*asked)
        assert len(verbs.done) == MOST_OPEN


def end(replies: list[Envelope], tasks: asyncio.TaskGroup, verbs: Verbs) -> Responder:
    return Responder("1", verbs.table, lambda body: replies.append(unpack(body)), tasks)


def asked_word(ask_id: str, **table: object) -> Envelope:
    reported = {"ask-id": ask_id, "instance": "1", "verb": "say", "arguments": {}, **table}
    return Envelope("ASK", reported)


async def test_answers_are_forgotten_but_not_that_they_were_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(responder, "MOST_ANSWERS", 2)
    verbs, replies = Verbs(), list[Envelope]()
    async with asyncio.TaskGroup() as tasks:
        made = end(replies, tasks, verbs)
        for number in range(3):
            made.handle(to_guest(asked_word(f"a{number}")))
            await run_loop(3)
        made.handle(to_guest(asked_word("a0")))
        assert "no longer kept" in str(replies[-1].fields["error"])
        made.handle(to_guest(asked_word("a3", confirmed=["a2", "a1", 7])))
        await run_loop(3)
        made.handle(to_guest(asked_word("a2")))
        assert "no longer kept" in str(replies[-1].fields["error"])
        assert len(verbs.done) == 4


async def test_answers_are_kept_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "MOST_ANSWER_BYTES", 1000)
    verbs, replies = Verbs(), list[Envelope]()
    async with asyncio.TaskGroup() as tasks:
        made = end(replies, tasks, verbs)
        for number in range(20):
            made.handle(to_guest(asked_word(f"a{number}")._replace(data=bytes(200))))
            await run_loop(3)
        made.handle(to_guest(asked_word("a19")))
        assert "result" in replies[-1].fields
        made.handle(to_guest(asked_word("a0")))
        assert "error" in replies[-1].fields
        assert len(verbs.done) == 20


@pytest.mark.parametrize(
    "word",
    [
        Envelope("ASK", {}),
        asked_word("a", arguments=[]),
        asked_word("a", confirmed="b"),
        asked_word("a", confirmed=["b"] * 65),
        asked_word("a" * 65),
        asked_word("a", verb=""),
        asked_word("a", verb="v" * 65),
        asked_word("a")._replace(data=bytes(MOST_DATA + 1)),
    ],
)
async def test_a_controller_that_makes_no_sense(word: Envelope) -> None:
    verbs = Verbs()
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(GuestProtocolError):
            end([], tasks, verbs).handle(to_guest(word))
    assert verbs.done == []


@pytest.mark.parametrize(
    ("table", "data"),
    [
        ({}, b""),
        ({"result": []}, b""),
        ({"result": {}, "error": {}}, b""),
        ({"error": "no"}, b""),
        ({"result": {}}, bytes(MOST_DATA + 1)),
    ],
)
async def test_a_guest_that_makes_no_sense(table: dict[str, object], data: bytes) -> None:
    async with ask_net(Verbs().table) as net, asyncio.TaskGroup() as tasks:
        net.loses = 1.0
        asked = tasks.create_task(net.requester.ask(net.guests["g1"], "say"))
        await run_loop()
        ask_id = next(iter(net.requester._delivery._open["g1"]))
        with pytest.raises(GuestProtocolError):
            net.requester.handle(
                "g1", from_guest(Envelope("ANSWER", {"ask-id": ask_id, **table}, data))
            )
        net.requester.handle("g2", from_guest(Envelope("ANSWER", {"ask-id": ask_id, "result": {}})))
        assert net.requester.counts["not asked"] == 1
        net.loses = 0.0
        await net.beat()
        assert (await asked).table == {"said": None}


@pytest.mark.parametrize(
    ("code", "expected"),
    [(211, ExitCode.JOB_FILE), (7, ExitCode.GUEST_PROTOCOL), ("211", ExitCode.GUEST_PROTOCOL)],
)
def test_errors_of_guests_are_not_trusted(code: object, expected: ExitCode) -> None:
    error = {"message": "a\n\x1b[2Jb" + "c" * 5000, "hint": 7, "code": code}
    made = Answer.read(Envelope("ANSWER", {"ask-id": "a", "error": error})).outcome
    assert isinstance(made, BoincvmError)
    assert made.exit_code is expected
    assert made.message.startswith("a [2Jb")
    assert len(made.message) <= 1000
    assert made.hint == ""


async def test_beats_say_what_still_runs() -> None:
    verbs, replies = Verbs(), list[Envelope]()
    async with asyncio.TaskGroup() as tasks:
        made = end(replies, tasks, verbs)
        made.handle(to_guest(asked_word("a", verb="wait")))
        await run_loop(3)
        made.beat()
        made.handle(to_guest(asked_word("a", verb="wait")))
        assert [word.name for word in replies] == ["ASK_TAKEN", "ASK_TAKEN"]
        verbs.go.set()
    assert [word.name for word in replies][2:] == ["ANSWER"]
