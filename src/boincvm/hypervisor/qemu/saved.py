"""Validation of the parts of a checkpoint's manifest that are meant for QEMU.

A manifest may have come with an imported snapshot, so nothing of it reaches QEMU's command line or
its monitor before it was validated here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import Checkpoint, FileSeal
from boincvm.hypervisor.qcow2 import DiskRefusedError, check_disk
from boincvm.hypervisor.qemu.memory_file import MemoryFileError, MemoryImage
from boincvm.hypervisor.qemu.target import AARCH64, X86_64, Target

_MACHINE_TYPE = re.compile(r"(pc-q35|virt)-[0-9]{1,2}\.[0-9]{1,2}")
_ACCELERATOR = re.compile(r"tcg|kvm")
_TARGETS = {"pc-q35": X86_64, "virt": AARCH64}
"""By machine type, without its version."""
_CPUS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "pc-q35": {"kvm": (X86_64.cpus["kvm"],), "tcg": ("max", X86_64.cpus["tcg"])},
    "virt": {"tcg": (AARCH64.cpus["tcg"],)},
}
"""The CPUs that a machine may have been saved with, by machine type and accelerator. The first one
is that of an older boincvm, which did not record it."""
_LAYER = re.compile(r"disk-[0-9]{6,9}\.qcow2")
_MEMORY = re.compile(r"memory-[0-9]{6,9}")
_LONGEST_SHOWN = 80
_MOST_LAYERS = 64


class SavedState(NamedTuple):
    """The state of a machine that a checkpoint has saved.

    All files are in the machine's directory, and sealed by the checkpoint.
    """

    machine_type: str
    """With its version, like `pc-q35-7.2`."""
    accelerator: str
    """One of "kvm" and "tcg"."""
    cpu: str
    """The guest's CPU as `-cpu` takes it."""
    processor: str
    """The host's processor, as its kernel named it."""
    memory: str
    """The name of the newest memory file."""
    layers: tuple[str, ...]
    """The names of the root disk's layers, the lowest first."""

    @property
    def target(self) -> Target:
        """What QEMU runs such a machine as."""
        return _TARGETS[_without_version(self.machine_type)]


def read_saved_state(checkpoint: Checkpoint) -> SavedState:
    """Validate the checkpoint and return its state. Raises HypervisorError if it is invalid."""
    table, files = checkpoint.machine, checkpoint.files
    layers = table.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= _MOST_LAYERS:
        raise HypervisorError("the checkpoint does not list its layers")
    check_layers(layers)
    memory = _matched(table, "memory", _MEMORY)
    machine_type = _matched(table, "type", _MACHINE_TYPE)
    accelerator = _matched(table, "accelerator", _ACCELERATOR)
    state = SavedState(
        machine_type=machine_type,
        accelerator=accelerator,
        cpu=_cpu(table, machine_type, accelerator),
        processor=_text(table, "processor"),
        memory=memory,
        layers=tuple(layers),
    )
    check_sealed((memory, *layers), files)
    return state


def check_saved_machine(directory: Path, checkpoint: Checkpoint, memory: int) -> None:
    """Check that a machine in `directory` can safely be given to QEMU as of that checkpoint.

    Its disks must name no other files, and its memory must be as described, of `memory` bytes. The
    caller checks the files' digests. Raises HypervisorError, OSError.
    """
    state = read_saved_state(checkpoint)
    try:
        for name in state.layers:
            check_disk(directory / name)
        image = MemoryImage.read(directory, state.memory, memory)
    except (DiskRefusedError, MemoryFileError) as error:
        raise HypervisorError(str(error)) from error
    check_sealed(image.chain, checkpoint.files)


def check_layers(names: object) -> None:
    """Raise HypervisorError unless all names are those of layers in a machine's directory."""
    if not isinstance(names, list | tuple):
        raise HypervisorError("the machine's layers are not a list")
    for name in names:
        if not isinstance(name, str) or not _LAYER.fullmatch(name):
            raise HypervisorError(f"{_shown(name)} is not a layer of a machine's disk")
    if len(set(names)) != len(names):
        raise HypervisorError("a layer of the machine's disk is named twice")


def check_sealed(names: tuple[str, ...], files: Mapping[str, FileSeal]) -> None:
    """Raise HypervisorError unless the checkpoint has sealed all of these files."""
    for name in names:
        if name not in files:
            raise HypervisorError(f"{name} is not among the files of the checkpoint")


def _text(table: Mapping[str, object], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise HypervisorError(f"the checkpoint does not record its {name}")
    return value


def _matched(table: Mapping[str, object], name: str, pattern: re.Pattern[str]) -> str:
    value = _text(table, name)
    if not pattern.fullmatch(value):
        raise HypervisorError(f"the checkpoint's {name} is invalid: {_shown(value)}")
    return value


def _without_version(machine_type: str) -> str:
    return machine_type.rpartition("-")[0]


def _cpu(table: Mapping[str, object], machine_type: str, accelerator: str) -> str:
    known = _CPUS[_without_version(machine_type)].get(accelerator)
    if known is None:
        raise HypervisorError(f"a machine {machine_type} was never saved under {accelerator}")
    if "cpu" not in table:
        return known[0]
    value = _text(table, "cpu")
    if value not in known:
        raise HypervisorError(f"the checkpoint's cpu is invalid: {_shown(value)}")
    return value


def _shown(value: object) -> str:
    return ascii(value)[:_LONGEST_SHOWN]
