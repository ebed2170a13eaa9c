"""What a saved machine consists of, and the checks of what a manifest says about it.

    memory-NNNNNN                    memory and devices, as libvirt writes them
    disk.qcow2, disk-NNNNNN.qcow2    the layers of its disk over the image's

What libvirt has written before the memory, a definition of the domain, is not used: a machine that
resumes is defined anew, under the same name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.host.resources import processor_name
from boincvm.hypervisor.contract import Checkpoint, Finding

MOST_LAYERS = 100
"""Layers that a disk may have. libvirt itself takes chains of at most 200."""
_ID = re.compile(r"[0-9a-f]{8}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MACHINE_TYPE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HYPERVISOR = re.compile(r"[a-z]{1,16}")
_MEMORY = re.compile(r"memory-[0-9]{6,9}")
_LAYER = re.compile(r"disk(-[0-9]{6,9})?\.qcow2")


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


def read_saved_state(checkpoint: Checkpoint) -> SavedState:
    """Validate the checkpoint and return its state. Raises HypervisorError if it is invalid."""
    table = checkpoint.machine
    versions = Versions(
        hypervisor=_matched(table, "hypervisor", _HYPERVISOR),
        hypervisor_version=_number(table, "hypervisor_version"),
        libvirt=_number(table, "libvirt"),
        is_accelerated=_flag(table, "is_accelerated"),
    )
    layers = table.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MOST_LAYERS:
        raise HypervisorError("the checkpoint does not list its layers")
    state = SavedState(
        versions=versions,
        id=_matched(table, "id", _ID),
        uuid=_matched(table, "uuid", _UUID),
        machine_type=_matched(table, "type", _MACHINE_TYPE),
        processor=_text(table, "processor"),
        memory=_matched(table, "memory", _MEMORY),
        layers=tuple(map(check_layer_name, layers)),
    )
    if len(set(state.layers)) != len(state.layers):
        raise HypervisorError("a layer of the machine's disk is named twice")
    for name in (state.memory, *state.layers):
        if name not in checkpoint.files:
            raise HypervisorError(f"{name} is not among the files of the checkpoint")
    return state


def check_layer_name(name: object) -> str:
    """Return the name of a layer of a machine's disk. Raises HypervisorError for any other."""
    if not isinstance(name, str) or not _LAYER.fullmatch(name):
        raise HypervisorError(f"{ascii(name)[:80]} is not a layer of a machine's disk")
    return name


def free_layer(directory: Path, names: tuple[str, ...]) -> str:
    """Return a name for a new layer over those of these names. Raises HypervisorError."""
    if len(names) >= MOST_LAYERS:
        raise HypervisorError(f"the machine's disk has {MOST_LAYERS} layers already")
    taken = {path.name for path in directory.glob("disk-*.qcow2")} | set(names)
    numbers = [int(name[5:-6]) for name in taken if _LAYER.fullmatch(name) and name[4] == "-"]
    return f"disk-{max(numbers, default=0) + 1:06d}.qcow2"


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
        is_same = state.processor == processor_name()
        what = f"it was saved on the processor {ascii(state.processor)[:80]}"
        findings.append(Finding(is_good=is_same, what=what))
    return findings


def check_versions(state: SavedState, here: Versions) -> None:
    """Raise HypervisorError if a machine in that state cannot resume here."""
    for finding in examine(state, here):
        if not finding.is_good:
            raise HypervisorError(f"the machine cannot resume here: {finding.what}")


def version_text(number: int) -> str:
    """Return a version in libvirt's form as people write it."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _text(table: Mapping[str, object], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise HypervisorError(f"the checkpoint does not record its {name}")
    return value


def _matched(table: Mapping[str, object], name: str, pattern: re.Pattern[str]) -> str:
    value = _text(table, name)
    if not pattern.fullmatch(value):
        raise HypervisorError(f"the checkpoint's {name} is invalid: {ascii(value)[:80]}")
    return value


def _flag(table: Mapping[str, object], name: str) -> bool:
    value = table.get(name)
    if not isinstance(value, bool):
        raise HypervisorError(f"the checkpoint does not record its {name}")
    return value


def _number(table: Mapping[str, object], name: str) -> int:
    value = table.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise HypervisorError(f"the checkpoint does not record its {name}")
    return value
