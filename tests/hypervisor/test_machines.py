"""What machines of every driver do, whatever else they can."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest

from boincvm.errors import HypervisorError, UsageError
from boincvm.guestlink.link import GuestLink
from boincvm.host.process_tree import descendants
from boincvm.hypervisor.contract import (
    Driver,
    DriverPackage,
    EndCause,
    Machine,
    MachineSpec,
    MachineState,
)
from boincvm.hypervisor.doctor import Status
from support.bench import open_those_that_run, wait_for_end
from support.driven import LIMIT, Running, answering, run, runs_linux, shell

pytestmark = pytest.mark.timeout(200)
Made = Callable[[Machine], Machine]
SpecIn = Callable[[str], MachineSpec]
PROBE = 0.3
"""Seconds in which something would happen that must not."""


def state_of(machine: Machine) -> MachineState:
    """Return the state; otherwise a type checker assumes that it is as last compared."""
    return machine.state


async def test_its_name(package: DriverPackage, driver: Driver) -> None:
    assert driver.name == package.name


def test_what_doctor_looks_at(package: DriverPackage, kernel: Path) -> None:
    for name, check in package.checks:
        for result in check(lambda: kernel):
            assert result.status is not Status.FAILED, result
            assert name
            assert result.name
            assert result.detail


async def test_every_verb_twice(driver: Driver, spec: MachineSpec, made: Made) -> None:
    machine = made(driver.machine(spec))
    assert state_of(machine) is MachineState.DEFINED
    for _ in range(2):
        await machine.create()
        assert state_of(machine) is MachineState.CREATED
    async with answering(machine):
        assert state_of(machine) is MachineState.RUNNING
        for _ in range(2):
            await machine.pause()
            assert state_of(machine) is MachineState.PAUSED
        for _ in range(2):
            await machine.resume()
            assert state_of(machine) is MachineState.RUNNING
        with pytest.raises(HypervisorError):
            await machine.start()
        for _ in range(2):
            await machine.stop()
            assert state_of(machine) is MachineState.STOPPED
    assert (await machine.ended()).cause is EndCause.ASKED
    assert machine.process_ids() == ()
    for _ in range(2):
        await machine.destroy()
        assert state_of(machine) is MachineState.DESTROYED


async def test_verbs_that_a_machine_is_not_ready_for(
    driver: Driver, spec: MachineSpec, made: Made
) -> None:
    machine = made(driver.machine(spec))
    await machine.create()
    for verb in (machine.pause, machine.resume, machine.ended):
        with pytest.raises(HypervisorError):
            await verb()
    await machine.stop()
    await machine.destroy()
    with pytest.raises(HypervisorError):
        await machine.start()


async def test_a_program_and_its_streams(driver: Driver, spec: MachineSpec, made: Made) -> None:
    """Run several at once, each with more data than any driver's queue can hold."""
    machine = made(driver.machine(spec))
    sent = [os.urandom(100_000) for _ in range(3)]
    async with answering(machine) as link:
        programs = [Running(link, "cat") for _ in sent]
        for program, data in zip(programs, sent, strict=True):
            await program.feed(data)
        for program, data in zip(programs, sent, strict=True):
            program.program.end_input()
            assert (await program.end()).code == 0
            assert program.output == {"stdout": data, "stderr": b""}


async def test_the_progress_of_a_program(linux: Driver, spec: MachineSpec, made: Made) -> None:
    """It is reported while the program runs, whatever the guest's kernel can do."""
    machine = made(linux.machine(spec))
    changes: asyncio.Queue[bytes] = asyncio.Queue()
    async with answering(machine) as link:
        writer = Running(link, "sh", "-c", "while read word; do echo $word >progress; done")
        writer.program.watch("progress", lambda _path, _modified, tail: changes.put_nowait(tail))
        for word in (b"0.25\n", b"0.5\n"):
            await writer.feed(word)
            async with asyncio.timeout(LIMIT):
                while await changes.get() != word:
                    pass  # empty, just before it was written
        writer.program.end_input()
        assert (await writer.end()).code == 0


async def test_nothing_goes_on_while_it_is_paused(
    driver: Driver, spec: MachineSpec, made: Made
) -> None:
    machine = made(driver.machine(spec))
    async with answering(machine) as link:
        cat = Running(link, "cat")
        await cat.feed(b"1")
        assert await cat.until(1) == b"1"
        for word in (b"2", b"3"):
            await machine.pause()
            await cat.feed(word)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(PROBE):
                    await cat.until(int(word))
            await machine.resume()
            assert (await cat.until(int(word)))[-1:] == word


async def test_a_pause_before_the_guest_has_spoken(
    linux: Driver, spec: MachineSpec, made: Made
) -> None:
    for _ in range(5):
        machine = made(linux.machine(spec))
        channel = await machine.start()
        await machine.pause()
        link = await GuestLink.open(channel)
        try:
            await asyncio.wait((link.ready, link.failure), timeout=PROBE)
            if not link.ready.done():
                await _boots_step_by_step(machine, link)
                return
        finally:
            link.close()
        await machine.destroy()  # on a busy host it may have spoken before the pause
    raise AssertionError("each guest had spoken although it was paused at once")


async def _boots_step_by_step(machine: Machine, link: GuestLink) -> None:
    for _ in range(3):  # at several moments of its boot
        await machine.resume()
        await asyncio.wait((link.ready, link.failure), timeout=PROBE / 10)
        await machine.pause()
    await machine.resume()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait((link.ready, link.failure), return_when=asyncio.FIRST_COMPLETED)
    assert link.ready.done(), link.failure.result()


async def test_nothing_is_used_while_it_is_paused(
    linux: Driver, spec: MachineSpec, made: Made
) -> None:
    """This holds even if programs compute, and start others, all the time."""
    machine = made(linux.machine(spec))
    async with answering(machine) as link:
        if machine.usage() is None:
            pytest.skip("nobody can tell what its machines use")
        script = "while :; do :; done & while :; do /bin/true; done & echo begun; wait"
        busy = Running(link, "/bin/sh", "-c", script)
        await busy.until(len("begun\n"))
        for _ in range(5):
            await machine.pause()
            before, begun = machine.usage(), monotonic()
            await asyncio.sleep(PROBE)
            after, took = machine.usage(), monotonic() - begun  # more on a busy host
            assert before is not None
            assert after is not None
            assert after.cpu_seconds - before.cpu_seconds < took / 4
            await machine.resume()
            assert await shell(link, "echo alive") == "alive\n"


async def test_what_it_uses(linux: Driver, spec: MachineSpec, made: Made) -> None:
    """The usage includes programs that have ended."""
    machine = made(linux.machine(spec))
    async with answering(machine) as link:
        before = machine.usage()
        if before is None:
            pytest.skip("nobody can tell what its machines use")
        ended = await run(
            link, "/bin/sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
        )
        after = machine.usage()
        assert after is not None
        assert ended.end.user_time > 0.05
        # A guest on a busy host takes for its own what others had.
        assert after.cpu_seconds - before.cpu_seconds > 0.05
        assert 16 << 20 < after.resident < 1 << 30
    await machine.stop()
    assert machine.usage() is None


async def test_a_guest_that_turns_itself_off(driver: Driver, spec: MachineSpec, made: Made) -> None:
    machine = made(driver.machine(spec))
    async with answering(machine) as link:
        link.power_off()
        async with asyncio.timeout(LIMIT):
            end = await machine.ended()
    assert end.cause is EndCause.POWERED_OFF


async def test_a_guest_whose_kernel_gives_up(linux: Driver, spec: MachineSpec, made: Made) -> None:
    machine = made(linux.machine(spec))
    async with answering(machine) as link:
        Running(link, "/bin/sh", "-c", "echo c >/proc/sysrq-trigger")
        async with asyncio.timeout(LIMIT):
            end = await machine.ended()
    assert end.cause is EndCause.PANICKED
    assert "sysrq" in end.detail


async def test_a_machine_that_is_killed(driver: Driver, spec: MachineSpec, made: Made) -> None:
    machine = made(driver.machine(spec))
    async with answering(machine) as link:
        if not machine.process_ids():
            pytest.skip("it has no process of its own")
        killed = machine.process_ids()[0]
        tree = open_those_that_run((killed, *descendants(killed)))
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(LIMIT):
            assert (await machine.ended()).cause is EndCause.KILLED
            await link.failure
    assert machine.process_ids() == ()
    for process in tree:  # nothing of it runs on
        await asyncio.to_thread(wait_for_end, process)


@pytest.mark.parametrize("step", ["running", "paused", "being saved", "going on"])
async def test_a_kill_at_each_step(
    driver: Driver, spec: MachineSpec, made: Made, step: str
) -> None:
    """Its end is reported as such, and nothing is left; no guest needs to have booted for that."""
    machine = made(driver.machine(spec))
    async with _begun(machine):
        if not machine.process_ids():
            pytest.skip("it has no process of its own")
        if step == "paused":
            await machine.pause()
        if step in ("running", "paused"):
            os.kill(machine.process_ids()[0], signal.SIGKILL)
            await _was_killed(machine)
            return
        checkpointing, saved_machines = machine.checkpointing, driver.saved_machines
        if checkpointing is None or saved_machines is None:
            pytest.skip("it keeps no machine")
        if step == "being saved":
            os.kill(machine.process_ids()[0], signal.SIGSTOP)  # so that it is not done too soon
            saving = asyncio.ensure_future(checkpointing.checkpoint(1))
            await asyncio.wait((saving,), timeout=PROBE)
            os.kill(machine.process_ids()[0], signal.SIGKILL)
            with pytest.raises(HypervisorError):
                async with asyncio.timeout(LIMIT):
                    await saving
            await _was_killed(machine)
            return
        checkpoint = await checkpointing.save(1)
    restored = made(saved_machines.restore(spec, checkpoint))
    async with _begun(restored):
        os.kill(restored.process_ids()[0], signal.SIGKILL)
        await _was_killed(restored)


@asynccontextmanager
async def _begun(machine: Machine, *, runs: bool = True) -> AsyncIterator[None]:
    """Start the machine, and wait until all of its processes are there; its guest `runs` on."""
    link = await GuestLink.open(await machine.start())
    try:
        await machine.pause()
        if runs:
            await machine.resume()
        yield
    finally:
        link.close()


async def _was_killed(machine: Machine) -> None:
    """Check that its end is told, and that nothing is left of it once it is destroyed."""
    async with asyncio.timeout(LIMIT):
        assert (await machine.ended()).cause is EndCause.KILLED
    assert machine.process_ids() == ()
    await machine.destroy()
    assert list(machine.spec.directory.iterdir()) == []


async def test_a_disk_outlives_its_machine(linux: Driver, spec: MachineSpec, made: Made) -> None:
    first = made(linux.machine(spec))
    async with answering(first) as link:
        await shell(link, "echo kept >/root/file")
        link.power_off()  # which writes all out
        async with asyncio.timeout(LIMIT):
            await first.ended()
    layers = first.disk_layers
    await first.stop()
    assert layers
    second = made(linux.machine(spec._replace(layers=layers)))
    async with answering(second) as link:
        assert await shell(link, "cat /root/file") == "kept\n"


async def test_a_larger_disk(linux: Driver, spec: MachineSpec, made: Made) -> None:
    machine = made(linux.machine(spec._replace(disk_size=20 << 30)))
    async with answering(machine) as link:
        blocks = int((await shell(link, "stat -f -c %b /")).strip())
        assert blocks * 4096 > 19 << 30
    with pytest.raises(UsageError, match="less than the image's"):
        await linux.machine(spec._replace(disk_size=1 << 30)).create()


_CLEAN = """
import sys
from boincvm.hypervisor.registry import find_driver
find_driver(sys.argv[1]).remove_orphans()
"""
"""What each process does that makes a machine, and `boincvm doctor --clean`."""


async def test_machines_of_one_image_are_apart(linux: Driver, spec_in: SpecIn, made: Made) -> None:
    one, two = (made(linux.machine(spec_in(name))) for name in ("one", "two"))
    async with answering(one) as first, answering(two) as second:
        await shell(first, "echo mine >/root/file; sync /root/file")
        assert await shell(second, "ls /root") == ""
        command = [sys.executable, "-c", _CLEAN, linux.name]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=LIMIT)
        assert await shell(first, "cat /root/file") == "mine\n"
        await one.pause()
        assert await shell(second, "echo alive") == "alive\n"
        # A person removes the files of one that runs: it runs on, and ends as it should.
        shutil.rmtree(two.spec.directory)
        assert await shell(second, "echo alive still") == "alive still\n"
        await two.destroy()
        async with asyncio.timeout(LIMIT):
            assert (await two.ended()).cause is EndCause.ASKED


@pytest.mark.parametrize("ephemeral", [False, True])
async def test_nothing_is_left(
    driver: Driver, spec: MachineSpec, made: Made, *, ephemeral: bool
) -> None:
    machine = made(driver.machine(spec._replace(ephemeral=ephemeral)))
    async with answering(machine) as link:
        cat = Running(link, "cat")
        await cat.feed(b"all is well")
        await cat.until(len(b"all is well"))
        files = list(spec.directory.iterdir()) if spec.directory.exists() else []
        assert not ephemeral or files == []
        assert {path.name for path in files} <= machine.files_in_use()
    await machine.destroy()
    assert not spec.directory.exists() or list(spec.directory.iterdir()) == []


async def test_what_it_cannot_do_it_does_not_hand_out(
    driver: Driver, spec: MachineSpec, made: Made
) -> None:
    """This holds before it starts: a request for a network must be refused then."""
    plain = made(driver.machine(spec))
    assert plain.network is None
    assert plain.display is None
    assert plain.remote_desktop is None
    assert plain.balloon is None
    assert plain.freezing is None
    assert (plain.checkpointing is None) is (driver.saved_machines is None)
    if not runs_linux(driver):
        return
    async with answering(plain) as link:
        assert await shell(link, "ls /sys/class/net") == "lo\n"
