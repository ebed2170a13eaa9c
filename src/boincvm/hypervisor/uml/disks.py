"""The disk files of a User-mode Linux: its root disk (made from the image's) and transfer disk."""

import os
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.files import open_descriptor, open_nameless
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.disks import TRANSFER_DISK, TRANSFER_DISK_SIZE, disk_errors, disk_size
from boincvm.hypervisor.uml.base_disk import open_base, write_overlay

DISK = "disk.raw"
"""In the machine's directory."""


class Disks:
    """The root disk and the transfer disk of a machine, open until `close`.

    `root` and `transfer_disk` are their descriptors, for reading and writing. `base` lies beneath
    `root`, read-only; it is -1 for a disk that outlives the machine, which has nothing beneath it.
    """

    def __init__(self, spec: MachineSpec) -> None:
        """Create or open the disks. Those of an ephemeral machine are unlinked.

        A User-mode Linux reads no qcow2. An ephemeral disk is an overlay over a raw copy of the
        image's (base_disk.py). A disk that is kept is a copy itself: for an image of 92 MiB this
        takes 0.1 s, and no time where the host's file system shares blocks.

        Raises HypervisorError, HostDiskFullError, UsageError.
        """
        self.root = self.transfer_disk = self.base = -1
        try:
            with disk_errors():
                self._open(spec)
        except BaseException:
            self.close()
            raise

    def _open(self, spec: MachineSpec) -> None:
        if spec.layers:
            self.root = _open_saved(spec)
        elif spec.ephemeral and spec.disk_size is None:
            self.base = open_base(spec.root, spec.root_format)
            self.root = _new(spec.directory / DISK, spec.ephemeral)
            write_overlay(self.root, self.base, path_of(self.base))
        else:
            size = disk_size(spec, qcow2.check_root(spec.root, spec.root_format))
            self.root = _new(spec.directory / DISK, spec.ephemeral)
            qcow2.write_raw(spec.root, self.root, spec.root_format)
            os.ftruncate(self.root, size)
        self.transfer_disk = _new(spec.directory / TRANSFER_DISK, spec.ephemeral)
        os.ftruncate(self.transfer_disk, TRANSFER_DISK_SIZE)

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        for descriptor in (self.root, self.transfer_disk, self.base):
            if descriptor >= 0:
                os.close(descriptor)
        self.root = self.transfer_disk = self.base = -1

    @property
    def root_argument(self) -> str:
        """Return what the kernel's `ubd0=` takes."""
        if self.base < 0:
            return path_of(self.root)
        return f"{path_of(self.root)},{path_of(self.base)}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Return the descriptors that the kernel inherits."""
        return tuple(
            descriptor
            for descriptor in (self.root, self.transfer_disk, self.base)
            if descriptor >= 0
        )


def path_of(descriptor: int) -> str:
    """Return the path by which the kernel finds an inherited descriptor in its sandbox."""
    return f"/proc/self/fd/{descriptor}"


def _new(path: Path, ephemeral: bool) -> int:
    if ephemeral:
        return open_nameless(path.parent)
    path.unlink(missing_ok=True)
    return open_descriptor(path, "x+", follow_links=False, permissions=0o600)


def _open_saved(spec: MachineSpec) -> int:
    if spec.layers != (DISK,):
        raise HypervisorError(
            f"the machine's disk is not {DISK}, so it was not made by User-mode Linux"
        )
    return open_descriptor(spec.directory / DISK, "r+", follow_links=False)
