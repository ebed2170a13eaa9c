"""What a saved machine consists of, and the checks of what a manifest says about it.

    memory-NNNNNN        memory and devices, as libvirt writes them
    disk-NNNNNN.qcow2    the layers of its disk over the image's

What libvirt has written before the memory, a definition of the domain, is not used: a machine that
resumes is defined anew, under the same name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.hypervisor import saved_state
from boincvm.hypervisor.contract import Checkpoint, Finding

MOST_LAYERS = 100
"""Layers that a disk may have. libvirt itself takes chains of at most 200."""
_ID = re.compile(r"[0-9a-f]{8}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MACHINE_TYPE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HYPERVISOR = re.compile(r"[a-z]{1,16}")


class Versions(NamedTuple):
    """What runs the machines of a libvirt."""

    hypervisor: str
    """As libvirt names it, like qemu."""
    hypervisor_version: int
    """Like 7002000 for 7.2.0."""
    libvirt: int
    """In the same form."""
    is_accelerated: bool
    """Whether the processor runs the guest's code, or it is emulated."""


class SavedState(NamedTuple):
    """The state of a machine that was saved; all files are in its directory."""

    versions: Versions
    """What saved it."""
    id: str
    uuid: str
    """The domain's, which must stay the same."""
    machine_type: str
    """With its version, like `pc-q35-7.2`."""
    processor: str
    """The host's processor, as its kernel named it."""
    memory: str
    """The name of the file with memory and devices."""
    layers: tuple[str, ...]
    """The names of the root disk's layers, the lowest first."""

    @property
    def files(self) -> tuple[str, ...]:
        return (self.memory, *self.layers)

    def table(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            **self.versions._asdict(),
            "id": self.id,
            "uuid": self.uuid,
            "type": self.machine_type,
            "processor": self.processor,
            "memory": self.memory,
            "layers": list(self.layers),
        }


class Source(NamedTuple):
    """What a machine starts from, if it does not boot."""

    saved: SavedState
    directory: Path
    """Where the state's files lie."""
    checkpoint: Checkpoint | None
    """The checkpoint that this is; None: it is a golden snapshot, and the machine a copy."""


def source_of(checkpoint: Checkpoint, directory: Path) -> Source:
    """Return the source of the machine in `directory` as of the checkpoint.

    Raises HypervisorError if it is invalid.
    """
    return Source(read_saved_state(checkpoint), directory, checkpoint)


def read_saved_state(checkpoint: Checkpoint) -> SavedState:
    """Validate the checkpoint and return its state. Raises HypervisorError if it is invalid."""
    state = read_table(checkpoint.machine)
    saved_state.check_sealed(state.files, checkpoint.files)
    return state


def read_table(table: Mapping[str, object]) -> SavedState:
    """Validate what `SavedState.table` returned. Raises HypervisorError if it is invalid."""
    versions = Versions(
        hypervisor=saved_state.matched(table, "hypervisor", _HYPERVISOR),
        hypervisor_version=saved_state.number(table, "hypervisor_version"),
        libvirt=saved_state.number(table, "libvirt"),
        is_accelerated=saved_state.flag(table, "is_accelerated"),
    )
    return SavedState(
        versions=versions,
        id=saved_state.matched(table, "id", _ID),
        uuid=saved_state.matched(table, "uuid", _UUID),
        machine_type=saved_state.matched(table, "type", _MACHINE_TYPE),
        processor=saved_state.text(table, "processor"),
        memory=saved_state.matched(table, "memory", saved_state.MEMORY_NAME),
        layers=saved_state.layers(table, saved_state.QCOW2_LAYER, MOST_LAYERS),
    )


def examine(state: SavedState, here: Versions) -> list[Finding]:
    """Return whether a machine in that state can resume where `here` runs the machines."""
    made = state.versions
    name = made.hypervisor
    findings = [
        Finding(
            is_good=name == here.hypervisor and made.hypervisor_version <= here.hypervisor_version,
            what=f"{name} {version_text(made.hypervisor_version)} saved it, and"
            f" {here.hypervisor} {version_text(here.hypervisor_version)} is here",
        ),
        Finding(
            is_good=made.libvirt <= here.libvirt,
            what=f"libvirt {version_text(made.libvirt)} saved it, and"
            f" {version_text(here.libvirt)} is here",
        ),
    ]
    if made.is_accelerated != here.is_accelerated:
        how = ("emulated", "accelerated")
        what = f"it was saved {how[made.is_accelerated]}, and here it would be"
        findings.append(Finding(is_good=False, what=f"{what} {how[here.is_accelerated]}"))
    if made.is_accelerated:
        findings.append(saved_state.same_processor(state.processor))
    return findings


def version_text(number: int) -> str:
    """Return a version in libvirt's form as people write it."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
