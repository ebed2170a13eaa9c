"""A link that becomes quiet and resumes, with misbehaving guests and damaged states."""

import asyncio
import json
import socket
import time
from pathlib import Path, PurePosixPath

import pytest

from boincvm.bus.stomp import Parser
from boincvm.errors import (
    GuestDiedError,
    GuestHungError,
    GuestProtocolError,
    HostError,
    OutputFileError,
)
from boincvm.guestlink.attach_frame import attach_frame
from boincvm.guestlink.clone_identity import CloneIdentity
from boincvm.guestlink.get import get_tree
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import WINDOW, GuestProgram
from boincvm.hypervisor.channel import SocketChannel
from support.scripted_guest import ScriptedGuest, linked

LIMIT = 10.0
pytestmark = pytest.mark.timeout(60)


def start(link: GuestLink, rooms: list[int] | None = None) -> GuestProgram:
    return GuestProgram(
        link,
        ["prog"],
        directory="/",
        environment={},
        output=lambda *_: None,
        on_stdin_room=(rooms if rooms is not None else []).append,
        on_status=lambda *_: None,
    )


def attached(link: GuestLink, state: dict[str, object]) -> GuestProgram:
    return GuestProgram.attached(link, state, output=lambda *_: None, on_status=lambda *_: None)


async def quiet(guest: ScriptedGuest, link: GuestLink) -> None:
    quiescing = asyncio.ensure_future(link.quiesce(LIMIT))
    await guest.receive("quiesce")
    await guest.send_message("quiesced")
    await quiescing


async def test_what_is_on_its_way_is_counted_right_in_the_next_process() -> None:
    async with linked() as (guest, link):
        program = start(link)
        await guest.receive("run")
        program.feed(b"0123456789")
        await guest.receive("stdin")
        await guest.send_message("stdout", 1, bytes(300_000))
        await guest.send_message("taken", 1, bytes="4")
        await guest.send_message("status-channel", 1, b"fraction-done 0.5\nfraction-")
        await quiet(guest, link)
        # From here on the guest hears nothing of what is said.
        program.feed(b"held")
        program.end_input()
        program.grant(300_000)
        states = json.loads(json.dumps([link.state(), program.state()]))
    assert states[1]["unanswered"] == WINDOW - 300_027
    async with linked(states[0]) as (guest, link):
        program = attached(link, states[1])
        assert program.untaken == 10
        attaching = asyncio.ensure_future(link.attach(LIMIT))
        assert int((await guest.receive("attach")).headers["clock-ns"]) > 1 << 60
        assert (await guest.receive("credit")).headers["bytes"] == "300027"
        assert (await guest.receive("stdin")).body == b"held"
        assert "ends" in (await guest.receive("stdin")).headers
        await guest.send_message("attached", calls="1")
        await attaching
        again = start(link)
        assert (await guest.receive("run")).headers["call"] == "2"
        assert again is not None


async def test_a_program_that_begins_while_the_guest_is_quiet_is_not_in_what_is_saved() -> None:
    async with linked() as (guest, link):
        before = start(link)
        await guest.receive("run")
        assert not before.is_held_back
        await quiet(guest, link)
        program = start(link)
        assert not before.is_held_back
        assert program.is_held_back
        attaching = asyncio.ensure_future(link.attach(LIMIT))
        await guest.receive("attach")
        assert (await guest.receive("run")).headers["call"] == "2"
        await guest.send_message("attached", calls="1")
        await attaching
        assert not program.is_held_back


async def test_a_program_that_the_guest_has_no_more() -> None:
    async with linked() as (guest, link):
        stored, lost = start(link), start(link)
        for _ in range(2):
            await guest.receive("run")
        await quiet(guest, link)
        late = start(link)  # not yet said, so it cannot be lost
        attaching = asyncio.ensure_future(link.attach(LIMIT))
        for word in ("attach", "run"):
            await guest.receive(word)
        await guest.send_message("attached", calls="1")
        await attaching
        with pytest.raises(GuestDiedError, match="lost track of prog: No such process"):
            await lost.wait()
        end = {"user-us": "0", "system-us": "0", "max-rss-kib": "0", "oom-kills": "0"}
        for program, call in ((stored, 1), (late, 3)):
            await guest.send_message("exit", call, code="7", **end, **{"disk-free": "0"})
            assert (await program.wait()).code == 7


@pytest.mark.parametrize(
    ("word", "headers"),
    [
        ("stdout", {}),
        ("attached", {}),
        ("attached", {"calls": "x"}),
        ("attached", {"calls": "-1"}),
        ("attached", {"calls": "9" * 30}),
    ],
)
async def test_garbage_instead_of_attached(word: str, headers: dict[str, str]) -> None:
    async with linked({"next_call": 2}) as (guest, link):
        attaching = asyncio.ensure_future(link.attach(LIMIT))
        await guest.receive("attach")
        await guest.send_message(word, **headers)
        with pytest.raises(GuestProtocolError):
            await attaching


@pytest.mark.parametrize("word", ["stdout", "quiesced", "attached"])
async def test_a_guest_that_speaks_while_it_is_quiet(word: str) -> None:
    async with linked({"next_call": 2}) as (guest, link):
        await guest.send_message(word, calls="")
        async with asyncio.timeout(LIMIT):
            error = await link.failure
        assert isinstance(error, GuestProtocolError)
        assert "sent something while it had to be quiet" in error.message


async def test_a_guest_that_does_not_become_quiet_may_go_on() -> None:
    async with linked() as (guest, link):
        program = start(link)
        with pytest.raises(GuestHungError, match=r"did not become quiet within 0\.05 s"):
            await link.quiesce(0.05)
        attaching = asyncio.ensure_future(link.attach(LIMIT))
        await guest.send_message("stdout", 1, b"x")
        await guest.send_message("quiesced")
        await guest.send_message("attached", calls="1")
        await attaching
        assert not link.failure.done()
        assert program.state()["unanswered"] == WINDOW - 1


async def test_a_guest_that_dies_instead() -> None:
    async with linked() as (guest, link):
        quiescing = asyncio.ensure_future(link.quiesce(LIMIT))
        await guest.receive("quiesce")
        guest.channel.close()
        with pytest.raises(GuestDiedError):
            await quiescing


async def test_a_transfer_is_waited_for(tmp_path: Path) -> None:
    async with linked() as (guest, link):
        name = PurePosixPath("out")
        getting = asyncio.ensure_future(
            get_tree(link, None, name, name, directory=tmp_path, maximum_bytes=1)
        )
        await guest.receive("get")
        quiescing = asyncio.ensure_future(link.quiesce(LIMIT))
        await guest.send_message("failed", 1, reason="2")
        with pytest.raises(OutputFileError):
            await getting
        await guest.receive("quiesce")  # nothing but the transfer's end lets it be said
        await guest.send_message("quiesced")
        await quiescing


GOOD: dict[str, object] = {
    "call": 1,
    "name": "prog",
    "unanswered": 1,
    "untaken": 0,
    "input": "",
    "input_ends": False,
    "watched": ["a"],
    "unfinished": "",
}


@pytest.mark.parametrize(
    "change",
    [
        {"call": 0},
        {"call": 5},
        {"call": True},
        {"call": 1.0},
        {"call": None},
        {"name": None},
        {"name": b"x"},
        {"unanswered": WINDOW + 1},
        {"unanswered": "1"},
        {"untaken": -1},
        {"input": "zz"},
        {"input": None},
        {"input_ends": 1},
        {"watched": None},
        {"watched": [1]},
        {"watched": ["a"] * 1000},
        {"unfinished": "0" * 100_000},
        {"unfinished": 7},
    ],
)
async def test_a_damaged_state_of_a_program(change: dict[str, object]) -> None:
    async with linked({"next_call": 5}) as (_, link):
        with pytest.raises(HostError, match="saved state"):
            attached(link, {**GOOD, **change})
        with pytest.raises(HostError, match="saved state"):
            attached(link, {name: value for name, value in GOOD.items() if name not in change})
        attached(link, GOOD)
        with pytest.raises(HostError, match="an invalid call 1"):
            attached(link, GOOD)  # twice


@pytest.mark.parametrize(
    "state", [{}, {"next_call": 0}, {"next_call": "2"}, {"next_call": 1 << 63}]
)
async def test_a_damaged_state_of_a_link(state: dict[str, object]) -> None:
    local, remote = socket.socketpair()
    with local, remote, pytest.raises(HostError, match="saved state"):
        await GuestLink.open(SocketChannel(local), attach_to=state)


async def test_a_watched_file() -> None:
    async with linked() as (guest, link):
        program = start(link)
        changes: list[tuple[str, int, bytes]] = []
        for path in ("a", "b/c"):
            program.watch(path, lambda *change: changes.append(change))
        for path in ("/a", "../a", ""):
            with pytest.raises(ValueError, match=r"is not a path|cannot be watched"):
                program.watch(path, lambda *_: None)
        await guest.receive("run")
        assert (await guest.receive("watch")).body == b"a"
        assert (await guest.receive("watch")).headers["watch"] == "1"
        await guest.send_message("changed", 1, b"tail", watch="1", mtime_ns="5", size="9")
        await guest.send_message("changed", 1, bytes(4097), watch="1", mtime_ns="5", size="9")
        async with asyncio.timeout(LIMIT):
            assert isinstance(await link.failure, GuestProtocolError)
        assert changes == [("b/c", 5, b"tail")]


async def test_a_guest_that_was_asked_before_there_was_a_link() -> None:
    """It may answer at any time, and is not asked again."""
    async with linked({"next_call": 1}, attach_is_sent=True) as (guest, link):
        await guest.send_message("attached", calls="")
        received = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, received.set)
        await received.wait()
        await link.attach(LIMIT)
        start(link)
        assert (await guest.receive("run")).headers["message-id"] == "2"


def test_a_copy_s_attach_frame_is_what_attach_would_have_sent() -> None:
    new = CloneIdentity(b"\x01" * 64, b"")
    (frame,) = Parser().feed(attach_frame(8.0, new))
    head = frame.headers
    assert (frame.command, head["message"], head["call"]) == ("MESSAGE", "attach", "0")
    assert (head["message-id"], head["heart-beat"]) == ("1", "2000")
    assert head["entropy"] == new.entropy.hex()
    assert abs(int(head["clock-ns"]) - time.time_ns()) < 60e9
