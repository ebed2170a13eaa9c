"""The files of a machine's disks: the root disk's layers and the transfer disk."""

import os
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.files import create_new, open_descriptor
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import DiskReader, MachineSpec
from boincvm.hypervisor.disks import (
    TRANSFER_DISK,
    TRANSFER_DISK_SIZE,
    disk_errors,
    disk_size,
    free_layer,
    layer_name,
    open_files,
)
from boincvm.hypervisor.libvirt.definition import Layer
from boincvm.hypervisor.libvirt.saved import MOST_LAYERS
from boincvm.hypervisor.qcow2_merge import MergeError, merge
from boincvm.hypervisor.saved_state import QCOW2_LAYER, check_layers

FIRST_LAYER = layer_name(0)
MANY_LAYERS = 8
"""Layers from which on they are merged."""


class Disks:
    """A machine's disks; `transfer_disk` is the transfer disk's descriptor, open until `close`."""

    def __init__(self, spec: MachineSpec, *, are_frozen: bool = False) -> None:
        """Make or check them; over layers that are frozen comes a new one.

        Raises HypervisorError, HostDiskFullError, UsageError.
        """
        self.transfer_disk = -1
        self.unmerged = ""
        """Why the layers of this running machine cannot be merged; empty if they can."""
        self._unlinked: list[int] = []
        """Descriptors of the layers once they have no name any more."""
        self.directory = spec.directory
        self.names = spec.layers or (FIRST_LAYER,)
        self._root = Layer(spec.root, spec.root_format)
        with disk_errors():
            size = qcow2.check_root(spec.root, spec.root_format)
            if spec.layers:
                for name in check_layers(spec.layers, QCOW2_LAYER):
                    qcow2.check_disk(spec.directory / name)
                if are_frozen:
                    if len(self.names) >= MANY_LAYERS:
                        self.names = (self.merge(self.names),)
                    self.names = (*self.names, self.write_layer())
            else:
                qcow2.write_overlay(spec.directory / FIRST_LAYER, disk_size(spec, size))
            path = spec.directory / TRANSFER_DISK
            path.unlink(missing_ok=True)
            with create_new(path) as transfer_disk:
                transfer_disk.truncate(TRANSFER_DISK_SIZE)
            self.transfer_disk = open_descriptor(path, "r+", follow_links=False)

    @property
    def layers(self) -> list[Layer]:
        """The writable one first, the image's last."""
        return self.files_of(self.names)

    def files_of(self, names: tuple[str, ...]) -> list[Layer]:
        """Return the files of a root disk with these layers, the highest first."""
        own = [Layer(self.directory / name, "qcow2") for name in reversed(names)]
        return [*own, self._root]

    def open_reader(self) -> DiskReader:
        """Implement `RootDisk.open_reader`."""
        from boincvm.hypervisor.disk_reader import open_disk  # only for large files

        if self._unlinked:
            opened = [os.dup(layer) for layer in self._unlinked]
        else:
            opened = open_files(self.directory / name for name in self.names)
        return open_disk(opened, self._root.path, self._root.format)

    @property
    def transfer_disk_path(self) -> Path:
        return self.directory / TRANSFER_DISK

    def write_layer(self) -> str:
        """Write an empty layer that fits over the disk, and return its name.

        Raises HypervisorError, HostDiskFullError.
        """
        if len(self.names) >= MOST_LAYERS:
            why = f", and they cannot be merged: {self.unmerged}" if self.unmerged else ""
            raise HypervisorError(f"the machine's disk has {MOST_LAYERS} layers already{why}")
        name = free_layer(self.directory)
        with disk_errors():
            size = qcow2.check_disk(self.directory / self.names[-1])
            qcow2.write_overlay(self.directory / name, size)
        return name

    def merge(self, names: tuple[str, ...]) -> str:
        """Write what these layers hold, the lowest first, to one new file, and return its name.

        They stay. Raises HypervisorError, HostDiskFullError.
        """
        target = free_layer(self.directory)
        path = self.directory / target
        try:
            with disk_errors():
                merge([self.directory / name for name in names], path)
        except MergeError as error:
            path.unlink(missing_ok=True)
            raise HypervisorError(f"the disk's layers cannot be merged: {error}") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return target

    def unlink(self) -> None:
        """Remove the files' names; `open_reader` can open them still. Raises OSError."""
        self._unlinked = open_files(self.directory / name for name in self.names)
        unlink_files(self.directory)

    def close(self) -> None:
        """Close the files. Idempotent."""
        for layer in self._unlinked:
            os.close(layer)
        self._unlinked = []
        if self.transfer_disk >= 0:
            os.close(self.transfer_disk)
            self.transfer_disk = -1


def unlink_files(directory: Path) -> None:
    """Remove all files of a machine from its directory. Idempotent. Raises OSError."""
    for pattern in ("disk-*.qcow2", "memory-*", TRANSFER_DISK):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
