"""What a guest that cannot be trusted may send: the link ends, and the host goes on."""

import asyncio
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm.bus.stomp import MAXIMUM_HEAD, encode
from boincvm.errors import (
    GuestDiedError,
    GuestHungError,
    GuestProtocolError,
    ProgramStartError,
)
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import STDIN_WINDOW, WINDOW, GuestProgram
from boincvm.hypervisor.channel import SocketChannel
from support.scripted_guest import CONNECT, Pair, ScriptedGuest

LIMIT = 10.0
pytestmark = pytest.mark.timeout(60)


def send_frame(**headers: str) -> bytes:
    return encode("SEND", {"destination": "/host", **headers})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GARBAGE\n\n\0", "'GARBAGE' is not a STOMP command"),
        (b"SEND\n" + b"x:" + b"y" * MAXIMUM_HEAD, "a head of more than"),
        (b"SEND\ncontent-length:2000000\n\n", "a body of 2000000 bytes"),
        (b"SEND\n\n" + b"x" * (1 << 20) + b"xx", "a body of more than"),
        (encode("MESSAGE", {}), "an agent does not send MESSAGE"),
        (encode("CONNECT", {"accept-version": "1.1"}), "does not speak STOMP 1.2"),
        (encode("CONNECT", {}), "no 'accept-version' header"),
        (CONNECT + CONNECT, "connects only once"),
        (send_frame(message="stdout"), "call is '', not a number"),
        (send_frame(message="stdout", call="0"), "there is no call 0"),
        (send_frame(message="stdout", call="99"), "there is no call 99"),
        (send_frame(message="stdout", call="-1"), "call is '-1', not a number"),
        (send_frame(message="stdout", call="9" * 5000), "not a number"),
        (send_frame(message="stdout", call="\u0661"), "not a number"),
    ],
)
async def test_what_ends_the_link(guest_and_link: Pair, data: bytes, words: str) -> None:
    guest, link = guest_and_link
    await guest.send(data)
    error = await link.failure
    assert isinstance(error, GuestProtocolError)
    assert words in error.message
    assert error.message.isprintable()


@pytest.mark.parametrize("version", [{}, {"link-version": "1"}, {"link-version": "3"}])
async def test_an_agent_of_another_version(guest_and_link: Pair, version: dict[str, str]) -> None:
    """It is in an image that was built by an earlier boincvm, which is not the guest's fault."""
    guest, link = guest_and_link
    subscribe = encode("SUBSCRIBE", {"id": "0", "destination": "/guest"})
    await guest.send(encode("CONNECT", {"accept-version": "1.2", **version}) + subscribe)
    error = await link.failure
    assert isinstance(error, GuestProtocolError)
    assert error.message == "the agent in the image is of another version of boincvm"
    assert "boincvm image build" in error.hint
    assert not link.ready.done()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_host(data: bytes) -> None:
    async def send() -> None:
        local, remote = socket.socketpair()
        local.setblocking(False)
        link = await GuestLink.open(SocketChannel(local))
        faults: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        remote.sendall(data)
        remote.close()
        async with asyncio.timeout(LIMIT):
            assert isinstance(await link.failure, GuestProtocolError | GuestDiedError)
        await asyncio.sleep(0)
        assert faults == []

    asyncio.run(send())


async def test_silence_counts_as_hung_and_beats_as_life(
    guest_and_link: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, link = guest_and_link
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)  # which is the event loop's clock, too
    link.expect_beats(3.0)
    for _ in range(6):
        now += 2.0
        await guest.send(b"\n")
        for _ in range(3):  # it arrives, and timers are due
            await asyncio.sleep(0)
        assert not link.failure.done()
    now += 3.0
    assert isinstance(await link.failure, GuestHungError)


async def test_the_guest_is_asked_for_beats_within_the_limit() -> None:
    local, remote = socket.socketpair()
    local.setblocking(False)
    link = await GuestLink.open(SocketChannel(local), silence_limit=2)
    guest = ScriptedGuest(remote)
    await guest.send(CONNECT)
    async with asyncio.timeout(LIMIT):
        frame = await guest.next_frame()
    assert (frame.command, frame.headers["heart-beat"]) == ("CONNECTED", "0,500")
    link.close()
    remote.close()
    await asyncio.sleep(0)


# Programs.


def program(link: GuestLink, output: list[bytes], rooms: list[int]) -> GuestProgram:
    return GuestProgram(
        link,
        ["prog"],
        directory="/work",
        environment={},
        output=lambda _, data: output.append(data),
        on_stdin_room=rooms.append,
    )


END = {
    "user_us": "1", "system_us": "1", "max_rss_kib": "1", "oom_kills": "0", "disk_free": "1"
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "headers"),
    [
        ("taken", {"bytes": "1"}),
        ("taken", {"bytes": "-1"}),
        ("taken", {"bytes": str(1 << 50)}),
        ("taken", {}),
        ("exit", {}),
        ("exit", {**END, "code": "256"}),
        ("exit", {**END, "code": "-1"}),
        ("exit", {**END, "signal": "65"}),
        ("exit", {**END, "code": "0", "user_us": "9" * 4000}),
        ("failed", {"reason": "9" * 30}),
        ("failed", {"reason": "5000"}),
        ("transfer-disk", {}),
        ("", {}),
        ("status-channel", {}),
        ("usage", {"user-us": "1", "system-us": "1"}),
        ("usage", {"user-us": "1", "system-us": "1", "rss-kib": "9" * 19}),
        ("changed", {"watch": "0", "mtime-ns": "1", "size": "1"}),
    ],
)
async def test_a_program_that_says_what_it_may_not(
    guest_and_link: Pair, word: str, headers: dict[str, str]
) -> None:
    guest, link = guest_and_link
    running = program(link, [], [])
    await guest.send_message(word, 1, **headers)
    assert isinstance(await link.failure, GuestProtocolError)
    assert running is not None


async def test_more_output_than_credit(guest_and_link: Pair) -> None:
    guest, link = guest_and_link
    output: list[bytes] = []
    running = program(link, output, [])
    piece = bytes(1 << 18)
    for _ in range(WINDOW // len(piece) + 2):  # what full pipes hold needs no credit
        await guest.send_message("stdout", 1, piece)
    await asyncio.sleep(0.05)
    assert not link.failure.done()
    await guest.send_message("stderr", 1, b"x")
    assert isinstance(await link.failure, GuestProtocolError)
    assert sum(map(len, output)) == WINDOW + 2 * len(piece)
    assert running is not None


async def test_input_is_taken_as_it_was_fed(guest_and_link: Pair) -> None:
    guest, link = guest_and_link
    rooms: list[int] = []
    running = program(link, [], rooms)
    running.feed(bytes(STDIN_WINDOW))
    await guest.send_message("taken", 1, bytes=str(STDIN_WINDOW))
    await guest.send_message("exit", 1, **END, code="0")
    assert (await running.wait()).code == 0
    assert rooms == [STDIN_WINDOW]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"reason": "2"}, "no such program in the guest: prog"),
        ({"reason": "2", "at": "directory"}, "prog cannot start in its directory"),
        ({"reason": "2", "at": "interpreter"}, "it does not have the interpreter"),
        ({"reason": "13"}, "cannot execute prog: Permission denied"),
    ],
)
async def test_why_a_program_did_not_start(
    guest_and_link: Pair, headers: dict[str, str], words: str
) -> None:
    guest, link = guest_and_link
    running = program(link, [], [])
    await guest.send_message("failed", 1, **headers)
    with pytest.raises(ProgramStartError, match=words):
        await running.wait()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("prog", "image build --package NAME"), ("ls -l | wc", "run sh -c"), ("a>b", "run sh -c")],
)
async def test_what_to_do_about_a_missing_program(
    guest_and_link: Pair, name: str, hint: str
) -> None:
    guest, link = guest_and_link
    running = GuestProgram(link, [name], directory="/", environment={}, output=lambda *_: None)
    await guest.send_message("failed", 1, reason="2")
    with pytest.raises(ProgramStartError) as caught:
        await running.wait()
    assert hint in caught.value.hint


async def test_a_program_that_the_guest_lost(guest_and_link: Pair) -> None:
    guest, link = guest_and_link
    running = program(link, [], [])
    await guest.send_message("lost", 1, reason="5")
    with pytest.raises(GuestDiedError, match="lost track of prog: Input/output error"):
        await running.wait()


async def test_a_command_line_that_is_too_long(guest_and_link: Pair) -> None:
    _, link = guest_and_link
    with pytest.raises(ProgramStartError, match="larger than 1"):
        GuestProgram(link, ["a" * (1 << 20)], directory="/", environment={}, output=lambda *_: None)
