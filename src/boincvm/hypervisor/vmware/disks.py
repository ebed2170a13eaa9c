"""The files of a machine's root disk: the image's, raw, and layers over it.

    base.raw      the image's disk: the raw copy in the cache, by a second name, or one of its own
    base.vmdk     its description
    NAME.vmdk     layers, each over the one before; the last is written to

VMware reads no qcow2, and puts a layer of its own over the last one when it takes a snapshot. There
is no transfer disk: while a machine has a disk that snapshots leave alone, VMware takes none of it
while it runs.
"""

import copy
import os
import re
from pathlib import Path

from boincvm.host.files import open_descriptor
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.disks import disk_errors, disk_size
from boincvm.hypervisor.raw_copies import raw_copy
from boincvm.hypervisor.saved_state import check_layer
from boincvm.hypervisor.vmware import vmdk

_CACHE = "vmware-base"
"""The directory of raw copies in the cache directory."""
_RAW, _BASE = "base.raw", "base.vmdk"
BASE_FILES = (_RAW, _BASE)
MOST_LAYERS = 100
"""Layers that a machine's disk may have; each checkpoint of a running machine adds one."""
LAYER = re.compile(r"[0-9A-Za-z-]{1,63}\.vmdk")
"""The name of a layer in a machine's directory, ours or VMware's."""
MANY_LAYERS = 8
"""Layers from which on a machine that resumes gets them merged into one first."""


class Disks:
    """The root disk's layers, in `directory`."""

    def __init__(
        self,
        spec: MachineSpec,
        directory: Path,
        layers: tuple[str, ...],
        *,
        are_frozen: bool = False,
    ) -> None:
        """Make the disk in `directory`, or take `layers`, which lie there already.

        `are_frozen`: these belong to a saved state, so that they get a new layer over them.

        Raises HypervisorError, HostDiskFullError, UsageError.
        """
        self.directory = directory
        self.layers: tuple[str, ...] = ()
        with disk_errors():
            self._size = _wanted_size(spec, directory, layers)
            _make_base(spec, directory, self._size)
            for name in layers:
                self.add_existing(name)
            if are_frozen:
                self._go_on()
            elif not layers:
                self._add_layer()

    @property
    def top(self) -> Path:
        return self.directory / self.layers[-1]

    def add_existing(self, name: str) -> None:
        """Add the layer `name`, whose file exists and which lies over the last one.

        Raises HypervisorError, LayerRefusedError, OSError.
        """
        check_layer(name, LAYER)
        below, below_id = self._last()
        layer = vmdk.read_layer(self.directory / name)
        if name in self.layers or len(self.layers) >= MOST_LAYERS:
            raise vmdk.LayerRefusedError(f"{name} exceeds the maximum number of layers")
        if (layer.parent, layer.parent_id) != (below, below_id):
            raise vmdk.LayerRefusedError(f"{name} does not belong over {below}")
        if layer.size != self._size:
            raise vmdk.LayerRefusedError(f"{name} and {below} differ in size")
        self.layers = (*self.layers, name)

    def drop(self) -> None:
        """Forget the last layer, which VMware has removed."""
        self.layers = self.layers[:-1]

    def over_frozen(self) -> "Disks":
        """Return the disk of a machine that goes on from a saved state of these layers.

        They stay as they are; if it fails, nothing else is left. Raises HypervisorError,
        HostDiskFullError.
        """
        made = copy.copy(self)
        with disk_errors():
            made._go_on()
        return made

    def _go_on(self) -> None:
        """Put a new layer over those of a saved state, or over what many of them hold."""
        frozen = self.layers
        try:
            self._merge_if_many()
            self._add_layer()
        except BaseException:
            for name in set(self.layers) - set(frozen):
                (self.directory / name).unlink()
            raise

    def _merge_if_many(self) -> None:
        """Put what many layers hold into one; their files stay."""
        if len(self.layers) < MANY_LAYERS:
            return
        name = free_layer(self.directory)
        paths = [self.directory / layer for layer in self.layers]
        try:
            vmdk.merge_layers(paths, self.directory / name)
        except BaseException:
            (self.directory / name).unlink(missing_ok=True)
            raise
        self.layers = (name,)

    def _add_layer(self) -> None:
        """Put an empty layer over the last one."""
        name = free_layer(self.directory)
        try:
            vmdk.write_layer(self.directory / name, self._size, *self._last())
        except BaseException:
            (self.directory / name).unlink(missing_ok=True)
            raise
        self.layers = (*self.layers, name)

    def _last(self) -> tuple[str, int]:
        """Return the name of what the next layer lies over, and its content id as it is now."""
        if not self.layers:
            return _BASE, vmdk.BASE_CID
        return self.layers[-1], vmdk.read_layer(self.top).content_id


def _make_base(spec: MachineSpec, directory: Path, size: int) -> None:
    """Put the image's disk into the directory. Raises OSError, HostError, DiskRefusedError."""
    path = directory / _RAW
    path.unlink(missing_ok=True)
    cached, descriptor = raw_copy(_CACHE, spec.root, spec.root_format)
    try:
        is_whole = os.fstat(descriptor).st_size == size
    finally:
        os.close(descriptor)
    if not is_whole or not _is_linked(cached, path):
        own = open_descriptor(path, "x+", follow_links=False, permissions=0o600)
        try:
            qcow2.write_raw(spec.root, own, spec.root_format)
            os.ftruncate(own, size)
        finally:
            os.close(own)
    vmdk.write_base(directory / _BASE, _RAW, size)


def _is_linked(cached: Path, path: Path) -> bool:
    """Give the cached copy a second name, if both are on one file system that can do that."""
    try:
        os.link(cached, path, follow_symlinks=False)
    except OSError:
        return False
    return True


def _wanted_size(spec: MachineSpec, directory: Path, layers: tuple[str, ...]) -> int:
    """Return the size of the machine's disk. Raises UsageError, LayerRefusedError, OSError."""
    size = qcow2.check_root(spec.root, spec.root_format)
    if layers:
        check_layer(layers[0], LAYER)
        return max(size, vmdk.read_layer(directory / layers[0]).size)
    wanted = disk_size(spec, size)
    return wanted + -wanted % vmdk.SECTOR


def free_layer(directory: Path) -> str:
    """Return a name for a new layer, greater than that of any of ours that lies there.

    It has no hyphen, after which VMware puts a number of its own for the next layer.
    """
    numbers = [
        int(number)
        for path in directory.glob("disk*.vmdk")
        if (number := path.stem.removeprefix("disk").partition("-")[0]).isdecimal()
    ]
    return f"disk{max(numbers, default=0) + 1:06d}.vmdk"
