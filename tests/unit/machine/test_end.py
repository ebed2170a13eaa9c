"""The end of a machine is data, and one table defines its consequences."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestHungError,
    GuestNeverBootedError,
    GuestPanickedError,
    GuestPoweredOffError,
    GuestProtocolError,
    HostDiskFullError,
    HypervisorError,
    HypervisorKilledError,
)
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.contract import Checkpoint, EndCause, MachineEnd, MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.job.model import Limits
from boincvm.machine import session as session_module
from boincvm.machine.end import MEANINGS, end_error, is_orderly
from boincvm.machine.managed import ManagedMachine, opened
from boincvm.machine.settings import Settings
from boincvm.machine.start_source import Boot

pytestmark = pytest.mark.timeout(30)

WHAT_FOLLOWS: dict[EndCause, tuple[type[BoincvmError], ExitCode]] = {
    EndCause.ASKED: (GuestDiedError, ExitCode.GUEST_DIED),
    EndCause.POWERED_OFF: (GuestPoweredOffError, ExitCode.GUEST_DIED),
    EndCause.PANICKED: (GuestPanickedError, ExitCode.GUEST_DIED),
    EndCause.KILLED: (HypervisorKilledError, ExitCode.HYPERVISOR_FAILED),
    EndCause.FAILED: (HypervisorError, ExitCode.HYPERVISOR_FAILED),
    EndCause.HOST_DISK_FULL: (HostDiskFullError, ExitCode.HOST_DISK_FULL),
    EndCause.NEVER_BOOTED: (GuestNeverBootedError, ExitCode.GUEST_NEVER_BOOTED),
    EndCause.HUNG: (GuestHungError, ExitCode.GUEST_HUNG),
    EndCause.LINK_LOST: (GuestDiedError, ExitCode.GUEST_DIED),
    EndCause.PROTOCOL_BROKEN: (GuestProtocolError, ExitCode.GUEST_PROTOCOL),
}
DRIVERS = (
    EndCause.POWERED_OFF,
    EndCause.PANICKED,
    EndCause.KILLED,
    EndCause.FAILED,
    EndCause.HOST_DISK_FULL,
)


@pytest.mark.parametrize("cause", EndCause)
def test_what_follows(cause: EndCause) -> None:
    error = end_error(MachineEnd(cause, "so it was"))
    kind, code = WHAT_FOLLOWS[cause]
    assert (type(error), error.exit_code) == (kind, code)
    assert error.message
    assert "{" not in error.message


def test_every_cause_stands_in_the_table() -> None:
    assert MEANINGS.keys() == WHAT_FOLLOWS.keys() == set(EndCause)


def test_what_is_orderly() -> None:
    orderly = {cause for cause in EndCause if is_orderly(MachineEnd(cause, ""))}
    assert orderly == {EndCause.ASKED, EndCause.POWERED_OFF}


def test_a_hint_of_the_end_itself_goes_first() -> None:
    assert "system log" in end_error(MachineEnd(EndCause.KILLED, "signal 9")).hint
    assert end_error(MachineEnd(EndCause.KILLED, "signal 9", "buy memory")).hint == "buy memory"


def spec(directory: Path) -> MachineSpec:
    nowhere = directory / "none"
    return MachineSpec(directory, nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)


USUAL = Limits(boot=20.0, silence=20.0, stop=20.0)
"""Longer than any test takes."""


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[ManagedMachine]:
    async with opened(FakeDriver(), spec(tmp_path), [Boot()], Settings(USUAL)) as machine:
        yield machine


def fake(machine: ManagedMachine) -> FakeMachine:
    return cast(FakeMachine, machine.session.machine)


async def end_of(machine: ManagedMachine) -> MachineEnd:
    """Return its end, of which users of the machine are notified, too."""
    working = asyncio.ensure_future(machine.guard(asyncio.sleep(1000)))
    end = await asyncio.wait_for(machine.ended(), 10)
    with pytest.raises(WHAT_FOLLOWS[end.cause][0]):
        await working
    assert machine.session.end == end
    return end


@pytest.mark.parametrize("cause", DRIVERS)
async def test_what_the_driver_tells(cause: EndCause, machine: ManagedMachine) -> None:
    fake(machine).end(cause, "as the test says")
    assert await end_of(machine) == MachineEnd(cause, "as the test says")


async def test_it_is_up_until_it_ends(machine: ManagedMachine) -> None:
    """This holds even if the driver does not report the ids of its processes, as here."""
    assert fake(machine).process_ids() == ()
    assert machine.is_up
    await machine.suspend()
    assert machine.is_up
    fake(machine).end(EndCause.KILLED, "signal 9")
    await end_of(machine)
    assert not machine.is_up


async def test_one_that_is_saved_is_not_up(machine: ManagedMachine) -> None:
    await machine.save(1, lambda: None, last=True)
    assert not machine.is_up


async def test_one_that_ended_while_it_was_saved_is_not_up(machine: ManagedMachine) -> None:
    async def save(*_: object) -> Checkpoint:
        fake(machine).end(EndCause.KILLED, "signal 9")
        raise HypervisorError("QEMU ended in the middle of a checkpoint")

    fake(machine).save = save  # type: ignore[method-assign]
    with pytest.raises(HypervisorError, match="in the middle"):
        await machine.save(1, lambda: None, last=True)
    assert not machine.is_up
    assert (await end_of(machine)).cause is EndCause.KILLED


async def test_a_guest_that_falls_silent(tmp_path: Path) -> None:
    settings = Settings(USUAL._replace(silence=0.3))
    async with opened(FakeDriver(), spec(tmp_path), [Boot()], settings) as machine:
        end = await end_of(machine)  # the fake guest's heart does not beat
    assert end.cause is EndCause.HUNG
    assert "0.3 s" in end.detail


async def test_a_guest_that_breaks_the_protocol(machine: ManagedMachine) -> None:
    fake(machine).guest.send_raw(b"NONSENSE\n\n\0")
    end = await end_of(machine)
    assert end.cause is EndCause.PROTOCOL_BROKEN
    assert "NONSENSE" in end.detail


async def test_an_agent_that_is_gone(
    machine: ManagedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine keeps running."""
    monkeypatch.setattr(session_module, "END_LIMIT", 0.2)
    fake(machine).guest.close()
    assert (await end_of(machine)).cause is EndCause.LINK_LOST


async def test_an_agent_that_is_gone_because_the_machine_ends(machine: ManagedMachine) -> None:
    """The driver's report a moment later is more precise."""
    ending = asyncio.ensure_future(end_of(machine))
    fake(machine).guest.close()
    await asyncio.wait([machine.session.link.failure])
    fake(machine).end(EndCause.PANICKED, "oops")
    assert await ending == MachineEnd(EndCause.PANICKED, "oops")


async def test_one_that_is_killed_by_its_owner(machine: ManagedMachine) -> None:
    ending = asyncio.ensure_future(end_of(machine))
    await machine.kill()
    assert (await ending).cause is EndCause.ASKED


async def test_what_somebody_fails_with_is_no_end(machine: ManagedMachine) -> None:
    machine.session.fail(OSError("nobody reads the output"))
    with pytest.raises(OSError, match="nobody reads"):
        await machine.ended()
    assert machine.session.end is None


@pytest.mark.parametrize("cause", DRIVERS)
async def test_before_the_agent_has_answered(cause: EndCause, tmp_path: Path) -> None:
    """If the guest itself ends, it never booted; faults of the host keep their cause."""
    driver = FakeDriver(boots=False)
    machine = ManagedMachine(driver, spec(tmp_path))
    starting = asyncio.ensure_future(machine.start([Boot()]))
    while not (driver.machines and driver.machines[0].state.name == "RUNNING"):  # noqa: ASYNC110
        await asyncio.sleep(0)
    driver.machines[0].end(cause, "as the test says")
    is_guests = cause in (EndCause.POWERED_OFF, EndCause.PANICKED)
    expected = EndCause.NEVER_BOOTED if is_guests else cause
    with pytest.raises(WHAT_FOLLOWS[expected][0]) as failure:
        await asyncio.wait_for(starting, 10)
    assert ("before its agent answered" in failure.value.message) is is_guests
    end = await machine.ended()
    assert end.cause is expected
    if cause is EndCause.PANICKED:
        assert "as the test says" in end.detail
    await machine.close()


async def test_the_limit_of_the_start(tmp_path: Path) -> None:
    settings = Settings(Limits(boot=0.2), boot_hint="wait longer")
    machine = ManagedMachine(FakeDriver(boots=False), spec(tmp_path), settings)
    with pytest.raises(GuestNeverBootedError, match=r"0\.2 s") as failure:
        await machine.start([Boot()])
    assert failure.value.hint == "wait longer"
    assert (await machine.ended()).cause is EndCause.NEVER_BOOTED
    await machine.close()


async def test_the_limit_of_falling_quiet(tmp_path: Path) -> None:
    """A guest that does not become quiet cannot be saved, and keeps running."""
    settings = Settings(USUAL._replace(stop=0.1))
    async with opened(FakeDriver(), spec(tmp_path), [Boot()], settings) as machine:
        guest = fake(machine).guest
        follow = guest._handle
        guest._handle = lambda word, call, frame: (  # type: ignore[method-assign]
            None if word == "quiesce" else follow(word, call, frame)
        )
        with pytest.raises(GuestHungError, match=r"did not become quiet within 0\.1 s"):
            await machine.save(1, lambda: None, last=False)
        assert machine.is_answering
        assert machine.session.end is None
