"""Machines of an invited host: listed while they are off, started, created and removed there."""

import asyncio
import json
import platform
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.controller.controller import run_controller
from boincvm.controller.guests import other_hosts, registry
from boincvm.controller.machines import machines
from boincvm.controller.machines.controller_node import RemoteRights
from boincvm.controller.protocol import messages
from boincvm.errors import BoincvmError, HostError, UsageError
from support.controller.controlled import Controlled
from support.controller.faces import Faces, bounded
from support.controller.faked import fake_machines  # noqa: F401 - a fixture
from support.controller.invited import FakeHost, invite, reached
from support.controller.two_hosts import (
    error_of,
    invited,
    inviting,
    page,
    state,
    two,
    until,
    until_state,
    until_there,
)

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("fake_machines", "short_pause")]


# They are listed.


async def test_those_that_are_off_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with two(tmp_path) as (first, second, _), AsyncExitStack() as stack:
        await second("create", name="b.1", memory="256M", cpus=2, labels={"site": "cern"})
        await second("create", name="b.2", memory="256M", disk="8G", labels={"fake": "refuses"})
        await until_state(first, b_1="powered_off", b_2="powered_off")
        found = await first.vm("b.1")
        expected = {
            "host": platform.node(), "is_local": False, "presence": "absent", "image": "base",
            "memory": 256 << 20, "cpus": 2, "disk": None, "state_label": "powered off",
        }  # fmt: skip
        assert {name: found[name] for name in expected} == expected
        assert found["labels"]["site"] == "cern"
        assert found["operations"] == ["remove", "start"]
        assert (await first.vm("site=cern,cpus>=2,memory=256"))["id"] == "b.1"
        assert (await first.vm("b.2"))["disk"] == 8 << 30

        await second("start", vms="b.1")
        await until_state(first, b_1="running")
        running = await first.vm("b.1")
        assert (running["presence"], running["image"], running["cpus"]) == ("present", "base", 2)
        assert "error" in await second.outcome("start", "b.2")
        await until_state(first, b_2="aborted")
        assert "no hypervisor" in (await first.vm("b.2"))["why"]
        await second("save", vms="b.1")
        await until_state(first, b_1="saved")
        assert (await first.vm("b.1"))["operations"] == ["discard", "remove", "start"]
        with pytest.raises(UsageError, match=r"b\.1 is saved") as caught:
            await first("exec", vms="b.1", argv=["true"])
        assert "boincvm start b.1" in caught.value.hint

        faces = Faces(first.controller, tmp_path, stack)
        await faces.serve_unix()

        async def ls(*words: str) -> str:
            argv = ["ls", "--controller", f"unix:{faces.socket}", *words]
            assert await asyncio.to_thread(main, argv) == 0
            return capsys.readouterr().out

        (line,) = [line.split() for line in (await ls()).splitlines() if "b.1" in line]
        assert line[:5] == ["b.1", "saved", "b", "base", "2"]
        tables = json.loads(await ls("--json"))["vms"]
        assert [(one["id"], one["state"]) for one in tables] == [
            ("b.1", "saved"), ("b.2", "aborted"),
        ]  # fmt: skip

        await second("remove", vms="b.1")
        await until_state(first, b_1="")
        kinds = [
            (event.kind, event.more.get("state"))
            for event in first.controller.events.list_after(0)
            if event.vm == "b.1" and event.kind.startswith("vm_") and event.kind != "vm_load"
        ]
        assert kinds[0] == ("vm_state", "powered_off")
        assert kinds[-1] == ("vm_removed", None)


async def test_names_beyond_its_part_are_not_reported(tmp_path: Path) -> None:
    """The host has a machine from before it was invited."""
    async with run_controller(tmp_path / "b") as alone:
        await Controlled(alone)("create", name="old", memory="256M")
    async with two(tmp_path) as (first, second, _):
        await second("create", name="b.1", memory="256M")
        await until_state(first, b_1="powered_off")
        assert [one["id"] for one in (await first("list"))["vms"]] == ["b.1"]
        assert "is not a machine of the host b" in (
            await _ask(first, "start", "old")
        )  # which no honest controller sends


async def _ask(asked: Controlled, verb: str, vm: str) -> str:
    hosts = asked.controller.hub.other_hosts
    host = hosts.get("b")
    assert host is not None
    with pytest.raises(BoincvmError) as caught:
        await bounded(hosts.ask(host, verb, vm, {}, within=30))
    return caught.value.message


async def test_a_host_goes_away_and_comes_back(tmp_path: Path) -> None:
    async with inviting(tmp_path) as first:
        location = await invite(first.controller)
        async with run_controller(tmp_path / "b", broker=location) as second:
            await Controlled(second)("create", name="b.1", memory="256M")
            await until_state(first, b_1="powered_off")
        await until_state(first, b_1="unknown")
        found = await first.vm("b.1")
        assert found["state_label"] == "unknown"
        assert found["why"] == "the controller of the host b has ended"
        assert found["operations"] == []
        error = await error_of(first, "start", "b.1")
        assert error["message"] == "the controller of the host b has ended"
        with pytest.raises(HostError, match="has ended"):
            await first("create", name="b.2", memory="256M")
        with pytest.raises(UsageError, match="unknown: the controller of the host b has ended"):
            await first("exec", vms="b.1", argv=["true"])
        async with invited(tmp_path, location) as again:
            await until_state(first, b_1="powered_off")
            await again("create", name="b.2", memory="256M")
            await until_state(first, b_2="powered_off")

        def changes() -> tuple[int, int]:
            kinds = [event.kind for event in first.controller.events.list_after(0)]
            return kinds.count("host_found"), kinds.count("host_left")

        await until(first, lambda: changes()[1] == 2)
        assert changes() == (2, 2)


async def test_a_command_for_all_means_those_that_run(tmp_path: Path) -> None:
    """It is not refused by those that are off, or of whose host nothing is heard."""
    async with inviting(tmp_path) as first, AsyncExitStack() as stack:
        await Faces(first.controller, tmp_path, stack).add_guest("a.1")
        location = await invite(first.controller)
        async with run_controller(tmp_path / "b", broker=location) as second:
            await Controlled(second)("create", name="b.1", memory="256M")
            await until_state(first, b_1="powered_off")
            off = await first.begin("all", "say", "hi")
        await until_state(first, b_1="unknown")
        away = await first.begin("all", "say", "hi")
        for command in (off, away):
            assert {vm: out for vm, (_, out) in (await first.ends(command)).items()} == {
                "a.1": "hi"
            }


async def test_a_host_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        host.announce()
        await until_state(first, b_1="powered_off")
        monkeypatch.setattr(other_hosts, "SILENT_AFTER", 0.2)
        host.announce()
        await until_state(first, b_1="unknown")
        assert "silent" in (await first.vm("b.1"))["why"]
        assert "silent" in (await error_of(first, "start", "b.1"))["message"]
        assert ("start", {"vm": "b.1"}) not in host.asked
        monkeypatch.setattr(other_hosts, "SILENT_AFTER", 3600)
        host.announce()
        await until_state(first, b_1="powered_off")


async def test_a_host_that_is_asked_falls_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waits for it fails, and it can be asked again when it is back."""
    async with (
        inviting(tmp_path) as first,
        FakeHost.open(await invite(first.controller), page("b.1")) as host,
    ):
        host.announce()
        await until_state(first, b_1="powered_off")
        host.may_answer.clear()
        monkeypatch.setattr(other_hosts, "SILENT_AFTER", 0.3)
        monkeypatch.setattr(other_hosts, "DROPPED_AFTER", 0.4)
        host.announce()
        error = await error_of(first, "start", "b.1")
        assert "has been silent for too long before it answered" in error["message"]
        host.may_answer.set()
        host.answers["start"] = page("b.1")
        monkeypatch.setattr(other_hosts, "SILENT_AFTER", 3600)
        host.announce()
        await until_there(first)
        assert await first.outcome("start", "b.1") == {"state": "running"}


async def test_a_host_that_is_no_longer_invited(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, _):
        await second("create", name="b.1", memory="256M", labels={"fake": "hangs-in-start"})
        await until_state(first, b_1="powered_off")
        starts = asyncio.ensure_future(first.outcome("start", "b.1"))
        await until_state(second, b_1="starting")
        await first("revoke", name="b")
        outcome = await bounded(starts)
        assert "is no longer invited" in outcome["error"]["message"]
        assert (await first("list"))["vms"] == []
        assert first.controller.hub.other_hosts.get("b") is None
        machine = second.controller.machines.find("b.1")
        assert machine is not None
        machine.kill_shim()
        await bounded(machine.until(lambda: not machine.has_shim))


# Others that do not know it.


async def test_an_old_inviting_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(messages._FROM_GUEST, "MACHINES")
    async with inviting(tmp_path) as first:
        location = await invite(first.controller)
        async with invited(tmp_path, location) as second:
            await second("create", name="b.1", memory="256M")
            await second("start", vms="b.1")
            await until_state(first, b_1="running")
            assert first.controller.hub.counts["unknown"] > 0
            assert [one["id"] for one in (await first("list"))["vms"]] == ["b.1"]
            assert (await first.outcome("pause", "b.1"))["state"] == "paused"


async def test_an_old_invited_controller(tmp_path: Path) -> None:
    """Only its machines are on the bus."""
    async with inviting(tmp_path) as first:
        location = await invite(first.controller)
        async with invited(tmp_path, location) as second:
            first.controller.hub.other_hosts.forget("b")
            first.controller.hub.other_hosts.is_invited = lambda _name: False
            await second("create", name="b.1", memory="256M")
            await second("start", vms="b.1")
            await until_state(first, b_1="running")
            assert (await first.vm("b.1"))["image"] is None
            assert (await first.outcome("pause", "b.1"))["state"] == "paused"
            error = await error_of(first, "start", "b.1")
            assert error["hint"] == "ask the controller of its own host"
            with pytest.raises(UsageError, match="whose controller is not on the bus"):
                await first("create", name="b.2", memory="256M")


# They are operated.


async def test_each_operation_is_done_there(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, _):
        await second("create", name="b.1", memory="256M")
        await until_state(first, b_1="powered_off")
        assert await first.outcome("stop", "b.1") == {"state": "powered_off"}
        assert await first.outcome("start", "b.1") == {"state": "running"}
        await until_state(first, b_1="running")
        states = [
            event.more["state"]
            for event in first.controller.events.list_after(0)
            if (event.kind, event.vm) == ("vm_state", "b.1")
        ]
        assert states[0] == "powered_off"
        assert states[-1] == "running"
        assert (await first.outcome("snapshot_take", "b.1", name="one"))["snapshot"] == "one"
        assert (await first.outcome("pause", "b.1"))["state"] == "paused"
        assert (await first.outcome("start", "b.1"))["state"] == "running"
        assert (await first.outcome("reset", "b.1"))["state"] == "running"
        listed = await first("snapshot_list", vm="b.1")
        assert [one["name"] for one in listed["snapshots"]] == ["one"]
        restored = await first.outcome("snapshot_restore", "b.1", name="one")
        assert restored == {"state": "running", "snapshot": "one"}
        await first.outcome("save", "b.1")
        await until_state(first, b_1="saved")
        assert (await first.outcome("discard", "b.1"))["state"] == "powered_off"
        assert state(first, "b.1") == "powered_off"
        assert "error" not in await first.outcome("snapshot_remove", "b.1", name="one")
        assert (await first("snapshot_list", vm="b.1"))["snapshots"] == []
        assert (await first("logs", vm="b.1"))["lines"] == (await second("logs", vm="b.1"))["lines"]
        assert await first.outcome("remove", "b.1") == {"state": "removed"}
        assert state(first, "b.1") == ""
        assert second.controller.machines.all() == []


async def test_its_errors_are_the_outcomes(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, _):
        for name, labels in (("b.1", {}), ("b.2", {"fake": "refuses"}), ("b.3", {})):
            await second("create", name=name, memory="256M", labels=labels)
        await until_state(first, b_1="powered_off", b_2="powered_off", b_3="powered_off")
        done = (await first("start", vms="b.*"))["outcomes"]
        assert {vm: "error" in outcome for vm, outcome in done.items()} == {
            "b.1": False, "b.2": True, "b.3": False,
        }  # fmt: skip
        assert done["b.2"] == (await second("start", vms="b.2"))["outcomes"]["b.2"]
        assert "no hypervisor" in done["b.2"]["error"]["message"]
        assert "b.1 is running" in (await error_of(first, "remove", "b.1"))["message"]
        assert (await first.outcome("remove", "b.1", force=True))["state"] == "removed"
        error = await error_of(first, "snapshot_restore", "b.3", name="none")
        assert "has no snapshot none" in error["message"]


async def test_a_pattern_removes_no_machine_of_a_host_that_it_does_not_name(tmp_path: Path) -> None:
    async with two(tmp_path) as (first, second, _):
        await first("create", name="a.1", memory="256M")
        await second("create", name="b.1", memory="256M")
        await until_state(first, b_1="powered_off")
        for pattern in ("all", "**", "image=base"):
            assert set((await first("remove", vms=pattern, force=True))["outcomes"]) == {"a.1"}
            await first("create", name="a.1", memory="256M")
        await first("remove", vms="a.1")
        with pytest.raises(UsageError, match="only machines of other hosts"):
            await first("remove", vms="all", force=True)
        assert set((await first("remove", vms="b.*"))["outcomes"]) == {"b.1"}


async def test_it_ends_while_it_starts_a_machine(tmp_path: Path) -> None:
    async with inviting(tmp_path) as first:
        location = await invite(first.controller)
        async with run_controller(tmp_path / "b", broker=location) as second:
            await Controlled(second)(
                "create", name="b.1", memory="256M", labels={"fake": "hangs-in-start"}
            )
            await until_state(first, b_1="powered_off")
            starts = asyncio.ensure_future(first.outcome("start", "b.1"))
            await until_state(Controlled(second), b_1="starting")
        outcome = await bounded(starts)
        assert "has ended before it answered" in outcome["error"]["message"]
        async with invited(tmp_path, location) as again:
            await until_state(first, b_1="starting")
            await again("power_off", vms="b.1")


# They are created.


async def test_it_is_created_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with two(tmp_path) as (first, second, _), AsyncExitStack() as stack:
        script = "# é\n" * 12_000
        made = await first(
            "create", name="b.1", memory="300M", cpus=2, labels={"a": "b"}, first_boot=script
        )
        assert (made["id"], made["state"], made["is_local"]) == ("b.1", "powered_off", False)
        machine = second.controller.machines.find("b.1")
        assert machine is not None
        assert machine.definition.first_boot == script
        assert (machine.definition.memory, dict(machine.definition.labels)) == (
            300 << 20, {"a": "b"},
        )  # fmt: skip
        assert (await first("clone", vm="b.1", name="b.2"))["cpus"] == 2
        assert second.controller.machines.find("b.2") is not None

        faces = Faces(first.controller, tmp_path, stack)
        await faces.serve_unix()

        async def create(*words: str) -> int:
            argv = ["create", "--controller", f"unix:{faces.socket}", "--memory", "256M", *words]
            return await asyncio.to_thread(main, argv)

        assert await create("--host", "b", "web") == 0
        assert capsys.readouterr().out.startswith("b.web has been created")
        assert await create("--host", "b", "b.db") == 0
        assert await create("--host", "c", "web") == UsageError.exit_code
        assert "no host 'c' is invited" in capsys.readouterr().err
        capsys.readouterr()
        assert await create("--host", "b", "--count", "2", "n") == 0
        assert capsys.readouterr().out.split()[0] == "b.n.1"
        assert sorted(machine.id for machine in second.controller.machines.all()) == [
            "b.1", "b.2", "b.db", "b.n.1", "b.n.2", "b.web",
        ]  # fmt: skip
        assert first.controller.machines.all() == []


async def test_its_own_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with two(tmp_path) as (first, second, _):
        refusals: list[tuple[dict[str, object], str]] = [
            ({"memory": "4096T"}, "4096T"),
            ({"memory": "1T"}, "memory"),
            ({"cpus": 256}, "processors"),
            ({"disk": "1K"}, "1K"),
            ({"image": "../x"}, "image"),
            ({"image": "nope"}, "there is no image nope"),
            ({"name": "b"}, "invited host b"),
            ({"name": "b.x/y"}, "expected a machine's name"),
            ({"network": True}, "no other controller create machines with a network"),
            ({"name": "b.1"}, "already"),
        ]
        await second("create", name="b.1", memory="256M")
        for arguments, message in refusals:
            with pytest.raises(BoincvmError, match=message):
                await first("create", **{"name": "b.2", "memory": "256M", **arguments})
        monkeypatch.setattr(machines, "MOST", 1)
        with pytest.raises(UsageError, match="there are 1 machines"):
            await first("create", name="b.2", memory="256M")
        with pytest.raises(UsageError, match="there are 1 machines"):
            await first("clone", vm="b.1", name="b.2")
        assert [machine.id for machine in second.controller.machines.all()] == ["b.1"]


async def test_a_host_allows_machines_with_a_network(tmp_path: Path) -> None:
    async with two(tmp_path, RemoteRights(network=True)) as (first, second, _):
        await first("create", name="b.1", memory="256M", network=True)
        machine = second.controller.machines.find("b.1")
        assert machine is not None
        assert machine.definition.network


async def test_a_host_refuses(tmp_path: Path) -> None:
    async with two(tmp_path, RemoteRights(create=False)) as (first, second, _):
        await second("create", name="b.1", memory="256M")
        await until_state(first, b_1="powered_off")
        assert (await first.vm("b.1"))["operations"] == ["start"]
        refusal = "the host b lets no other controller create or remove its machines"
        for operation, arguments in (
            ("create", {"name": "b.2", "memory": "256M"}),
            ("clone", {"vm": "b.1", "name": "b.2"}),
        ):
            with pytest.raises(UsageError, match=refusal):
                await first(operation, **arguments)
        assert (await error_of(first, "remove", "b.1"))["message"] == refusal
        assert (await first.outcome("start", "b.1"))["state"] == "running"
        assert (await error_of(first, "remove", "b.1", force=True))["message"] == refusal
        assert [machine.id for machine in second.controller.machines.all()] == ["b.1"]


# Both have it.


async def test_a_name_that_both_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of this host is meant, however it came to have that name."""
    async with inviting(tmp_path) as first:
        passcode = (await invite(first.controller)).passcode
    invitations = tmp_path / "a/invitations.json"
    before = invitations.read_bytes()
    invitations.unlink()
    async with inviting(tmp_path) as first:
        await first("create", name="b.1", memory="300M")
    invitations.write_bytes(before)
    async with inviting(tmp_path) as first:
        location = reached(first.controller, "b", passcode)
        async with FakeHost.open(location, page("b.1", "b.2")) as host:
            host.announce()
            await until_state(first, b_2="powered_off")
            assert [one["id"] for one in (await first("list"))["vms"]] == ["b.1", "b.2"]
            found = await first.vm("b.1")
            assert (found["is_local"], found["memory"]) == (True, 300 << 20)
            assert (await first.outcome("remove", "b.1"))["state"] == "removed"
            assert [verb for verb, _ in host.asked] == ["machines"]
            assert (await first.vm("b.1"))["is_local"] is False
    assert registry.MOST_OF_ACCOUNT == machines.MOST  # a host may list all that it can have
