"""What some drivers' machines can do, each by its own word."""

import asyncio
import hashlib
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from boincvm.guestlink.clone_identity import clone_identity
from boincvm.guestlink.get import get_tree
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.put import put_tree
from boincvm.guestlink.transfer_disk import TransferDisk
from boincvm.hypervisor.contract import (
    Checkpoint,
    Driver,
    EndCause,
    Machine,
    MachineSpec,
    MachineState,
    RootDisk,
)
from support.driven import LIMIT, Running, answering, shell

pytestmark = pytest.mark.timeout(300)
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
    """What the guest wrote by way of its cache, and what it had written out before."""
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
            said = await balloon.memory()
            # A report may be older than what the guest has given back since.
            while said is None or said.size > less or said.available >= said.size:
                await asyncio.sleep(0.1)
                said = await balloon.memory()
            assert 0 < said.available < said.size
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


async def _quiet(link: GuestLink, program: Running) -> tuple[dict[str, object], dict[str, object]]:
    """The states of the link and of the program, once the guest is quiet."""
    await link.quiesce(LIMIT)
    return link.state(), program.program.state()


async def _goes_on(machine: Machine, states: tuple[dict[str, object], ...], word: bytes) -> None:
    """A machine that stands still as it was kept: its program still answers."""
    async with answering(machine, states[0]) as link:
        assert machine.state is MachineState.PAUSED
        program = Running.attached(link, states[1])
        await link.attach(LIMIT, let_run=machine.resume)
        had = len(program.output["stdout"])
        await program.feed(word)
        assert (await program.until(had + len(word)))[-len(word) :] == word


async def test_checkpoints(driver: Driver, spec: MachineSpec, made: Made) -> None:
    """One while it runs, and one with which it ends; from either a program goes on."""
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
    for kept in (last, _through_json(last)):
        restored = saved_machines.restore(spec, kept)
        assert restored.state is MachineState.SAVED
        await _goes_on(restored, states, b"three")
        await restored.stop()
        if restored is machine:
            break  # in memory there is but one


def _through_json(kept: Checkpoint) -> Checkpoint:
    """As another process reads it."""
    import json

    return kept._replace(machine=json.loads(json.dumps(dict(kept.machine))))


async def test_golden_snapshots(driver: Driver, spec_in: SpecIn, made: Made) -> None:
    """Copies start from one that has booted, and go their own ways."""
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
    said = set()
    for name in ("one", "two"):
        copy = made(golden.clone(spec_in(name), pattern.directory))
        async with answering(copy, state) as link:
            await link.attach(LIMIT, clone_identity(network=False))
            script = "cat /root/file /proc/sys/kernel/random/uuid; echo mine >/root/file"
            said.add(await shell(link, script + " 2>/dev/null"))
    assert len(said) == 2
    assert not any("mine" in text for text in said)


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
    """Without a kernel of ours, and without an agent: it ends as what is on the disk says."""
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
