"""What a checkpoint's manifest tells QEMU, matched against what it may be.

A manifest may have come with an imported snapshot, so nothing of it reaches QEMU's command line
or its monitor before it was read here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import Checkpoint, FileSeal
from boincvm.hypervisor.qcow2 import DiskRefusedError, check_disk
from boincvm.hypervisor.qemu.command import CPUS
from boincvm.hypervisor.qemu.memory_file import MemoryFileError, MemoryImage

_MACHINE_TYPE = re.compile(r"pc-q35-[0-9]{1,2}\.[0-9]{1,2}")
_ACCELERATOR = re.compile(r"tcg|kvm")
_CPUS = {"kvm": (CPUS["kvm"],), "tcg": ("max", CPUS["tcg"])}
"""The CPUs that a machine may have been saved with, by accelerator, the first one by a boincvm that
did not say it yet."""
_LAYER = re.compile(r"disk-[0-9]{6,9}\.qcow2")
_MEMORY = re.compile(r"memory-[0-9]{6,9}")
_LONGEST_SHOWN = 80
_MOST_LAYERS = 64


class SavedState(NamedTuple):
    """machine_type: with its version, like `pc-q35-7.2`. accelerator: "tcg" or "kvm". cpu: the
    guest's, as `-cpu` takes it. processor: the host's, as its kernel named it. memory: the name of
    the newest memory file. layers: names of the root disk's layers, the lowest first. All files
    are in the machine's directory, and among those that the checkpoint has sealed."""

    machine_type: str
    accelerator: str
    cpu: str
    processor: str
    memory: str
    layers: tuple[str, ...]


def read_saved_state(checkpoint: Checkpoint) -> SavedState:
    """Raises HypervisorError where the checkpoint says anything that it may not."""
    table, files = checkpoint.machine, checkpoint.files
    layers = table.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= _MOST_LAYERS:
        raise HypervisorError("the checkpoint does not say its layers")
    check_layers(layers)
    memory = _matched(table, "memory", _MEMORY)
    accelerator = _matched(table, "accelerator", _ACCELERATOR)
    state = SavedState(
        machine_type=_matched(table, "type", _MACHINE_TYPE),
        accelerator=accelerator,
        cpu=_cpu(table, accelerator),
        processor=_text(table, "processor"),
        memory=memory,
        layers=tuple(layers),
    )
    check_sealed((memory, *layers), files)
    return state


def check_saved_machine(directory: Path, checkpoint: Checkpoint, memory: int) -> None:
    """Whether a machine with `memory` bytes whose files are in `directory` could be given to QEMU
    as it was at that checkpoint: its disks name no other files, and its memory is what it says.
    The files' digests are the caller's to check. Raises HypervisorError, OSError."""
    state = read_saved_state(checkpoint)
    try:
        for name in state.layers:
            check_disk(directory / name)
        image = MemoryImage.read(directory, state.memory, memory)
    except (DiskRefusedError, MemoryFileError) as error:
        raise HypervisorError(str(error)) from error
    check_sealed(image.chain, checkpoint.files)


def check_layers(names: object) -> None:
    """Raises HypervisorError unless all are names of layers: of files in a machine's directory."""
    if not isinstance(names, list | tuple):
        raise HypervisorError("the machine's layers are no list")
    for name in names:
        if not isinstance(name, str) or not _LAYER.fullmatch(name):
            raise HypervisorError(f"{_shown(name)} is no layer of a machine's disk")
    if len(set(names)) != len(names):
        raise HypervisorError("a layer of the machine's disk is named twice")


def check_sealed(names: tuple[str, ...], files: Mapping[str, FileSeal]) -> None:
    """Raises HypervisorError unless the checkpoint has sealed all of these files."""
    for name in names:
        if name not in files:
            raise HypervisorError(f"{name} is not among the files of the checkpoint")


def _text(table: Mapping[str, object], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise HypervisorError(f"the checkpoint does not say its {name}")
    return value


def _matched(table: Mapping[str, object], name: str, pattern: re.Pattern[str]) -> str:
    value = _text(table, name)
    if not pattern.fullmatch(value):
        raise HypervisorError(f"the checkpoint's {name} is invalid: {_shown(value)}")
    return value


def _cpu(table: Mapping[str, object], accelerator: str) -> str:
    known = _CPUS[accelerator]
    if "cpu" not in table:
        return known[0]
    value = _text(table, "cpu")
    if value not in known:
        raise HypervisorError(f"the checkpoint's cpu is invalid: {_shown(value)}")
    return value


def _shown(value: object) -> str:
    return ascii(value)[:_LONGEST_SHOWN]
