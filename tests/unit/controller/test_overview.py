"""What clients are told about machines and guests, and their load."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import DROPPED_AFTER, SILENT_AFTER, Change, Registry
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines
from boincvm.controller.machines.operations import MachineOperations
from boincvm.controller.overview import SAMPLES, Overview
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import UsageError
from support.controller.quiet_bus import QuietBus

FIELDS = {
    *("id", "name", "host", "invited_as", "labels", "capabilities", "presence", "is_local"),
    *("state", "why", "state_label", "autostart"),
    *("image", "memory", "cpus", "disk", "network", "display", "cpu", "memory_used", "progress"),
    *("started_at", "commands", "operations"),
}


class World:
    """A hub with a simulated clock, and machines that are said to have shims."""

    def __init__(self, directory: Path) -> None:
        self.now = 1000.0
        self.hub = Hub(QuietBus())
        self.hub.registry = Registry(self.see, lambda: self.now)
        self.machines = Machines(directory, lambda _: BrokerAddress("", ""), lambda _: None)
        self.machines.load()
        operations = MachineOperations(self.machines, self.hub)
        self.overview = Overview(self.machines, self.hub, operations, "our-host")

    def see(self, guest: Guest, change: Change) -> None:
        machine = self.machines.find(guest.id)
        if machine is not None:
            machine.set_silent(is_silent=change in (Change.SILENT, Change.DROPPED))

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.hub.registry.check_silence()

    def make(self, name: str) -> LocalMachine:
        return self.machines.create(
            name,
            image="base",
            memory="256M",
            cpus=2,
            disk=None,
            network=False,
            display=True,
            labels={"site": "cern"},
        )

    def keep(self, machine: LocalMachine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Simulate a shim that has just started."""
        monkeypatch.setattr(LocalMachine, "has_shim", property(lambda one: one is machine))
        machine.report = Report(VmState.STARTING)

    def take_report(self, name: str, report: Report) -> VmState | None:
        machine = self.machines.find(name)
        if machine is not None:
            machine.take_report(report)
        return self.overview.take_report(name, report)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_machine_that_is_off(world: World) -> None:
    world.make("a")
    vm = world.overview.vm("a")
    assert set(vm) == FIELDS
    assert vm == {
        **dict.fromkeys(("disk", "cpu", "memory_used", "progress", "started_at")),
        "id": "a",
        "name": "a",
        "host": "our-host",
        "invited_as": None,
        "labels": {"site": "cern"},
        "commands": 0,
        "operations": ["remove", "start"],
        "capabilities": [],
        "presence": "absent",
        "is_local": True,
        "state": "powered_off",
        "state_label": "powered off",
        "why": "",
        "image": "base",
        "memory": 256 << 20,
        "cpus": 2,
        "network": False,
        "display": True,
        "autostart": False,
    }
    # Only what a shim that runs says of it is believed.
    world.take_report("a", Report(VmState.RUNNING, cpu=1.0))
    assert world.overview.vm("a") == vm


def test_a_guest_of_the_bus(world: World) -> None:
    world.hub.registry.hello(Guest("g", "name", "far", {"gpu": ""}, frozenset(("run", "files"))))
    vm = world.overview.vm("g")
    assert set(vm) == FIELDS
    assert (vm["name"], vm["host"], vm["labels"]) == ("name", "far", {"gpu": ""})
    assert (vm["capabilities"], vm["presence"]) == (["files", "run"], "present")
    assert (vm["is_local"], vm["state"], vm["image"]) == (False, "unknown", None)
    assert vm["state_label"] == "present"
    assert vm["operations"] == []
    assert world.take_report("g", Report(VmState.RUNNING, "", 0.5, 77, 0.25, 1e9)) is None
    vm = world.overview.vm("g")
    assert (vm["state"], vm["cpu"], vm["memory_used"]) == ("running", 0.5, 77)
    assert (vm["progress"], vm["started_at"]) == (0.25, 1e9)
    assert vm["operations"] == []  # it is a host, not a machine
    assert world.take_report("g", Report(VmState.PAUSED)) is VmState.RUNNING
    world.hub.registry.hello(Guest("m", "m", "far", {}, frozenset(("lifecycle",))))
    world.take_report("m", Report(VmState.RUNNING))
    # What its own host's controller must do is not among them.
    assert world.overview.vm("m")["operations"] == [
        "pause",
        "power_off",
        "save",
        "snapshot_take",
        "stop",
    ]


def test_who_runs_and_says_nothing_is_stuck(world: World) -> None:
    world.hub.registry.hello(Guest("g", "g"))
    world.take_report("g", Report(VmState.RUNNING))
    world.hub.registry.hello(Guest("h", "h"))  # a host, which reports no state
    world.passes(SILENT_AFTER)
    vm = world.overview.vm("g")
    assert (vm["presence"], vm["state"]) == ("silent", "stuck")
    assert vm["state_label"] == "stuck, silent"
    assert world.overview.vm("h")["state_label"] == "silent"
    world.hub.registry.still_alive("g")
    assert world.overview.vm("g")["state"] == "running"
    world.take_report("g", Report(VmState.PAUSED))
    assert world.overview.vm("g")["state"] == "paused"
    world.passes(SILENT_AFTER)
    assert world.overview.vm("g")["state"] == "stuck"
    world.passes(DROPPED_AFTER)
    world.overview.forget("g")
    with pytest.raises(UsageError, match="there is no machine 'g'"):
        world.overview.vm("g")


def test_one_that_a_former_controller_knew_is_not_stuck_yet(world: World) -> None:
    world.hub.registry.load([Guest("g", "g")])
    vm = world.overview.vm("g")
    assert (vm["presence"], vm["state"]) == ("silent", "unknown")


def test_a_machine_whose_shim_was_dropped_is_stuck_still(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.keep(world.make("a"), monkeypatch)
    assert world.overview.vm("a")["state"] == "starting"
    world.hub.registry.hello(Guest("a", "a"))
    world.take_report("a", Report(VmState.RUNNING, cpu=1.0))
    assert world.overview.vm("a")["state"] == "running"
    world.passes(SILENT_AFTER)
    assert world.overview.vm("a")["state"] == "stuck"
    world.passes(DROPPED_AFTER)
    world.overview.forget("a")
    vm = world.overview.vm("a")
    assert (vm["presence"], vm["state"]) == ("absent", "stuck")
    world.hub.registry.hello(Guest("a", "a"))
    assert world.overview.vm("a")["state"] == "running"


def test_all_are_told_once(world: World) -> None:
    for name in ("b", "a"):
        world.make(name)
    for name in ("c", "a"):
        world.hub.registry.hello(Guest(name, name, labels={"site": "desy"}))
    reported = [vm["id"] for vm in world.overview.vms("all") if isinstance(vm, dict)]
    assert reported == ["a", "b", "c"]
    # A machine of ours has the labels that it was made with.
    reported = [vm["id"] for vm in world.overview.vms("site=cern") if isinstance(vm, dict)]
    assert reported == ["a", "b"]
    assert list(world.overview.vms("site=nowhere")) == []
    with pytest.raises(UsageError):
        list(world.overview.vms("*,"))


def test_history_is_of_an_hour(world: World) -> None:
    world.hub.registry.hello(Guest("g", "g"))
    assert list(world.overview.history("g")) == []
    world.take_report("g", Report(VmState.RUNNING))  # which tells no load
    for number in range(SAMPLES + 5):
        world.take_report("g", Report(VmState.RUNNING, cpu=float(number)))
    samples = list(world.overview.history("g"))
    assert [one["cpu"] for one in samples if isinstance(one, dict)] == [
        float(number) for number in range(5, SAMPLES + 5)
    ]
    with pytest.raises(UsageError):
        list(world.overview.history("h"))


def test_history_outlives_a_machine_s_sleep_and_no_guest(world: World) -> None:
    machine = world.make("a")
    for name in ("a", "g"):
        world.hub.registry.hello(Guest(name, name))
        world.take_report(name, Report(VmState.RUNNING, cpu=1.0))
        world.hub.registry.bye(name)
        world.overview.forget(name)
    assert len(list(world.overview.history("a"))) == 1
    world.hub.registry.hello(Guest("g", "g"))
    assert list(world.overview.history("g")) == []
    world.machines.remove(machine)
    world.overview.forget("a")
    world.make("a")
    assert list(world.overview.history("a")) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some.builds(
        Report,
        some.sampled_from(VmState),
        some.text(),
        some.none() | some.floats(0, 4096),
        some.none() | some.integers(0, 1 << 53),
        some.none() | some.floats(0, 1),
        some.none() | some.floats(0, 1e12),
    )
)
def test_whatever_is_reported_is_json(world: World, report: Report) -> None:
    world.hub.registry.hello(Guest("g", "g"))
    world.take_report("g", report)
    json.dumps([*world.overview.vms("all"), *world.overview.history("g")], allow_nan=False)
