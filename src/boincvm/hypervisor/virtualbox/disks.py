"""The disk files of a machine: layers over the image's root disk, and the transfer disk.

The image's root disk is shared by all machines, and never written to. VirtualBox reads qcow2 as it
is; each layer over it is a VDI file.
"""

import os
import re
import uuid
from pathlib import Path

from boincvm.errors import UsageError
from boincvm.host.files import open_descriptor
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.disks import (
    TRANSFER_DISK,
    TRANSFER_DISK_SIZE,
    disk_errors,
    disk_size,
    free_layer,
)
from boincvm.hypervisor.saved_state import check_layer
from boincvm.hypervisor.virtualbox import vdi
from boincvm.hypervisor.virtualbox.home import Medium

_TRANSFER_DISK_DESCRIPTOR = "transfer-disk.vmdk"
TRANSFER_DISK_FILES = (TRANSFER_DISK, _TRANSFER_DISK_DESCRIPTOR)
"""The transfer disk: its bytes as they are, and the text by which VirtualBox finds them."""
_BASE = uuid.UUID("b01c0000-0000-4000-8000-000000000001")
_TRANSFER_DISK_ID = uuid.UUID("b01c0000-0000-4000-8000-000000000002")
"""The image's disk and the transfer disk have the same UUIDs in every machine's registry."""
LAYER = re.compile(r"[0-9A-Za-z{}-]{1,63}\.vdi")
"""The name of a layer in a machine's directory, ours or VirtualBox's."""
_SUFFIX = ".vdi"
_FORMATS = {"qcow2": "QCOW", "raw": "RAW"}
MOST_LAYERS = 200
"""Layers that a machine's disk may have; each checkpoint of a running machine adds one."""
MANY_LAYERS = 8
"""Layers from which on a machine that goes on gets them merged into one first."""


class Disks:
    """The root disk's layers and the transfer disk, whose `transfer_disk` is open until `close`."""

    def __init__(
        self,
        spec: MachineSpec,
        directory: Path,
        layers: tuple[str, ...],
        *,
        are_frozen: bool = False,
    ) -> None:
        """Make the disks in `directory`, or take `layers`, which lie there already.

        `are_frozen`: these belong to a saved state, so that they get a new layer over them.

        Raises HypervisorError, HostDiskFullError, UsageError.
        """
        self.directory = directory
        self.transfer_disk = -1
        try:
            with disk_errors():
                self._open(spec, layers, are_frozen=are_frozen)
        except BaseException:
            self.close()
            raise

    def _open(self, spec: MachineSpec, layers: tuple[str, ...], *, are_frozen: bool) -> None:
        size, wanted = _sizes(spec)
        self.chain = [Medium(_BASE, spec.root.resolve(), _FORMATS[spec.root_format])]
        for name in layers:
            self._add_existing(name)
        self.layers = layers
        if not layers:
            self._add_layer(wanted, size)
        elif are_frozen:
            self._merge_if_many()
            top = vdi.read_layer(self.top.path).size
            self._add_layer(top, top)
        self._make_transfer_disk()

    def _add_layer(self, size: int, below: int) -> None:
        """Put an empty layer of `size` bytes over a disk of `below` bytes. Raises OSError."""
        name = free_layer(self.directory, _SUFFIX)
        layer = vdi.write_layer(self.directory / name, size, self.chain[-1].id, below)
        self.chain.append(Medium(layer, self.directory / name, "VDI"))
        self.layers = (*self.layers, name)

    def _merge_if_many(self) -> None:
        """Put what many layers hold into one; their files stay.

        Raises OSError, LayerRefusedError.
        """
        if len(self.layers) < MANY_LAYERS:
            return
        name = free_layer(self.directory, _SUFFIX)
        paths = [medium.path for medium in self.chain[1:]]
        layer = vdi.merge_layers(paths, self.directory / name)
        self.chain[1:] = [Medium(layer, self.directory / name, "VDI")]
        self.layers = (name,)

    def _add_existing(self, name: str) -> None:
        check_layer(name, LAYER)
        layer = vdi.read_layer(self.directory / name)
        if layer.below != self.chain[-1].id or len(self.chain) > MOST_LAYERS:
            raise vdi.LayerRefusedError(f"{name} does not belong over {self.chain[-1].path.name}")
        if layer.id in {medium.id for medium in self.chain}:
            raise vdi.LayerRefusedError(f"{name} has the UUID of a layer beneath it")
        self.chain.append(Medium(layer.id, self.directory / name, "VDI"))

    @property
    def top(self) -> Medium:
        return self.chain[-1]

    @property
    def transfer_disk_medium(self) -> Medium:
        """The transfer disk, of a kind that snapshots leave alone."""
        return Medium(
            _TRANSFER_DISK_ID, self.directory / _TRANSFER_DISK_DESCRIPTOR, "VMDK", "Writethrough"
        )

    def _make_transfer_disk(self) -> None:
        path = self.directory / TRANSFER_DISK
        path.unlink(missing_ok=True)
        self.transfer_disk = open_descriptor(path, "x+", follow_links=False, permissions=0o600)
        os.ftruncate(self.transfer_disk, TRANSFER_DISK_SIZE)
        (self.directory / _TRANSFER_DISK_DESCRIPTOR).write_text(_VMDK)

    def close(self) -> None:
        """Close the transfer disk. Idempotent."""
        if self.transfer_disk >= 0:
            os.close(self.transfer_disk)
            self.transfer_disk = -1


_VMDK = f"""\
# Disk DescriptorFile
version=1
CID=b01c0001
parentCID=ffffffff
createType="monolithicFlat"
RW {TRANSFER_DISK_SIZE // 512} FLAT "{TRANSFER_DISK}" 0
ddb.virtualHWVersion = "4"
ddb.adapterType="ide"
ddb.uuid.image="{_TRANSFER_DISK_ID}"
ddb.uuid.modification="00000000-0000-0000-0000-000000000000"
ddb.uuid.parent="00000000-0000-0000-0000-000000000000"
ddb.uuid.parentmodification="00000000-0000-0000-0000-000000000000"
"""
"""A disk whose bytes lie as they are in a file beside this one."""


def _sizes(spec: MachineSpec) -> tuple[int, int]:
    """Return the size of the root disk, and that of the machine's disk. Raises UsageError."""
    size = qcow2.check_root(spec.root, spec.root_format)
    wanted = disk_size(spec, size)
    if wanted > size and size % vdi.BLOCK:
        raise UsageError(
            "VirtualBox cannot enlarge a disk whose size is not a multiple of 1 MiB",
            hint="leave the disk's size out",
        )
    return size, wanted
