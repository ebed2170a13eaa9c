"""What machines of some drivers can do, by the drivers' own declaration."""

import asyncio
import hashlib
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from boincvm.errors import HypervisorError
from boincvm.guestlink.clone_identity import clone_identity
from boincvm.guestlink.get import get_tree
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.put import put_tree
from boincvm.guestlink.transfer_disk import TransferDisk
from boincvm.hypervisor.contract import (
    Checkpoint,
    Checkpointing,
    Driver,
    EndCause,
    Machine,
    MachineSpec,
    MachineState,
    RootDisk,
)
from boincvm.job.model import MachineShape
from boincvm.machine.saved_machine import SavedMachine, find_saved, write_saved
from support.driven import LIMIT, Running, answering, runs_linux, shell

pytestmark = pytest.mark.timeout(300)
PROBE = 0.3
"""Seconds in which something would happen that must not."""
CANCEL_LIMIT = 60.0
"""Seconds within which a checkpoint ends that is cancelled."""
Made = Callable[[Machine], Machine]
SpecIn = Callable[[str], MachineSpec]


async def test_the_transfer_disk(
    linux: Driver, spec: MachineSpec, made: Made, tmp_path: Path
) -> None:
    machine = made(linux.machine(spec))
    (tmp_path / "file").write_bytes(os.urandom(5_000_001))
    async with answering(machine) as link:
        disk = machine.transfer_disk
        if disk is None:
            pytest.skip("it has no transfer disk")
        window = TransferDisk(disk.descriptor)
        there, back = PurePosixPath("there"), PurePosixPath("back")
        async with asyncio.timeout(LIMIT):
            await put_tree(link, window, Path("file"), there, directory=tmp_path)
            await get_tree(link, window, there, back, directory=tmp_path, maximum_bytes=1 << 30)
        assert (tmp_path / back).read_bytes() == (tmp_path / "file").read_bytes()


class Counted:
    """A root disk and its one reader, which counts the bytes that it has copied."""

    def __init__(self, disk: RootDisk) -> None:
        self._disk = disk
        self.copied = 0

    def open_reader(self) -> "Counted":
        self._reader = self._disk.open_reader()
        return self

    def copy(self, at: int, length: int, target: int, offset: int) -> None:
        self._reader.copy(at, length, target, offset)
        self.copied += length

    def close(self) -> None:
        self._reader.close()


async def test_the_root_disk(linux: Driver, spec: MachineSpec, made: Made, tmp_path: Path) -> None:
    """Copy data from the guest's cache, and data that was written out before."""
    machine = made(linux.machine(spec))
    async with answering(machine) as link:
        root_disk, disk = machine.root_disk, machine.transfer_disk
        if root_disk is None or disk is None:
            pytest.skip("the host cannot read its root disk")
        counted = Counted(root_disk)
        window = TransferDisk(disk.descriptor, counted)
        for name, write in (
            ("cached", "head -c 9000001"),
            ("out", "dd bs=1M count=9 oflag=direct"),
        ):
            await shell(link, f"{write} </dev/urandom >{name} 2>/dev/null; sha256sum {name} >sum")
            for here in (PurePosixPath(name), PurePosixPath("sum")):
                async with asyncio.timeout(LIMIT):
                    await get_tree(
                        link, window, here, here, directory=tmp_path, maximum_bytes=1 << 30
                    )
            digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
            assert (tmp_path / "sum").read_text().split() == [digest, name]
    assert counted.copied == 9_000_001 + (9 << 20)


async def test_the_network_card(linux: Driver, spec: MachineSpec, made: Made) -> None:
    machine = made(linux.machine(spec._replace(network=True)))
    card = machine.network
    if card is None:
        pytest.skip("it has no network")
    async with answering(machine) as link:
        for connected in (True, False, True):
            await card.connect(connected=connected)
            carrier = "cat /sys/class/net/eth0/carrier"
            await shell(link, f"until [ $({carrier}) = {int(connected)} ]; do sleep 0.1; done")


async def test_the_balloon(driver: Driver, spec: MachineSpec, made: Made) -> None:
    machine = made(driver.machine(spec._replace(balloon=True)))
    balloon = machine.balloon
    if balloon is None:
        pytest.skip("its guests give no memory back")
    async with answering(machine):
        less = spec.memory - (64 << 20)
        async with asyncio.timeout(LIMIT):
            await balloon.set_memory(less)
            printed = await balloon.memory()
            # A report may be older than what the guest has given back since.
            while printed is None or printed.size > less or printed.available >= printed.size:
                await asyncio.sleep(0.1)
                printed = await balloon.memory()
            assert 0 < printed.available < printed.size
            await balloon.set_memory(spec.memory)


async def test_the_screen(linux: Driver, spec: MachineSpec, made: Made) -> None:
    machine = made(linux.machine(spec._replace(display=True)))
    display = machine.display
    if display is None:
        pytest.skip("it has no screen")
    async with answering(machine):
        directory = os.open(display.socket.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as screen:
                screen.settimeout(LIMIT)
                screen.connect(f"/proc/self/fd/{directory}/{display.socket.name}")
                assert screen.recv(12).startswith(b"RFB 003.")
        finally:
            os.close(directory)
    await machine.stop()
    assert not display.socket.exists()


async def test_a_screenshot(linux: Driver, spec_in: SpecIn, made: Made, tmp_path: Path) -> None:
    """Use a machine as for a task or, if that has no screen, one with a screen."""
    plain = made(linux.machine(spec_in("plain")))
    machine = plain
    if plain.screenshots is None:
        machine = made(linux.machine(spec_in("with a screen")._replace(display=True)))
    screenshots = machine.screenshots
    if screenshots is None:
        pytest.skip("no picture can be taken of its screen")
    picture = tmp_path / "a picture, its place: odd=yes.png"
    with pytest.raises(HypervisorError):
        await screenshots.take_screenshot(picture)
    async with answering(machine):
        await screenshots.take_screenshot(picture)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", content, 16)
    assert 320 <= width <= 1920
    assert 200 <= height <= 1200


async def _quiet(link: GuestLink, program: Running) -> tuple[dict[str, object], dict[str, object]]:
    """Return the states of the link and of the program, once the guest is quiet."""
    await link.quiesce(LIMIT)
    return link.state(), program.program.state()


async def _goes_on(machine: Machine, states: tuple[dict[str, object], ...], word: bytes) -> None:
    """Check that a machine that was saved and is still paused has a program that answers after it
    resumes."""
    async with answering(machine, states[0]) as link:
        assert machine.state is MachineState.PAUSED
        program = Running.attached(link, states[1])
        await link.attach(LIMIT, let_run=machine.resume)
        had = len(program.output["stdout"])
        await program.feed(word)
        assert (await program.until(had + len(word)))[-len(word) :] == word


async def test_checkpoints(driver: Driver, spec: MachineSpec, made: Made) -> None:
    """Make one while it runs, and one with which it ends; a program resumes from either."""
    saved_machines = driver.saved_machines
    if saved_machines is None:
        pytest.skip("it keeps no machine")
    machine = made(driver.machine(spec))
    checkpointing = machine.checkpointing
    assert checkpointing is not None
    async with answering(machine) as link:
        program = Running(link, "cat")
        await program.feed(b"one")
        await program.until(3)
        await _quiet(link, program)
        live = await checkpointing.checkpoint(1)
        assert machine.state is MachineState.RUNNING
        assert set(live.files) <= {path.name for path in spec.directory.iterdir()}
        await link.attach(LIMIT)
        await program.feed(b"two")
        await program.until(6)
        states = await _quiet(link, program)
        last = await checkpointing.save(2)
        assert machine.state is MachineState.SAVED
        assert await checkpointing.save(2) == last
    for finding in saved_machines.examine(last):
        assert finding.is_good, finding
    for stored in (last, _read_again(spec.directory, driver, last)):
        restored = saved_machines.restore(spec, stored)
        assert restored.state is MachineState.SAVED
        await _goes_on(restored, states, b"three")
        await restored.stop()
        if restored is machine:
            break  # in memory there is but one


async def test_a_checkpoint_that_is_cancelled(
    driver: Driver, spec: MachineSpec, made: Made
) -> None:
    """Its machine runs on, and the next one has all that its guest has written since."""
    machine = made(driver.machine(spec))
    checkpointing = machine.checkpointing
    if checkpointing is None or not runs_linux(driver):
        pytest.skip("it keeps no machine")
    async with answering(machine) as link:
        number = await _cancelled_checkpoint(checkpointing, spec.directory)
        assert machine.state is MachineState.RUNNING
        assert await shell(link, "echo kept >/root/file; sync; echo alive") == "alive\n"
        await link.quiesce(LIMIT)
        state, layers = link.state(), machine.disk_layers
        last = await checkpointing.save(number + 1)
        assert set(layers) <= set(last.files)
    assert driver.saved_machines is not None
    restored = made(driver.saved_machines.restore(spec, last))
    async with answering(restored, state) as link:
        await link.attach(LIMIT, let_run=restored.resume)
        assert await shell(link, "cat /root/file") == "kept\n"


async def _cancelled_checkpoint(checkpointing: Checkpointing, directory: Path) -> int:
    """Cancel a checkpoint that has begun to write its files; return its number."""
    for number in range(1, 6):  # one may be complete before this process is aware of its files
        before = os.listdir(directory)
        saving = asyncio.ensure_future(checkpointing.checkpoint(number))
        while os.listdir(directory) == before and not saving.done():
            await asyncio.wait((saving,), timeout=PROBE / 30)
        saving.cancel()
        await asyncio.wait((saving,), timeout=CANCEL_LIMIT)
        if saving.cancelled():
            return number
        assert saving.done(), f"it has not ended within {CANCEL_LIMIT:g} s of being cancelled"
        saving.result()
    raise AssertionError("each checkpoint was complete before it could be cancelled")


def _read_again(directory: Path, driver: Driver, stored: Checkpoint) -> Checkpoint:
    """Return the checkpoint as another process finds it in the machine's directory."""
    shape = MachineShape(image="image", memory=256 << 20, cpus=1, disk=None, network=False)
    write_saved(directory, SavedMachine(stored, driver.name, "00", shape, {}, (), None))
    found = find_saved(directory)
    assert found.saved is not None, found.lost
    return found.saved.checkpoint


async def test_golden_snapshots(driver: Driver, spec_in: SpecIn, made: Made) -> None:
    """Copies start from a booted machine and are independent."""
    golden = driver.golden_snapshots
    if golden is None:
        pytest.skip("it makes no copies")
    assert golden.identity() == golden.identity() != {}
    pattern = spec_in("golden")
    machine = made(golden.machine(pattern))
    assert machine.freezing is not None
    async with answering(machine) as link:
        await link.quiesce(LIMIT)
        state = link.state()
        await machine.freezing.freeze()
    printed = set()
    for name in ("one", "two"):
        copy = made(golden.clone(spec_in(name), pattern.directory))
        async with answering(copy, state) as link:
            await link.attach(LIMIT, clone_identity(network=False))
            script = "cat /root/file /proc/sys/kernel/random/uuid; echo mine >/root/file"
            printed.add(await shell(link, script + " 2>/dev/null"))
    assert len(printed) == 2
    assert not any("mine" in text for text in printed)


# 16-bit code that a computer's firmware loads from the first sector of a disk and jumps to: it
# resets the computer by its keyboard controller's port and, where there is none, by a triple fault.
BOOT_SECTOR = (
    b"\xfa"  # cli
    b"\xb0\xfe\xe6\x64"  # mov al, 0xfe; out 0x64, al
    b"\x0f\x01\x1e\x10\x7c"  # lidt [0x7c10]: no interrupt table
    b"\xcc"  # int3, which nobody handles
    b"\xf4\xeb\xfd"  # hlt; jmp to it
    b"\x00\x00" + bytes(6)  # at 0x7c10: a table of length 0
)


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
async def test_firmware_boots_a_disk(
    linux: Driver, spec: MachineSpec, made: Made, tmp_path: Path, disk_format: str
) -> None:
    """Without our kernel and without an agent, the content of the disk determines how it ends."""
    if not linux.has_firmware:
        pytest.skip("its machines have no firmware")
    raw, disk = tmp_path / "raw", tmp_path / "disk"
    raw.write_bytes(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    convert = ["qemu-img", "convert", "-f", "raw", "-O", disk_format, raw, disk]
    await asyncio.to_thread(subprocess.run, convert, check=True)
    spec = spec._replace(kernel=None, initrd=None, root=disk, root_format=disk_format)  # type: ignore[arg-type]
    machine = made(linux.machine(spec))
    channel = await machine.start()
    try:
        async with asyncio.timeout(LIMIT):
            assert (await machine.ended()).cause is EndCause.POWERED_OFF
    finally:
        channel.close()
