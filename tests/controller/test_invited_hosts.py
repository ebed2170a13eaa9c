"""Hosts that are invited join the bus of another host's controller, and go."""

import asyncio
import json
import os
import platform
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from boincvm.bus.broker_address import open_bus
from boincvm.controller import controller as controller_module
from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.hosts.bus_connection import Listen
from boincvm.controller.operations import call
from boincvm.errors import BusError, HostDiskFullError, UsageError
from support.certificates import Authority
from support.controller.faces import LIMIT, Faces, bounded
from support.controller.faked import fake_machines  # noqa: F401 - a fixture
from support.controller.invited import LOOPBACK, guest, ids, invite, logged_in, output, until_known
from support.held_port import held_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as held:
        yield held


async def until_noticed(controller: Controller) -> None:
    """Return once a controller knows that its broker is away."""
    async with aclosing(controller.events.follow(0)) as events:
        async for event in events:
            if event.kind == "trouble" and "broker" in event.text:
                return


async def until_line(lines: asyncio.StreamReader, words: str) -> str:
    async for line in lines:
        if words in line.decode():
            return line.decode()
    raise AssertionError(f"it has ended without {words!r}")


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


async def test_its_log_says_that_the_controller_that_has_invited_it_is_away(
    tmp_path: Path, port: int
) -> None:
    listen = Listen("127.0.0.1", port)
    async with AsyncExitStack() as stack:
        async with run_controller(tmp_path / "a", listen=listen) as first:
            (tmp_path / "passcode").write_text((await invite(first)).passcode)
            running = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "boincvm.cli.main", "controller"),
                *("--broker", f"stomp://b@127.0.0.1:{port}"),
                *("--passcode-file", tmp_path / "passcode"),
                env={**os.environ, "BOINCVM_HOME": str(tmp_path / "home")},
                stderr=asyncio.subprocess.PIPE,
            )
            stack.push_async_callback(running.wait)
            stack.callback(running.terminate)
            assert running.stderr is not None
            await bounded(until_line(running.stderr, "Ctrl-C ends it"))
        lost = await bounded(until_line(running.stderr, "has closed the connection"))
        assert f"the broker at 127.0.0.1 port {port}" in lost
        async with run_controller(tmp_path / "a", listen=listen):
            await bounded(until_line(running.stderr, "the broker is there again"))


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
