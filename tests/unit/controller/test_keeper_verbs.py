"""What a keeper can be told: in turn, checked, and in words when it cannot be done."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lossy import FakeProgram

from boincvm.controller.guest_commands import GuestCommands
from boincvm.controller.keeper.kept_machine import KeptMachine
from boincvm.controller.keeper.place import BusPlace, Definition, Place
from boincvm.controller.keeper.verbs import LONGEST_STOP, KeeperVerbs
from boincvm.controller.vm_state import VmState
from boincvm.errors import HostError, HypervisorError, UsageError
from boincvm.hypervisor.contract import Checkpoint
from boincvm.wrapper.saved_machine import SavedMachine, manifests, write_saved

DEFINITION = Definition("a", "base", 1 << 28, 1, None, False, False, {}, 1.0)
VERBS = ["pause", "resume", "save", "power_off", "stop", "snapshot_take", "snapshot_remove"]


class Told(KeptMachine):
    """Has no machine. `done`: what came to an end, in that order. `heard`: each change of state,
    and how many checkpoints there were then."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, DEFINITION, self._heard)
        self.done: list[str] = []
        self.heard: list[tuple[VmState, int]] = []
        self.may_go_on = asyncio.Event()

    def _heard(self) -> None:
        self.heard.append((self.status.state, len(manifests(self.place.disk))))

    async def pause(self) -> None:
        await self.may_go_on.wait()
        self.done.append("pause")

    async def resume(self) -> None:
        self.done.append("resume")

    async def stop(self, within: float) -> None:
        self.done.append(f"stop {within:g}")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Told]:
    """It starts."""
    place = Place(tmp_path / "a")
    place.make(DEFINITION, BusPlace("a", "x", path="/nowhere"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        made = Told(place)
        made.begin_life(GuestCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        yield made


@pytest.mark.parametrize("state", [VmState.STARTING, VmState.RESTORING])
@pytest.mark.parametrize("verb", ["save", "snapshot_take", "snapshot_remove"])
async def test_what_is_not_up_stays_as_it_is(verb: str, state: VmState, kept: Told) -> None:
    kept._set(state)
    with pytest.raises(UsageError, match="not up"):
        await KeeperVerbs(kept).table()[verb]({"name": "x"}, b"")
    assert kept.status.state is state
    assert kept.place.status().state is state


async def test_where_it_was_saved_has_gone_when_it_runs(kept: Told) -> None:
    """Whoever waits for its running finds nothing of that."""
    made = Checkpoint(1, {}, {})
    write_saved(kept.place.disk, SavedMachine(made, "qemu", "none", DEFINITION.shape, {}, (), None))
    kept.heard.clear()
    kept.come_up("none", (), frozenset())
    assert kept.heard == [(VmState.RESTORING, 1), (VmState.RUNNING, 0)]


async def test_each_waits_for_its_turn(kept: Told) -> None:
    verbs = KeeperVerbs(kept).table()
    first = asyncio.ensure_future(verbs["pause"]({}, b""))
    second = asyncio.ensure_future(verbs["resume"]({}, b""))
    await asyncio.sleep(0)
    assert kept.done == []
    kept.may_go_on.set()
    await asyncio.gather(first, second)
    assert kept.done == ["pause", "resume"]


async def test_what_waited_while_it_ended(kept: Told) -> None:
    kept._finish(VmState.ABORTED, "it was struck by lightning")
    verbs = KeeperVerbs(kept).table()
    assert set(verbs) == set(VERBS)
    for name, verb in verbs.items():
        if name in ("stop", "power_off", "save"):
            assert (await verb({}, b"")).table == {"state": "aborted"}
        else:
            with pytest.raises(UsageError, match="has ended meanwhile: it is aborted"):
                await verb({}, b"")
    assert kept.place.status().state is VmState.ABORTED
    assert kept.place.status().why == "it was struck by lightning"
    await KeeperVerbs(kept).end_with_host()
    assert kept.place.status().state is VmState.ABORTED


@pytest.mark.parametrize("within", [-1, LONGEST_STOP + 1, "1", None, [], float("nan"), 10**400])
async def test_times_that_there_are_not(within: object, kept: Told) -> None:
    with pytest.raises(UsageError, match="0 to 3600 s"):
        await KeeperVerbs(kept).table()["stop"]({"within": within}, b"")
    assert kept.done == []


async def test_times_that_there_are(kept: Told) -> None:
    for given in ({}, {"within": 0}, {"within": LONGEST_STOP}):
        await KeeperVerbs(kept).table()["stop"](given, b"")
    assert kept.done == ["stop 20", "stop 0", "stop 3600"]


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        ("snapshot_take", {"name": 1}),
        ("snapshot_take", {"description": None}),
        ("snapshot_remove", {}),
        ("snapshot_remove", {"name": ["x"]}),
    ],
)
async def test_names_that_are_none(verb: str, given: dict[str, object], kept: Told) -> None:
    with pytest.raises(UsageError):
        await KeeperVerbs(kept).table()[verb](given, b"")


async def test_a_host_that_refuses(kept: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Place, "write_status", full)
    with pytest.raises(HostError, match="No space left"):
        await KeeperVerbs(kept).table()["power_off"]({}, b"")


async def test_the_host_ends_before_it_is_up(kept: Told) -> None:
    await KeeperVerbs(kept).end_with_host()
    status = kept.place.status()
    assert (status.state, status.why) == (
        VmState.ABORTED,
        "it could not be saved: the machine is not up",
    )
    await kept.fail(HypervisorError("and more"))  # once is enough
    assert kept.place.status() == status
