"""Disks that name files of the host, with a real QEMU, which is never started with one."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.contract import Checkpoint, FileSeal, MachineSpec
from boincvm.hypervisor.qcow2 import write_overlay
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.image.manifest import ContentFile, decode_manifest
from boincvm.image.store import ImageStore
from boincvm.paths import data_directory

pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("base_image")]
SECRET = b"nobody else may read this" + bytes(487)
LIMIT = 60.0


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET * 2048)
    path.chmod(0o600)
    return path


def point_at(disk: Path, secret: Path) -> None:
    """Make the content of the qcow2 file `disk` that of the file `secret`."""
    name = os.fsencode(secret)
    clusters = len(SECRET) * 2048 >> 16
    with disk.open("r+b") as file:
        for offset, data in (
            (72, struct.pack(">Q", 1 << 2)),  # incompatible: an external data file
            (88, struct.pack(">Q", 1 << 1)),  # which is as raw as the disk
            (104, struct.pack(">II", 0x44415441, len(name)) + name),
            (3 << 16, struct.pack(">Q", 1 << 63 | 4 << 16)),
            (4 << 16, b"".join(struct.pack(">Q", 1 << 63 | n << 16) for n in range(clusters))),
            (2 << 16, struct.pack(">H", 1) * 5),
        ):
            file.seek(offset)
            file.write(data)
        file.truncate(5 << 16)


def hostile_disk(path: Path, secret: Path) -> Path:
    write_overlay(path, len(SECRET) * 2048)
    point_at(path, secret)
    return path


def test_such_a_disk_would_give_the_file_away(tmp_path: Path, secret: Path) -> None:
    """Show the danger: QEMU's own tools read the secret through it."""
    disk = hostile_disk(tmp_path / "disk.qcow2", secret)
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(tmp_path / "out")]
    subprocess.run(command, check=True, timeout=LIMIT)
    assert (tmp_path / "out").read_bytes()[: len(SECRET)] == SECRET


@pytest.fixture
def spec(base_image: Path, tmp_path: Path) -> MachineSpec:
    directory = tmp_path / "machine"
    directory.mkdir(mode=0o700)
    files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
    return MachineSpec(directory, *files, memory=256 << 20, cpus=1)


async def must_not_start(spec: MachineSpec) -> None:
    machine = QemuDriver("tcg").machine(spec)
    with pytest.raises(HypervisorError, match=r"refused: .* names another file"):
        await machine.start()
    assert machine.process_ids() == ()


async def test_an_image(spec: MachineSpec, tmp_path: Path, secret: Path) -> None:
    root = hostile_disk(tmp_path / "root.qcow2", secret)
    await must_not_start(spec._replace(root=root))


async def test_an_image_beneath_a_disk_of_a_former_life(
    spec: MachineSpec, tmp_path: Path, secret: Path
) -> None:
    root = hostile_disk(tmp_path / "root.qcow2", secret)
    write_overlay(spec.directory / "disk-000001.qcow2", 8 << 30)
    await must_not_start(spec._replace(root=root, layers=("disk-000001.qcow2",)))


async def test_a_disk_of_a_former_life(spec: MachineSpec, secret: Path) -> None:
    hostile_disk(spec.directory / "disk-000001.qcow2", secret)
    await must_not_start(spec._replace(layers=("disk-000001.qcow2",)))
    elsewhere = hostile_disk(secret.with_name("disk-000001.qcow2"), secret)
    for name in (str(elsewhere), "../disk-000001.qcow2"):
        with pytest.raises(HypervisorError, match="not a layer of a machine's disk"):
            await QemuDriver("tcg").machine(spec._replace(layers=(name,))).start()


def test_an_image_in_the_store(tmp_path: Path, secret: Path) -> None:
    """Test the whole path: digests and manifest agree, and the command gives the reason for the
    refusal."""
    home = tmp_path / "home"
    with ImageStore(data_directory() / "images").open("base") as image:
        location = home / "data" / "images" / "new"
        shutil.copytree(image.directory, location)
        manifest = decode_manifest((location / "manifest.json").read_bytes(), location)
    root = location / "root.qcow2"
    root.unlink()
    hostile_disk(root, secret)
    content = root.read_bytes()
    sealed = ContentFile("root.qcow2", len(content), hashlib.sha256(content).hexdigest())
    hostile = replace(manifest, files=(*manifest.files[:2], sealed))
    (location / "manifest.json").unlink()
    (location / "manifest.json").write_bytes(hostile.encode())
    store = ImageStore(home / "data" / "images")
    store.publish("base", location, hostile)
    done = subprocess.run(
        [sys.executable, "-m", "boincvm.cli.main", "run", "--json", "--", "cat", "/dev/vda"],
        env={**os.environ, "BOINCVM_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == ExitCode.HYPERVISOR_FAILED
    reported = json.loads(done.stdout)["error"]["message"]
    assert "root.qcow2 may not be a machine's disk: it names another file" in reported


async def test_a_checkpoint_that_says_more_than_its_machine_type(spec: MachineSpec) -> None:
    seal = FileSeal(0, "")
    table = {
        "type": f"pc-q35-7.2,kernel={spec.kernel},initrd=/etc/passwd",
        "accelerator": "tcg",
        "processor": "",
        "memory": "memory-000001",
        "layers": ["disk-000001.qcow2"],
    }
    files = {"memory-000001": seal, "disk-000001.qcow2": seal}
    with pytest.raises(HypervisorError, match="type is invalid"):
        QemuDriver("tcg").restore(spec, Checkpoint(1, files, table))
