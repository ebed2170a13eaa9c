"""The files of a machine's disks: the root disk's layers and the transfer disk."""

import os
from pathlib import Path

from boincvm.host.files import create_new, open_descriptor
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.disks import TRANSFER_DISK, TRANSFER_DISK_SIZE, disk_errors, disk_size
from boincvm.hypervisor.libvirt.definition import Layer

DISK = "disk.qcow2"
"""In the machine's directory."""


class Disks:
    """A machine's disks; `window` is the transfer disk's descriptor, open until `close`."""

    def __init__(self, spec: MachineSpec) -> None:
        """Make or check them. Raises HypervisorError, HostDiskFullError, UsageError."""
        self.window = -1
        self._directory = spec.directory
        self.names = spec.layers or (DISK,)
        with disk_errors():
            size = qcow2.check_root(spec.root, spec.root_format)
            if spec.layers:
                for name in spec.layers:
                    qcow2.check_disk(spec.directory / name)
            else:
                qcow2.write_overlay(spec.directory / DISK, disk_size(spec, size))
            path = spec.directory / TRANSFER_DISK
            path.unlink(missing_ok=True)
            with create_new(path) as window:
                window.truncate(TRANSFER_DISK_SIZE)
            self.window = open_descriptor(path, "r+", follow_links=False)
        self.layers = [
            *(Layer(spec.directory / name, "qcow2") for name in reversed(self.names)),
            Layer(spec.root, spec.root_format),
        ]
        """The writable one first, the image's last."""

    @property
    def window_path(self) -> Path:
        return self._directory / TRANSFER_DISK

    def unlink(self) -> None:
        """Remove the files. Idempotent. Raises OSError."""
        for name in (*self.names, TRANSFER_DISK):
            (self._directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the transfer disk. Idempotent."""
        if self.window >= 0:
            os.close(self.window)
            self.window = -1
