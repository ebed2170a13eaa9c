"""Snapshots of jobs, as `boincvm snapshot export` writes them, without running a machine."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from boincvm.file_digest import digest_of
from boincvm.hypervisor.contract import Checkpoint, FileSeal
from boincvm.hypervisor.qcow2 import write_overlay
from boincvm.hypervisor.qemu.memory_file import MemoryWriter
from boincvm.hypervisor.qemu.stream import PAGE, Block, Frame
from boincvm.job.model import MachineShape
from boincvm.machine.saved_machine import SavedMachine, write_saved
from boincvm.wrapper.snapshot.archive import export

MIB = 1 << 20
MACHINE = "boincvm-machine-0"
MEMORY, DISK = "memory-000001", "disk-000001.qcow2"
JOB = """<job_desc><task><application>app.sh</application><virtualmachine>vm</virtualmachine>
<copy_app_to_VM>1</copy_app_to_VM><memory_mb>64</memory_mb></task></job_desc>"""
TABLE: dict[str, object] = {
    "qemu": "7.2.22",
    "type": "pc-q35-7.2",
    "accelerator": "tcg",
    "cpu": "max,-erms,-fsrm",
    "processor": "one",
    "memory": MEMORY,
    "layers": [DISK],
    "live": PAGE,
}
Change = Callable[[Path], object]


def make_job(directory: Path, job: str = JOB, **changes: object) -> Path:
    """Make a job with a saved machine; `changes` replace what its driver reports."""
    location = directory / MACHINE
    location.mkdir(parents=True)
    (directory / "job.xml").write_text(job)
    (directory / "app.sh").write_text("#!/bin/sh\n")
    blocks = (Block(b"pc.ram", 64 * PAGE),)
    writer = MemoryWriter(location, MEMORY, None)
    writer.begin(blocks)
    writer.page(0, 1, b"x" * PAGE)
    writer.finish(Frame(b"QEVM\0\0\0\x03", 2, 0, 4, blocks, b"devices"))
    writer.close()
    write_overlay(location / DISK, 8 << 30)
    seal(directory, **changes)
    return directory


def seal(directory: Path, files: dict[str, FileSeal] | None = None, **changes: object) -> None:
    """Write the checkpoint's manifest, with digests of its files as they are now."""
    location = directory / MACHINE
    found = {name: FileSeal(*digest_of(location / name)) for name in (MEMORY, DISK)}
    checkpoint = Checkpoint(1, found if files is None else files, {**TABLE, **changes})
    shape = MachineShape(memory=64 * MIB)
    write_saved(
        location, SavedMachine(checkpoint, "qemu", "0" * 64, shape, {"next_call": 9}, (), None)
    )


def make_snapshot(directory: Path, change: Change = lambda _: None, **changes: object) -> Path:
    """Write a snapshot of such a job, after applying `change` to its directory."""
    job = make_job(directory / "job", **changes)  # type: ignore[arg-type]
    change(job)
    export(job, directory / "job.snapshot", force=False)
    return directory / "job.snapshot"


def members(snapshot: Path) -> dict[str, bytes]:
    """Return names and contents of its members."""
    with tarfile.open(snapshot, "r:gz") as archive:
        return {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]


def write_members(snapshot: Path, contents: dict[str, bytes]) -> None:
    """Rewrite the file with these members, in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in contents.items():
            information = tarfile.TarInfo(name)
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    snapshot.write_bytes(gzip.compress(buffer.getvalue(), 1))


def change_table(snapshot: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Rewrite the file with `change` applied to its description of itself."""
    contents = members(snapshot)
    table = json.loads(contents["snapshot.json"])
    change(table)
    write_members(snapshot, {**contents, "snapshot.json": json.dumps(table).encode()})
