"""Each operation in each state of a machine, with real shims of fake machines."""

import asyncio
import errno
import os
import platform
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from boincvm.controller.machines import autostart, operations
from boincvm.controller.machines.machines import Machines
from boincvm.controller.protocol.guest import Guest
from boincvm.errors import UsageError
from support.controller.controlled import Controlled, controlled
from support.controller.faked import fake_machines  # noqa: F401 - a fixture

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("fake_machines")]

SETS_OUT = {
    "powered_off": (),
    "running": ("start",),
    "paused": ("start", "pause"),
    "saved": ("start", "save"),
    "aborted": ("start", "kill"),
}
OFF = "the machine {} is powered off"
RUNS = "the machine {} is running"
NONE = "the machine has no snapshot"
# What comes of each verb: a state, or the beginning of an error's message.
COMES_OF = {
    "start": {
        "powered_off": "running",
        "running": "running",
        "paused": "running",
        "saved": "running",
        "aborted": "running",
    },
    "pause": {
        "powered_off": OFF,
        "running": "paused",
        "paused": "paused",
        "saved": "the machine {} is saved",
        "aborted": "the machine {} is aborted",
    },
    "resume": {
        "powered_off": OFF,
        "running": "running",
        "paused": "running",
        "saved": "the machine {} is saved",
        "aborted": "the machine {} is aborted",
    },
    "save": {
        "powered_off": OFF,
        "running": "saved",
        "paused": "saved",
        "saved": "saved",
        "aborted": "the machine {} is aborted",
    },
    "stop": {
        "powered_off": "powered_off",
        "running": "powered_off",
        "paused": "powered_off",
        "saved": "saved",
        "aborted": "aborted",
    },
    "power_off": {
        "powered_off": "powered_off",
        "running": "powered_off",
        "paused": "powered_off",
        "saved": "saved",
        "aborted": "aborted",
    },
    "reset": dict.fromkeys(SETS_OUT, "running"),
    "discard": {
        "powered_off": "powered_off",
        "running": RUNS,
        "paused": RUNS,
        "saved": "powered_off",
        "aborted": "powered_off",
    },
    "remove": {
        "powered_off": "removed",
        "running": RUNS,
        "paused": RUNS,
        "saved": "removed",
        "aborted": "removed",
    },
    "snapshot_take": {
        "powered_off": OFF,
        "running": "running",
        "paused": "paused",
        "saved": "the machine {} is saved",
        "aborted": "the machine {} is aborted",
    },
    "snapshot_restore": dict.fromkeys(SETS_OUT, NONE),
    "snapshot_remove": dict.fromkeys(SETS_OUT, NONE),
}


async def make(asked: Controlled, name: str, state: str, **labels: str) -> None:
    """Return a machine in that state."""
    await asked("create", name=name, memory="256M", labels=labels)
    for verb in SETS_OUT[state]:
        if verb == "kill":
            os.kill(asked.shim(name), signal.SIGKILL)
            machine = asked.controller.machines.find(name)
            assert machine is not None
            await machine.until(lambda one=machine: not one.has_shim)
        else:
            assert "error" not in await asked.outcome(verb, name)
    assert (await asked.vm(name))["state"] == state


async def report(asked: Controlled, verb: str, name: str) -> Mapping[str, Any]:
    arguments = {"name": "none"} if verb in ("snapshot_remove", "snapshot_restore") else {}
    return await asked.outcome(verb, name, **arguments)


@pytest.mark.parametrize("state", SETS_OUT)
async def test_each_verb(state: str, tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        names = [verb.replace("_", "-") for verb in COMES_OF]
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(make(asked, name, state))
        async with asyncio.TaskGroup() as group:
            tasks = {
                verb: group.create_task(report(asked, verb, name))
                for verb, name in zip(COMES_OF, names, strict=True)
            }
        for verb, name in zip(COMES_OF, names, strict=True):
            outcome, expected = tasks[verb].result(), COMES_OF[verb][state].format(name)
            if "error" in outcome:
                assert outcome["error"]["message"].startswith(expected), verb
                assert (await asked.vm(name))["state"] == state, verb
            else:
                assert outcome["state"] == expected, verb
                if expected != "removed":
                    assert (await asked.vm(name))["state"] == expected, verb


async def test_those_that_are_marked_start_once_after_each_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controlled(tmp_path, ends_all=False) as asked:
        for name, is_marked in (("marked", True), ("plain", False), ("broken", True)):
            labels = {"fake": "refuses"} if name == "broken" else {}
            await asked("create", name=name, memory="256M", autostart=is_marked, labels=labels)
        await asked.controller.autostart.finished()
    async with controlled(tmp_path, ends_all=False) as asked:  # on the same boot
        await asked.controller.autostart.finished()
        assert [vm["state"] for vm in (await asked("list"))["vms"]] == ["powered_off"] * 3
    monkeypatch.setattr(autostart, "boot_id", lambda: "another boot")
    async with controlled(tmp_path, ends_all=False) as asked:
        await asked.until_event("trouble", "it was not started")
        await asked.controller.autostart.finished()
        states = {vm["id"]: vm["state"] for vm in (await asked("list"))["vms"]}
        assert states == {"marked": "running", "plain": "powered_off", "broken": "aborted"}
        await asked.outcome("stop", "marked")
    async with controlled(tmp_path) as asked:
        await asked.controller.autostart.finished()
        assert (await asked.vm("marked"))["state"] == "powered_off"  # somebody has stopped it


async def test_a_backup_has_all_machines(tmp_path: Path) -> None:
    first, copy = tmp_path / "first", tmp_path / "copy"
    async with controlled(first, ends_all=False) as asked:
        await make(asked, "a", "saved", site="cern")
        before = (await asked("list"))["vms"]
    shutil.copytree(first, copy)
    async with controlled(copy) as asked:
        assert (await asked("list"))["vms"] == before
        assert await asked.outcome("start", "a") == {"state": "running"}


async def test_snapshots_of_one_that_is_off(tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await make(asked, "a", "running")
        for name in ("one", "two"):
            taken = await asked.outcome("snapshot_take", "a", name=name, description=name)
            assert (taken["state"], taken["snapshot"]) == ("running", name)
        again = await asked.outcome("snapshot_take", "a", name="one")
        assert again["error"]["message"] == "there is already a snapshot one"
        await asked.outcome("save", "a")
        assert len(list(asked.directory("a").disk.glob("checkpoint-*"))) == 3
        assert await asked.outcome("snapshot_remove", "a", name="one") == {"state": "saved"}
        listed = await asked("snapshot_list", vm="a")
        assert [one["name"] for one in listed["snapshots"]] == ["two"]
        restored = await asked.outcome("snapshot_restore", "a")
        assert restored == {"state": "running", "snapshot": "two"}
        # Where it was saved is of no use any more.
        assert len(list(asked.directory("a").disk.glob("checkpoint-*"))) == 1
        assert await asked.outcome("snapshot_remove", "a", name="two") == {"state": "running"}


async def test_several_tell_one_machine_at_once(tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await make(asked, "a", "powered_off")
        async with asyncio.TaskGroup() as group:
            starts = [group.create_task(asked.outcome("start", "a")) for _ in range(5)]
        assert [one.result() for one in starts] == [{"state": "running"}] * 5
        async with asyncio.TaskGroup() as group:
            ends = [group.create_task(asked.outcome("power_off", "a")) for _ in range(5)]
        assert [one.result() for one in ends] == [{"state": "powered_off"}] * 5
        await asked.outcome("start", "a")
        verbs = ["save", "save", "pause", "snapshot_take", "save"]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asked.outcome(verb, "a")) for verb in verbs]
        for verb, task in zip(verbs, tasks, strict=True):
            assert "error" in task.result() or task.result()["state"] == "saved", verb
        assert (await asked.vm("a"))["state"] == "saved"
        await asked.outcome("start", "a")
        async with asyncio.TaskGroup() as group:
            gone = [group.create_task(asked.outcome("remove", "a", force=True)) for _ in range(3)]
        removed = [one.result() for one in gone if "error" not in one.result()]
        assert removed == [{"state": "removed"}]
        with pytest.raises(UsageError, match="matches no machine"):
            await asked("start", vms="a")
        assert await asked("stop", vms="all") == {"outcomes": {}}
        with pytest.raises(UsageError, match="matches no machine"):
            await asked("stop", vms="*")


async def test_one_that_runs_is_removed_by_force_alone(tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await make(asked, "a", "running")
        refused = (await asked.outcome("remove", "a"))["error"]
        assert refused["message"] == "the machine a is running"
        assert refused["hint"] == "boincvm rm --force switches it off and removes it"
        assert (await asked.vm("a"))["state"] == "running"


@pytest.mark.parametrize("verb", ["pause", "save"])
async def test_a_shim_that_dies_meanwhile_has_not_done_it(verb: str, tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await make(asked, "a", "running", fake=f"dies-in-{verb}")
        refused = (await asked.outcome(verb, "a"))["error"]
        assert refused["message"] == (
            f"the machine a did not answer {verb}: it is aborted:"
            " its shim was killed, and the machine with it"
        )
        assert (await asked.vm("a"))["state"] == "aborted"


async def test_one_that_dies_while_it_is_stopped_is_off(tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await make(asked, "a", "running", fake="dies-in-stop")
        assert await asked.outcome("stop", "a") == {"state": "aborted"}


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("dies-in-start", "its shim was killed, and the machine with it"),
        ("refuses", "there is no hypervisor for it"),
    ],
)
async def test_one_that_does_not_start_says_why(fault: str, why: str, tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await make(asked, "a", "powered_off", fake=fault)
        for _ in range(2):
            refused = (await asked.outcome("start", "a"))["error"]
            assert refused["message"] == f"the machine a did not start: {why}"
            reported = await asked.vm("a")
            assert (reported["state"], reported["why"]) == ("aborted", why)


@pytest.mark.parametrize("fault", ["hangs-in-pause", "stopped"])
async def test_a_shim_that_does_not_answer_is_killed_at_last(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would ever end its machine."""
    monkeypatch.setattr(operations, "PATIENCE", 0.5)
    async with controlled(tmp_path) as asked:
        await make(asked, "a", "running", fake=fault)
        pausing = asyncio.ensure_future(asked.outcome("pause", "a"))
        await asked.until_event("vm_state", "it is paused")
        if fault == "stopped":
            os.kill(asked.shim("a"), signal.SIGSTOP)
        ended = await asked.outcome("power_off", "a")
        assert ended == {"state": "powered_off"}
        assert "error" in await pausing or fault == "stopped"
        assert await asked.outcome("start", "a") == {"state": "running"}


async def test_one_that_falls_silent_while_it_is_powered_off_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controlled(tmp_path) as asked:
        await make(asked, "m", "running")
        machine = asked.controller.machines.find("m")
        assert machine is not None

        async def fall_silent(*_: object, **__: object) -> None:
            machine.set_silent(is_silent=True)
            await asyncio.Event().wait()

        monkeypatch.setattr(asked.controller.hub.requester, "ask", fall_silent)
        assert await asked.outcome("power_off", "m") == {"state": "powered_off"}


async def test_one_that_never_comes_to_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "ASK_LIMIT", 0.5)
    async with controlled(tmp_path) as asked:
        await make(asked, "a", "running")
        guest = await asked.controller.hub.registry.wait_for("a")
        os.kill(asked.shim("a"), signal.SIGSTOP)
        asked.controller.hub.registry.bye(guest.id)
        refused = (await asked.outcome("pause", "a"))["error"]
        assert refused["message"] == "the shim of the machine a has not connected to the bus"
        machine = asked.controller.machines.find("a")
        assert machine is not None
        machine.kill_shim()
        await machine.until(lambda: not machine.has_shim)


async def test_what_the_host_refuses_is_reported_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with controlled(tmp_path) as asked:
        for name in "ab":
            await make(asked, name, "powered_off")
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(Machines, "discard", full)
            reported = (await asked("discard", vms="**"))["outcomes"]
        assert set(reported) == {"a", "b"}
        for outcome in reported.values():
            assert "No space left" in outcome["error"]["message"]


async def test_guests_of_the_bus_that_are_no_machines_of_ours(tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        hello = asked.controller.hub.registry.hello
        hello(Guest("alive", "x", capabilities=frozenset(("lifecycle",)), instance="1"))
        hello(Guest("plain", "x", instance="1"))
        for verb in COMES_OF:
            refused = (await report(asked, verb, "plain"))["error"]["message"]
            assert "cannot be asked to" in refused
        for verb in ("start", "reset", "discard", "remove", "snapshot_restore"):
            refused = (await report(asked, verb, "alive"))["error"]
            assert refused["hint"] == "ask the controller of its own host"
        # A pattern means the machines that can be told to, not an error for each that cannot.
        await make(asked, "ours", "powered_off")
        assert (await asked("start", vms="all"))["outcomes"] == {"ours": {"state": "running"}}
        with pytest.raises(UsageError, match="there is no machine 'nobody'"):
            await asked("snapshot_list", vm="nobody")


async def test_the_host_s_shutdown_saves_no_machine_of_another_host(tmp_path: Path) -> None:
    """The unit of systemd selects machines by their host."""
    unit = (Path(__file__).parents[3] / "packaging/boincvm-machines.service").read_text()
    found = re.search(r"^ExecStop=.* suspend --to-disk (\S+)$", unit, re.MULTILINE)
    assert found is not None
    async with controlled(tmp_path) as asked:
        able = frozenset(("lifecycle",))
        asked.controller.hub.registry.hello(
            Guest("lab.1", "x", labels={"host": "lab"}, capabilities=able, instance="1")
        )
        await make(asked, "ours", "running")
        await make(asked, "off", "powered_off")
        outcomes = (await asked("save", vms=found[1].replace("%H", platform.node())))["outcomes"]
        assert outcomes.keys() == {"ours", "off"}
        assert outcomes["ours"] == {"state": "saved"}
