"""Validation of the parts of a checkpoint's manifest that are meant for QEMU.

A manifest may have come with an imported snapshot, so nothing of it reaches QEMU's command line or
its monitor before it was validated here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.hypervisor import saved_state
from boincvm.hypervisor.contract import Checkpoint
from boincvm.hypervisor.qcow2 import DiskRefusedError, check_disk
from boincvm.hypervisor.qemu.memory_file import MemoryFileError, MemoryImage
from boincvm.hypervisor.qemu.target import AARCH64, X86_64, Target

_MACHINE_TYPE = re.compile(r"(pc-q35|virt)-[0-9]{1,2}\.[0-9]{1,2}")
_ACCELERATOR = re.compile(r"tcg|kvm|hvf|whpx")
_TARGETS = {"pc-q35": X86_64, "virt": AARCH64}
"""By machine type, without its version."""
_FORMER_CPUS = {("pc-q35", "tcg"): "max"}
"""The CPU of machines that an older boincvm saved, which did not record it, by machine type and
accelerator; where none is named, it was the present one."""
_MOST_LAYERS = 64


class SavedState(NamedTuple):
    """The state of a machine that a checkpoint has saved.

    All files are in the machine's directory, and sealed by the checkpoint.
    """

    machine_type: str
    """With its version, like `pc-q35-7.2`."""
    accelerator: str
    """One of "kvm", "hvf", "whpx" and "tcg"."""
    cpu: str
    """The guest's CPU as `-cpu` takes it."""
    has_hpet: bool
    """Whether the machine has an HPET."""
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
    table = checkpoint.machine
    layers = saved_state.layers(table, saved_state.QCOW2_LAYER, _MOST_LAYERS)
    memory = saved_state.matched(table, "memory", saved_state.MEMORY_NAME)
    machine_type = saved_state.matched(table, "type", _MACHINE_TYPE)
    accelerator = saved_state.matched(table, "accelerator", _ACCELERATOR)
    state = SavedState(
        machine_type=machine_type,
        accelerator=accelerator,
        cpu=_cpu(table, machine_type, accelerator),
        has_hpet=_has_hpet(table, machine_type, accelerator),
        processor=saved_state.text(table, "processor"),
        memory=memory,
        layers=layers,
    )
    saved_state.check_sealed((memory, *layers), checkpoint.files)
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
    saved_state.check_sealed(image.chain, checkpoint.files)


def _without_version(machine_type: str) -> str:
    return machine_type.rpartition("-")[0]


def _cpu(table: Mapping[str, object], machine_type: str, accelerator: str) -> str:
    kind = _without_version(machine_type)
    usual = _TARGETS[kind].cpus.get(accelerator)
    if usual is None:
        raise HypervisorError(f"a machine {machine_type} was never saved under {accelerator}")
    former = _FORMER_CPUS.get((kind, accelerator), usual)
    value = saved_state.text(table, "cpu") if "cpu" in table else former
    if value not in (usual, former):
        raise HypervisorError(f"the checkpoint's cpu is invalid: {saved_state.shown(value)}")
    return value


def _has_hpet(table: Mapping[str, object], machine_type: str, accelerator: str) -> bool:
    value = table.get("hpet", False)  # an older boincvm made machines without
    known = (False, _TARGETS[_without_version(machine_type)].has_hpet(accelerator, cpus=1))
    if not isinstance(value, bool) or value not in known:
        raise HypervisorError(f"the checkpoint's hpet is invalid: {saved_state.shown(value)}")
    return value
