"""Invited hosts: their machines, and no others, on the bus of another host's controller."""

import asyncio
import json
import platform
import stat
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from boincvm.bus.broker_address import BrokerAddress, open_bus
from boincvm.cli.main import main
from boincvm.controller import controller as controller_module
from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.hosts import hosts
from boincvm.controller.hosts.bus_connection import Listen
from boincvm.controller.hosts.invitations import MOST
from boincvm.controller.operations import call
from boincvm.controller.protocol.guest import Guest
from boincvm.errors import BusError, HostDiskFullError, HostError, UsageError
from boincvm.node.node import Node
from support.certificates import Authority
from support.controller.faces import LIMIT, Faces, FakeGuest, bounded
from support.controller.faked import fake_machines  # noqa: F401 - a fixture
from support.controller.invited import LOOPBACK, invite, logged_in
from support.held_port import held_port

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def guest(location: BrokerAddress, name: str, directory: Path) -> AsyncIterator[FakeGuest]:
    """Make a guest of an invited host; it needs no controller."""
    me = Guest(name, name, "far", {}, frozenset(("run", "files", "lifecycle")), f"{name}-1")
    made = FakeGuest(me, directory / name)
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        stack.push_async_callback(made.files.close)
        bus = await open_bus(location)
        stack.push_async_callback(bus.close)
        there = Node(bus, me, made.start, group, 0.2, made.verbs(), made.report)
        await there.open()
        stack.push_async_callback(there.close)
        stack.callback(made.end_programs)
        yield made


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as held:
        yield held


async def until_known(controller: Controller, *names: str) -> None:
    for name in names:
        await bounded(controller.hub.registry.wait_for(name))


async def ids(controller: Controller) -> list[str]:
    reported = await call(controller, "list", {})
    return [str(one["id"]) for one in reported["vms"]]  # type: ignore[union-attr,index,call-overload]


async def output(controller: Controller, command_id: str) -> dict[str, str]:
    """Return the output by machine, once the command has ended."""
    await bounded(controller.hub.commands.find(command_id).finished())
    reported = await call(controller, "command", {"id": command_id, "output": True})
    answers = reported["answers"]
    assert isinstance(answers, dict)
    return {
        name: one["output"]["stdout"] if one["state"] == "ended" else one["state"]  # type: ignore[index,call-overload]
        for name, one in answers.items()
    }


async def until_noticed(controller: Controller) -> None:
    """Return once a controller knows that its broker is away."""
    async with aclosing(controller.events.follow(0)) as events:
        async for event in events:
            if event.kind == "trouble" and "broker" in event.text:
                return


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for one in data:
        yield one


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in chunks])


# It joins.


@pytest.mark.usefixtures("fake_machines")
async def test_a_host_that_joins(tmp_path: Path) -> None:
    """Join with TLS; meanwhile its own controller is restarted."""
    authority = Authority(tmp_path, "authority")
    listen = Listen("127.0.0.1", 0, *authority.sign("bus"))
    async with (
        run_controller(tmp_path / "a", listen=listen) as first,
        AsyncExitStack() as stack,
    ):
        await Faces(first, tmp_path, stack).add_guest("a.1")
        location = await invite(first, "b", authority.pair.certificate)
        remote = await stack.enter_async_context(guest(location, "b.1", tmp_path))
        async with run_controller(tmp_path / "b", broker=location) as second:
            await call(second, "create", {"name": "b.m", "memory": "256M"})
            await bounded(call(second, "start", {"vms": "b.m"}))
            await until_known(second, "b.1", "b.m")
            await until_known(first, "b.1", "b.m")
            assert await ids(first) == ["a.1", "b.1", "b.m"]
            assert await ids(second) == ["b.1", "b.m"]
            machine = first.overview.vm("b.m")
            assert (machine["host"], machine["is_local"]) == (platform.node(), False)
            assert first.overview.vm("b.1")["host"] == "far"
            invited = {vm["id"]: vm["invited_as"] for vm in first.overview.vms("all")}  # type: ignore[index,call-overload]
            assert invited == {"a.1": None, "b.1": "b", "b.m": "b"}
            assert second.overview.vm("b.m")["invited_as"] is None

            both = {"vms": "*.1", "argv": ["say", "hello"], "id": "same"}
            assert (await call(first, "exec", both))["vms"] == ["a.1", "b.1"]
            assert await output(first, "same") == {"a.1": "hello", "b.1": "hello"}
            own = {**both, "argv": ["say", "mine"]}
            assert (await call(second, "exec", own))["vms"] == ["b.1"]
            assert await output(second, "same") == {"b.1": "mine"}

            outcomes = await bounded(
                first.files.put("b.1", "f", pieces(b"there", b" and back"), is_tree=False)
            )
            assert outcomes == {"b.1": {"state": "put", "size": 14}}
            got = await bounded(second.files.get("b.1", "f"))
            assert await bounded(whole(got.chunks)) == b"there and back"
            got = await bounded(first.files.get("b.1", "f"))
            assert await bounded(whole(got.chunks)) == b"there and back"

            reported = await bounded(call(first, "pause", {"vms": "b.m"}))
            assert reported == {"outcomes": {"b.m": {"state": "paused"}}}
            for controller, command_id in ((first, "of-a"), (second, "of-b")):
                wait = {"vms": "b.1", "argv": ["wait", command_id], "id": command_id}
                await call(controller, "exec", wait)
                found = controller.hub.commands.find(command_id)
                async with asyncio.timeout(20):
                    while found.answers["b.1"].outputs["stdout"].end < len(command_id):
                        await found.changed()
        remote.end_programs()  # while its controller is away
        assert await output(first, "of-a") == {"b.1": "of-a"}
        async with run_controller(tmp_path / "b", broker=location) as second:
            assert await output(second, "of-b") == {"b.1": "of-b"}
            await until_known(second, "b.m")
            assert len(remote.programs) == 4
            reported = await bounded(call(second, "resume", {"vms": "b.m"}))
            assert reported == {"outcomes": {"b.m": {"state": "running"}}}
            await bounded(call(second, "power_off", {"vms": "b.m"}))


async def test_its_own_controller_knows_no_names_but_its_own(tmp_path: Path) -> None:
    async with run_controller(tmp_path / "b") as alone:  # before it was invited
        await call(alone, "create", {"name": "old", "memory": "256M"})
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first:
        location = await invite(first)
        async with run_controller(tmp_path / "b", broker=location) as second:
            for name in ("c", "c.1", "bb.1", "b"):
                with pytest.raises(UsageError, match="invited as b") as caught:
                    await call(second, "create", {"name": name, "memory": "256M"})
                assert f"begin with b. like b.{name}" in caught.value.hint
            await call(second, "create", {"name": "b.1.2", "memory": "256M"})
            (trouble,) = [one for one in second.events.list_after(0) if one.kind == "trouble"]
            assert trouble.vm == "old"
            reported = await call(second, "start", {"vms": "old"})
            assert "invited as b" in json.dumps(reported)
            assert second.side.bus.connections == 1  # nobody has cut it off
            for operation in ("invite", "revoke"):
                with pytest.raises(UsageError, match="another's broker"):
                    await call(second, operation, {"name": "x"})
            with pytest.raises(UsageError, match="another's broker"):
                await call(second, "invitations", {})


async def test_both_controllers_are_started_anew(tmp_path: Path, port: int) -> None:
    """Only a digest is stored."""
    listen = Listen("127.0.0.1", port)
    async with run_controller(tmp_path / "a", listen=listen) as first:
        location = await invite(first)
    stored = tmp_path / "a/invitations.json"
    assert location.passcode not in stored.read_text()
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert not any(location.passcode in one.text for one in first.events.list_after(0))
    async with AsyncExitStack() as stack:
        async with run_controller(tmp_path / "a", listen=listen) as first:
            await stack.enter_async_context(guest(location, "b.1", tmp_path))
            await until_known(first, "b.1")
        async with run_controller(tmp_path / "a", listen=listen) as first:
            await call(first, "exec", {"vms": "b.1", "argv": ["say", "hi"], "id": "1"})
            assert await output(first, "1") == {"b.1": "hi"}
            reported = await call(first, "invitations", {})
            (one,) = reported["invitations"]  # type: ignore[misc]
            assert isinstance(one, dict)
            assert (one["name"], one["guests"]) == ("b", 1)


@pytest.mark.usefixtures("fake_machines")
async def test_the_controller_that_has_invited_it_is_away(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests end with an error, and wait for nothing that may never come."""
    monkeypatch.setattr(controller_module, "BUS_LIMIT", 0.1)
    listen = Listen("127.0.0.1", port)
    async with AsyncExitStack() as stack:
        async with run_controller(tmp_path / "a", listen=listen) as first:
            location = await invite(first)
            second = await stack.enter_async_context(
                run_controller(tmp_path / "b", broker=location)
            )
            await call(second, "create", {"name": "b.m", "memory": "256M"})
            await call(second, "create", {"name": "b.off", "memory": "256M"})
            await bounded(call(second, "start", {"vms": "b.m"}))
        await bounded(until_noticed(second))
        for operation, given in (("exec", {"argv": ["x"]}), ("ping", {})):
            with pytest.raises(BusError, match="the broker at 127") as caught:
                await bounded(call(second, operation, {"vms": "b.m", **given}))
            assert "invited this host" in caught.value.hint
        machine = second.machines.find("b.m")
        assert machine is not None
        for is_silent in (False, True):
            machine.set_silent(is_silent=is_silent)
            for verb in ("pause", "stop", "save", "reset"):
                reported = await bounded(call(second, verb, {"vms": "b.m"}))
                assert "the broker at 127.0.0.1 port" in json.dumps(reported), verb
        reported = await bounded(call(second, "start", {"vms": "b.off"}))
        assert "the broker at 127.0.0.1 port" in json.dumps(reported)
        assert {vm["id"]: vm["state"] for vm in (await call(second, "list", {}))["vms"]} == {
            "b.m": "stuck",
            "b.off": "powered_off",
        }
        machine.set_silent(is_silent=False)
        async with run_controller(tmp_path / "a", listen=listen) as first:
            await until_known(first, "b.m")
            await bounded(second.side.bus.until_connected(LIMIT))
            reported = await bounded(call(second, "power_off", {"vms": "b.m"}))
            assert reported == {"outcomes": {"b.m": {"state": "powered_off"}}}


# It goes.


async def test_it_is_cut_off_at_once(tmp_path: Path) -> None:
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first, AsyncExitStack() as stack:
        await Faces(first, tmp_path, stack).add_guest("a.1")
        location, other = await invite(first), await invite(first, "bb")
        await stack.enter_async_context(guest(other, "bb.1", tmp_path))
        await stack.enter_async_context(guest(location, "b.1", tmp_path))
        second = await stack.enter_async_context(run_controller(tmp_path / "b", broker=location))
        await until_known(first, "b.1", "bb.1")
        await call(first, "exec", {"vms": "*.1", "argv": ["wait"], "id": "1"})
        peer = await logged_in(location)
        await call(first, "revoke", {"name": "b"})
        assert await ids(first) == ["a.1", "bb.1"]
        peer.send("SEND", b"HELLO {}", destination="/topic/host.b.2")
        assert await peer.is_closed()
        await peer.close()
        assert first.hub.commands.find("1").answers["b.1"].why == "the guest has left"
        async with asyncio.timeout(20):
            async for event in second.events.follow(0):
                if event.kind == "trouble":
                    assert "the login or the passcode is wrong" in event.text
                    break
        assert not second.side.bus.is_connected
        with pytest.raises(BusError, match="login or the passcode is wrong"):
            await open_bus(location)
        assert await ids(first) == ["a.1", "bb.1"]
        again = await invite(first)
        assert again.passcode != location.passcode
        with pytest.raises(BusError, match="login or the passcode is wrong"):
            await open_bus(location)
        await (await open_bus(again)).close()
        await call(first, "revoke", {"name": "b"})
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first:
        reported = await call(first, "invitations", {})
        assert [one["name"] for one in reported["invitations"]] == ["bb"]  # type: ignore[union-attr,index,call-overload]


async def test_a_disk_that_is_full_keeps_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first:
        location = await invite(first)
        peer = await logged_in(location)
        with monkeypatch.context() as patch:
            patch.setattr("boincvm.controller.hosts.invitations.write_atomically", full)
            with pytest.raises(HostDiskFullError, match="No space left"):
                await call(first, "revoke", {"name": "b"})
            with pytest.raises(HostDiskFullError, match="No space left"):
                await call(first, "invite", {"name": "c"})
        assert await peer.is_closed()
        await peer.close()
        await call(first, "revoke", {"name": "b"})
        assert await call(first, "invitations", {}) == {"invitations": []}


# It is hostile.


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


# What is invalid.


@pytest.mark.parametrize("name", ["", "all", "a b", "*", "a/b", "ä", "a" * 63, ".".join("a" * 15)])
async def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    async with run_controller(tmp_path / "a") as first:
        with pytest.raises(UsageError):
            await call(first, "invite", {"name": name})
        assert not (tmp_path / "a/invitations.json").exists()


async def test_each_id_has_one_host(tmp_path: Path) -> None:
    async with run_controller(tmp_path / "a") as first:
        await call(first, "create", {"name": "x.1", "memory": "256M"})
        with pytest.raises(UsageError, match=r"x\.1 already exists"):
            await call(first, "invite", {"name": "x"})
        with pytest.raises(UsageError, match=r"x\.1 already exists"):
            await call(first, "invite", {"name": "x.1"})
        await call(first, "invite", {"name": "x.2"})
        await call(first, "invite", {"name": "b"})
        with pytest.raises(UsageError, match="already invited") as caught:
            await call(first, "invite", {"name": "b"})
        assert "--revoke b" in caught.value.hint
        with pytest.raises(UsageError, match="b already exists"):
            await call(first, "invite", {"name": "b.c"})
        for name in ("b", "b.1"):
            with pytest.raises(UsageError, match="of the invited host b"):
                await call(first, "create", {"name": name, "memory": "256M"})
        await call(first, "create", {"name": "bb.1", "memory": "256M"})
        with pytest.raises(UsageError, match="no host 'c' is invited"):
            await call(first, "revoke", {"name": "c"})
        await call(first, "revoke", {"name": "b"})
        await call(first, "create", {"name": "b.1", "memory": "256M"})
        for number in range(MOST - 1):
            await call(first, "invite", {"name": f"host-{number}"})
        with pytest.raises(UsageError, match=f"{MOST} hosts"):
            await call(first, "invite", {"name": "one-more"})


async def test_an_id_that_another_host_has(tmp_path: Path) -> None:
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first:
        location = await invite(first)
        async with (
            guest(location, "b.1", tmp_path),
            run_controller(tmp_path / "b", broker=location) as second,
        ):
            await until_known(second, "b.1")
            with pytest.raises(UsageError, match="is already on the bus, from the host far"):
                await call(second, "create", {"name": "b.1", "memory": "256M"})


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"b": 1}', '{"b": {"digest": "00", "made": 1}}', '{"b": {"digest": "xy"}}',
     '{"all": {"digest": "' + "00" * 32 + '", "made": 1}}', "[" * 60_000, " " * (1 << 20) + "{}"],
    ids=lambda text: text[:30],
)  # fmt: skip
async def test_a_damaged_file_lets_nobody_in(text: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/invitations.json").write_text(text)
    with pytest.raises(HostError, match="is damaged") as caught:
        async with run_controller(tmp_path / "a"):
            pass
    assert "invite all hosts again" in caught.value.hint


# The command line, and what it says.


@pytest.mark.parametrize(
    ("listen", "expected", "note"),
    [
        (None, "stomp://b@HOST:PORT --passcode-file passcode", "start it with --bus HOST:PORT"),
        (LOOPBACK, "stomp://b@{node}:{port} --passcode-file passcode", "no other host can reach"),
        (Listen("::1", 0), "stomp://b@{node}:{port} --passcode-file passcode", "--bus-cert"),
    ],
)
async def test_the_command_for_the_other_host(
    listen: Listen | None, expected: str, note: str, tmp_path: Path
) -> None:
    async with run_controller(tmp_path / "a", listen=listen) as first:
        reported = await call(first, "invite", {"name": "b"})
        port = first.side.address[1] if first.side.address else 0
        whole = f"boincvm controller --broker {expected}"
        assert reported["command"] == whole.format(port=port, node=platform.node())
        assert note in str(reported["notes"])


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("0.0.0.0", f"stomp://b@{platform.node()}:61613"),
        ("::", f"stomp://b@{platform.node()}:61613"),
        ("localhost", f"stomp://b@{platform.node()}:61613"),
        ("2001:db8::1", "'stomp://b@[2001:db8::1]:61613'"),
        ("big.example", "stomp://b@big.example:61613"),
    ],
)
async def test_the_name_by_which_another_host_reaches_it(
    address: str, shown: str, tmp_path: Path
) -> None:
    async with run_controller(tmp_path / "a", listen=LOOPBACK) as first:
        side = first.side._replace(listen=Listen(address, 0), address=(address, 61613))
        assert f" {shown} " in hosts._command(side, "b")


async def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = Authority(tmp_path, "authority").sign("bus")
    async with (
        run_controller(tmp_path / "a", listen=Listen("127.0.0.1", 0, *pair)) as first,
        AsyncExitStack() as stack,
    ):
        faces = Faces(first, tmp_path, stack)
        await faces.serve_unix()

        async def run(*words: str) -> tuple[int, str, str]:
            argv = ["invite", "--controller", f"unix:{faces.socket}", *words]
            code = await asyncio.to_thread(main, argv)
            return code, *capsys.readouterr()

        assert (await run())[1] == "no host is invited; invite one: boincvm invite NAME\n"
        code, out, err = await run("b")
        assert first.side.broker is not None
        assert code == 0
        assert first.side.broker.accounts.verify("b", out.removesuffix("\n")) is not None
        assert "--passcode-file passcode --broker-ca authority-bus.pem\n" in err
        assert out.strip() not in err
        assert (await run())[1].splitlines()[1].split()[0] == "b"
        code, out, err = await run("b")
        assert (code, out) == (UsageError.exit_code, "")
        assert "already invited" in err
        assert (await run("--revoke"))[0] == UsageError.exit_code
        assert (await run("--revoke", "b"))[:2] == (0, "b is no longer invited\n")
        assert json.loads((await run("--json"))[1]) == {"invitations": []}
        assert set(json.loads((await run("--json", "c"))[1])) == {
            "name", "passcode", "command", "notes",
        }  # fmt: skip
