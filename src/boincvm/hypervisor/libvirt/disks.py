"""The files of a machine's disks: the root disk's layers and the transfer disk."""

import os
from pathlib import Path

from boincvm.errors import HypervisorError, UsageError, host_error
from boincvm.host.files import create_new, open_descriptor
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.libvirt.definition import Layer
from boincvm.sizes import format_size

DISK, WINDOW = "disk.qcow2", "window"
"""In the machine's directory."""
WINDOW_SIZE = 32 << 20
"""Size of the transfer disk in bytes."""


class Disks:
    """A machine's disks; `window` is the transfer disk's descriptor, open until `close`."""

    def __init__(self, spec: MachineSpec) -> None:
        """Make or check them. Raises HypervisorError, HostDiskFullError, UsageError."""
        self.window = -1
        self._directory = spec.directory
        self.names = spec.layers or (DISK,)
        try:
            size = qcow2.check_root(spec.root, spec.root_format)
            if spec.layers:
                for name in spec.layers:
                    qcow2.check_disk(spec.directory / name)
            else:
                qcow2.write_overlay(spec.directory / DISK, _wanted(spec, size))
            path = spec.directory / WINDOW
            path.unlink(missing_ok=True)
            with create_new(path) as window:
                window.truncate(WINDOW_SIZE)
            self.window = open_descriptor(path, "r+", follow_links=False)
        except qcow2.DiskRefusedError as error:
            raise HypervisorError(f"the machine's disk is refused: {error}") from error
        except OSError as error:
            raise host_error(
                "the machine's disks cannot be made", error, HypervisorError
            ) from error
        self.layers = [
            *(Layer(spec.directory / name, "qcow2") for name in reversed(self.names)),
            Layer(spec.root, spec.root_format),
        ]
        """The writable one first, the image's last."""

    @property
    def window_path(self) -> Path:
        return self._directory / WINDOW

    def unlink(self) -> None:
        """Remove the files. Idempotent. Raises OSError."""
        for name in (*self.names, WINDOW):
            (self._directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the transfer disk. Idempotent."""
        if self.window >= 0:
            os.close(self.window)
            self.window = -1


def _wanted(spec: MachineSpec, size: int) -> int:
    wanted = size if spec.disk_size is None else spec.disk_size
    if wanted < size:
        raise UsageError(
            f"a disk of {format_size(wanted)} is less than the image's {format_size(size)}",
            hint="ask for at least that much, or leave out the disk's size",
        )
    return wanted
