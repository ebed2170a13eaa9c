"""A machine that starts before its image is here, and waits for parts of its disk."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.hypervisor.contract import EndCause
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.image.delivery import keys
from support.bench import LIMIT, Bench, finish, read_line
from support.image_server import ImageServer, refusing, serving
from support.partial_images import content, publish_start, write_disk


@pytest.fixture
def server(tmp_path: Path, base_image: Path) -> Iterator[ImageServer]:
    www = tmp_path / "www"
    www.mkdir()
    keys.make_key(tmp_path / "key.pem")
    publish_start(base_image, "there", www, tmp_path / "key.pem")
    with serving(www) as server:
        yield server


@pytest.fixture
def volunteer(tmp_path: Path) -> Iterator[Bench]:
    """Yield a user without any image."""
    bench = Bench(tmp_path / "volunteer", data=tmp_path / "data")
    try:
        yield bench
        left = bench.left_overs()
    finally:
        bench.stop_all()
    assert left == []


def test_a_machine_waits_for_its_disk_and_goes_on(
    server: ImageServer, volunteer: Bench, tmp_path: Path
) -> None:
    public = keys.public_key(tmp_path / "key.pem")
    fetched = volunteer.run(
        "fetch", "--on-demand", server.url, "there", "--key", public, verb="image"
    )
    assert fetched.code == 0, fetched.stderr
    # Where all of it is needed, that is reported before anything starts.
    for options in (["--driver", "uml"], ["--resumable"]):
        done = volunteer.run("--image", "there", *options, "--", "true")
        assert done.code != 0
        assert "only a part is here" in done.stderr
    script = "echo ready; read line; tar --version"
    process = volunteer.start("--image", "there", "--", "sh", "-c", script, stdin=subprocess.PIPE)
    assert read_line(process.stdout) == b"ready\n", process.stderr
    server.faults[".blocks"] = refusing(503)
    assert process.stdin is not None
    process.stdin.write(b"go on\n")
    process.stdin.flush()
    assert b"may have to wait for parts of its disk" in read_line(process.stderr)
    server.faults.clear()
    done = finish(process)
    assert done.code == 0, done.stderr
    assert done.stdout.startswith(b"tar (GNU tar)")
    assert "can be read again" in done.stderr
    (blocks,) = server.directory.glob("images/*.blocks")
    assert server.sent < blocks.stat().st_size / 2


class BreakingDisk:
    """A source that fails when the firmware reads the boot sector, which QEMU has read before."""

    def __init__(self, disk: bytes) -> None:
        self.size = len(disk)
        self._disk = disk
        self._sector = disk.index(content()[:512])
        self._times = 0
        self.may_fail = asyncio.Event()

    async def read(self, offset: int, length: int) -> bytes:
        if offset <= self._sector < offset + length:
            self._times += 1
            if self._times > 1:
                await self.may_fail.wait()
                raise RuntimeError("a fault of ours")
        return self._disk[offset : offset + length]


async def test_a_machine_whose_disk_cannot_be_served_is_ended(tmp_path: Path) -> None:
    root, directory = tmp_path / "root.qcow2", tmp_path / "machine"
    write_disk(root, content())
    directory.mkdir(mode=0o700)
    source = BreakingDisk(root.read_bytes())
    spec = MachineSpec(directory, None, None, root, 64 << 20, 1, root_source=source)
    machine = QemuDriver("tcg").machine(spec)
    async with asyncio.timeout(LIMIT):
        channel = await machine.start()
        try:
            assert machine.root_disk is None
            source.may_fail.set()
            end = await machine.ended()
        finally:
            await machine.destroy()
            channel.close()
    assert end.cause is EndCause.FAILED
    assert "its disk could not be read on demand: a fault of ours" in end.detail
