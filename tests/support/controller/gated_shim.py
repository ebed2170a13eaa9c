"""Run by a test as a machine's shim: one that asks before each step of a snapshot.

It sends the step's name to the UNIX socket that `BOINCVM_TEST_GATE` names, and goes on when it gets
an answer. After the steps of QEMU's driver (qemu/checkpoint.py) it has these, of which the first
two do not block the rest of the shim:

    manifest to be written   the guest's programs run again
    manifest written
    snapshot named           it is in snapshots.json, and state.json is as it was

It also checks that state.json never names a disk that a power cut could destroy.
"""

import os
import socket
import sys
from functools import partial
from pathlib import Path

from boincvm.hypervisor.qemu import driver
from boincvm.machine import checkpointing
from boincvm.machine.saved_machine import SavedMachine
from boincvm.shim import process
from boincvm.shim.machine_directory import MachineDirectory, Status
from boincvm.shim.snapshots import Snapshots

write_saved, add, write_status = (
    checkpointing.write_saved,
    Snapshots.add,
    MachineDirectory.write_status,
)
fsync = os.fsync
synced: list[Path] = []
"""Files in the order in which they were synced."""


def note_sync(descriptor: int) -> None:
    fsync(descriptor)
    synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())


def check_sync(self: MachineDirectory, status: Status) -> None:
    """Check that a new top layer was synced, and then its name; others synced those below it."""
    if status.layers != self.status().layers:
        file = synced.index(self.disk / status.layers[-1])
        assert self.disk in synced[file:]
    write_status(self, status)


def wait_at_gate(step: str) -> None:
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(os.environ["BOINCVM_TEST_GATE"])
        gate.sendall(f"{step}\n".encode())
        gate.recv(1)


def write(directory: Path, saved: SavedMachine) -> None:
    wait_at_gate("manifest to be written")
    write_saved(directory, saved)
    wait_at_gate("manifest written")


def name_it(self: Snapshots, *given: object) -> None:
    add(self, *given)  # type: ignore[arg-type]
    wait_at_gate("snapshot named")


if __name__ == "__main__":
    driver.QemuMachine = partial(driver.QemuMachine, on_step=wait_at_gate)  # type: ignore[misc]
    os.fsync = note_sync
    MachineDirectory.write_status = check_sync  # type: ignore[method-assign]
    checkpointing.write_saved = write  # type: ignore[attr-defined]
    Snapshots.add = name_it  # type: ignore[assignment]
    sys.exit(process.main())
