"""The files of a machine's disks: the root disk's layers and the transfer disk."""

import os
from pathlib import Path

from boincvm.host.files import create_new, open_descriptor
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.disks import TRANSFER_DISK, TRANSFER_DISK_SIZE, disk_errors, disk_size
from boincvm.hypervisor.libvirt.definition import Layer
from boincvm.hypervisor.libvirt.saved import check_layer_name, free_layer

DISK = "disk.qcow2"
"""In the machine's directory."""


class Disks:
    """A machine's disks; `window` is the transfer disk's descriptor, open until `close`."""

    def __init__(self, spec: MachineSpec, *, are_frozen: bool = False) -> None:
        """Make or check them; over layers that are frozen comes a new one.

        Raises HypervisorError, HostDiskFullError, UsageError.
        """
        self.window = -1
        self.directory = spec.directory
        self.names = spec.layers or (DISK,)
        self._root = Layer(spec.root, spec.root_format)
        with disk_errors():
            size = qcow2.check_root(spec.root, spec.root_format)
            if spec.layers:
                for name in map(check_layer_name, spec.layers):
                    qcow2.check_disk(spec.directory / name)
                if are_frozen:
                    self.names = (*spec.layers, self.write_layer())
            else:
                qcow2.write_overlay(spec.directory / DISK, disk_size(spec, size))
            path = spec.directory / TRANSFER_DISK
            path.unlink(missing_ok=True)
            with create_new(path) as window:
                window.truncate(TRANSFER_DISK_SIZE)
            self.window = open_descriptor(path, "r+", follow_links=False)

    @property
    def layers(self) -> list[Layer]:
        """The writable one first, the image's last."""
        own = [Layer(self.directory / name, "qcow2") for name in reversed(self.names)]
        return [*own, self._root]

    @property
    def window_path(self) -> Path:
        return self.directory / TRANSFER_DISK

    def write_layer(self) -> str:
        """Write an empty layer that fits over the disk, and return its name.

        Raises HypervisorError, HostDiskFullError.
        """
        name = free_layer(self.directory, self.names)
        with disk_errors():
            size = qcow2.check_disk(self.directory / self.names[-1])
            qcow2.write_overlay(self.directory / name, size)
        return name

    def unlink(self) -> None:
        """Remove the files. Idempotent. Raises OSError."""
        unlink_files(self.directory)

    def close(self) -> None:
        """Close the transfer disk. Idempotent."""
        if self.window >= 0:
            os.close(self.window)
            self.window = -1


def unlink_files(directory: Path) -> None:
    """Remove all files of a machine from its directory. Idempotent. Raises OSError."""
    for pattern in (DISK, "disk-*.qcow2", "memory-*", TRANSFER_DISK):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
