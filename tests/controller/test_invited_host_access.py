"""What an invited host may do on the bus of the controller that has invited it."""

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from boincvm.controller.controller import run_controller
from boincvm.controller.operations import call
from support.controller.faces import Faces
from support.controller.invited import LOOPBACK, ids, invite, logged_in, output, until_known

pytestmark = pytest.mark.timeout(120)


FOREIGN = ("a.1", "a", "bb", "bb.1", "b2.1", "a.b.1", "b-.1", "B.1")


def said_to(places: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    return [("SEND", {"destination": location}) for location in places]


def listened(places: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    return [("SUBSCRIBE", {"id": "1", "destination": location}) for location in places]


SPEAKS = said_to(
    [f"/topic/host.{one}" for one in FOREIGN] + ["/topic/host", "/topic/b.1", "/queue/host.b.1"]
)
COMMANDS = said_to([*(f"/topic/guest.{one}" for one in FOREIGN), "/topic/guest.*", "/topic/guest"])
LISTENS = listened(
    [
        *(f"/topic/{kind}.{one}" for kind in ("host", "guest") for one in FOREIGN),
        "/topic/**", "/topic/*.b.1", "/topic/host.**", "/topic/guest.**", "/topic/guest.*",
        "/topic/guest.*.1", "/topic/host.*.**", "/topic/guest.bb.**", "/queue/guest.b.1",
    ]
)  # fmt: skip


@pytest.mark.parametrize("attacks", [SPEAKS, COMMANDS, LISTENS], ids=["speak", "command", "listen"])
async def test_it_cannot_do_so_for_others(
    attacks: list[tuple[str, dict[str, str]]], tmp_path: Path
) -> None:
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first, AsyncExitStack() as stack:
        local = await Faces(first, tmp_path, stack).add_guest("a.1")
        location = await invite(first)
        for command, headers in attacks:
            for more in ({}, {"transaction": "t", "sender": "a.1"}):
                peer = await logged_in(location)
                if more:
                    peer.send("BEGIN", transaction="t")
                body = b"" if command == "SUBSCRIBE" else b"BYE"
                peer.send(command, body, **headers, **more)
                peer.send("COMMIT", transaction="t", receipt="end")
                assert (await peer.receive()).command == "ERROR"
                assert await peer.is_closed()
                await peer.close()
        await call(first, "exec", {"vms": "a.1", "argv": ["say", "hi"], "id": "1"})
        assert await output(first, "1") == {"a.1": "hi"}
        assert await ids(first) == ["a.1"]
        assert len(local.programs) == 1
        assert "gave a false id" not in first.hub.counts


async def test_it_answers_for_itself_alone(tmp_path: Path) -> None:
    """It may send anything about others' commands in its own name."""
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first, AsyncExitStack() as stack:
        local = await Faces(first, tmp_path, stack).add_guest("a.1")
        location = await invite(first)
        peer = await logged_in(location)
        await call(first, "exec", {"vms": "a.1", "argv": ["wait"], "id": "1"})
        owner = first.hub.commands._owner
        lie = json.dumps({"cmd-id": f"{owner}1", "code": 0, "stdout": 0, "stderr": 0})
        here = {"destination": "/topic/host.b.1", "sender": "a.1"}
        for body in ('HELLO {"name": "a.1"}', f"CMD_RESULT {lie}", "BYE"):
            peer.send("SEND", body.encode(), **here, receipt=body[:3])
            assert (await peer.receive()).command == "RECEIPT"
        await call(first, "ping", {"vms": "a.1"})
        assert first.hub.counts["BYE"] == 1
        assert not first.hub.commands.find("1").is_finished
        assert await ids(first) == ["a.1"]
        local.end_programs()
        assert await output(first, "1") == {"a.1": ""}
        await peer.close()


async def test_it_has_so_many_guests_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boincvm.controller.guests.registry.MOST_OF_ACCOUNT", 3)
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first, AsyncExitStack() as stack:
        peer = await logged_in(await invite(first))

        async def announce(word: str, number: int) -> None:
            there = f"/topic/host.b.{number}"
            peer.send("SEND", word.encode(), destination=there, receipt="r")
            assert (await peer.receive()).command == "RECEIPT"

        for number in (1, 2, 3, 4, 3, 5):
            await announce("HELLO {}", number)
        await Faces(first, tmp_path, stack).add_guest("a.1")  # others are not kept out by it
        assert await ids(first) == ["a.1", "b.1", "b.2", "b.3"]
        assert first.hub.counts["invalid"] == 2
        await announce("BYE", 1)
        await announce("BYE", 1)
        await announce("HELLO {}", 4)
        await announce("HELLO {}", 5)
        await until_known(first, "b.4")
        await call(first, "ping", {"vms": "a.1"})
        assert await ids(first) == ["a.1", "b.2", "b.3", "b.4"]
        await peer.close()
