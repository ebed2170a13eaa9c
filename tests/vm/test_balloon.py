"""The volunteer's memory preference, with a real guest and its hypervisor."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from boincvm.guestlink.link import GuestLink
from boincvm.host.process_tree import own_usage
from boincvm.hypervisor.qemu.machine import QemuMachine
from support.booted import LIMIT, Listener, booted, spec_in
from support.host_delays import within
from support.slot import Slot

MIB = 1 << 20
SIZE = 512 * MIB
PERIOD = 0.1
"""Seconds between two looks at what nothing announces."""
pytestmark = pytest.mark.timeout(250)

USE_AND_FREE = """
b = bytearray(200 << 20)
b[::4096] = bytes(len(b[::4096]))
print('in use', flush=True)
input()
"""
GROW = "b = bytearray(240 << 20); b[::4096] = bytes(len(b[::4096])); print('grown', len(b))"
READ = """
with open('large', 'wb') as file:
    for _ in range(200): file.write(bytes(1 << 20))
import os
os.sync()
print('read')
"""
AVAILABLE = "print([line.split()[1] for line in open('/proc/meminfo')][2])"


async def prints(link: GuestLink, script: str) -> str:
    """Return what the Python source `script` prints in the guest."""
    listener = Listener()
    program = listener.start(link, script)
    program.end_input()
    async with asyncio.timeout(2 * LIMIT):  # the guest takes its memory back page by page
        end = await program.wait()
    assert end.code == 0, listener.output
    return listener.output["stdout"].decode().strip()


async def available(link: GuestLink) -> int:
    """Return the bytes that its programs can still have."""
    return int(await prints(link, AVAILABLE)) << 10


async def holds(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT):
        while not await condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(PERIOD)


def resident(machine: QemuMachine) -> int:
    return sum(own_usage(pid)[1] for pid in machine.process_ids())


async def test_a_guest_gives_memory_and_gets_it_back(base_image: Path, tmp_path: Path) -> None:
    spec = spec_in(tmp_path / "machine", base_image)._replace(memory=SIZE, balloon=True)
    async with booted(spec) as (machine, link):
        listener = Listener()
        program = listener.start(link, USE_AND_FREE)
        await listener.until(lambda: b"in use" in listener.output["stdout"])
        used = resident(machine)
        program.feed(b"\n")
        async with asyncio.timeout(LIMIT):
            assert (await program.wait()).code == 0
        before = await available(link)

        async def has_given() -> bool:
            return resident(machine) < used - 150 * MIB

        async def has_little() -> bool:
            return await available(link) < before - 340 * MIB

        async def has_all() -> bool:
            return await available(link) > before - 20 * MIB

        await holds(has_given)  # what is free, by itself
        await machine.set_memory(160 * MIB)
        await holds(has_little)
        # It takes back what it gave rather than kill a program that needs more than it has.
        assert await prints(link, GROW) == f"grown {240 * MIB}"
        await machine.set_memory(SIZE)
        await holds(has_all)


async def test_memory_in_use_is_given_too(base_image: Path, tmp_path: Path) -> None:
    """It is used only by the guest's page cache."""
    spec = spec_in(tmp_path / "machine", base_image)._replace(memory=SIZE, balloon=True)
    async with booted(spec) as (machine, link):
        assert await prints(link, READ) == "read"
        used = resident(machine)

        async def has_given() -> bool:
            return resident(machine) < used - 100 * MIB

        await machine.set_memory(160 * MIB)
        await holds(has_given)


async def test_what_a_guest_says_of_its_memory(base_image: Path, tmp_path: Path) -> None:
    spec = spec_in(tmp_path / "machine", base_image)._replace(balloon=True)
    async with booted(spec) as (machine, link):
        assert await machine.memory() is None  # it was only asked now

        async def has_said() -> bool:
            return await machine.memory() is not None

        await holds(has_said)
        printed = await machine.memory()
        assert printed is not None
        assert printed.size == spec.memory
        assert abs(printed.available - await available(link)) < 20 * MIB


async def test_a_machine_without_a_balloon(base_image: Path, tmp_path: Path) -> None:
    async with booted(spec_in(tmp_path / "machine", base_image)) as (machine, link):
        assert machine.balloon is None
        assert "virtio_balloon" not in await prints(link, "print(open('/proc/modules').read())")


@pytest_asyncio.fixture
async def slot(base_image: Path, tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path, period=0.25) as slot:
        yield slot


async def test_preferences_that_change_while_a_program_runs(slot: Slot) -> None:
    slot.slot.host["m_nbytes"] = 4 << 30
    slot.slot.write_init_data()
    slot.machine_job(
        "while ! [ -e /tmp/end ]; do"
        " awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo; sleep 0.5; done"
    )
    await slot.begin()

    def last() -> int:
        lines = slot.text("out").split("\n")[:-1]
        return int(lines[-1]) if lines else -1

    await slot.holds(lambda: last() > 380)
    assert "of memory" not in slot.stderr  # all that it was made with
    slot.change_preferences(ram_max_used_busy_pct=5, ram_max_used_idle_pct=8)  # 328 MiB
    await slot.holds(lambda: 0 <= last() < 160)
    await slot.wait_for_text("stderr.txt", "has 199.0 MiB of its 512.0 MiB of memory")
    slot.change_preferences(ram_max_used_busy_pct=1, ram_max_used_idle_pct=1)
    await slot.holds(lambda: 0 <= last() < 70)
    assert slot.is_running

    slot.send(Control.QUIT)
    assert (await slot.wait(50)).kind is EndKind.QUIT, slot.stderr
    # As it was when it went to sleep, until it is told otherwise.
    slot.change_preferences(ram_max_used_busy_pct=50, ram_max_used_idle_pct=90)
    await slot.begin()
    await slot.holds(lambda: last() > 380)
    slot.send(Control.ABORT)
    with within(10):
        assert (await slot.wait(LIMIT)).kind is not EndKind.FINISHED
