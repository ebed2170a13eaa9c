"""Golden snapshots: machines that libvirt has saved, of which others start as copies.

    memory-000001, disk.qcow2    as those of a checkpoint (saved.py), of a machine that has booted
    libvirt.json                 what `SavedState.table` returned

libvirt restores a domain only under the name and the UUID that it was saved with, which the file
with its memory says in the domain's definition; and no two domains have the same. So each copy is
restored from a copy of that file whose definition has its own. They are as long as the old ones, so
nothing else in the file changes.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.files import copy_range, create_new, open_regular
from boincvm.host.resources import processor_name
from boincvm.hypervisor.libvirt.definition import EMULATED_ARGUMENT, KERNEL_ARGUMENTS
from boincvm.hypervisor.libvirt.saved import SavedState, Versions, read_table, version_text
from boincvm.hypervisor.saved_state import read_table_file

_TABLE = "libvirt.json"
_LONGEST_DEFINITION = 1 << 18
"""Bytes at the beginning of a memory file in which the definition ends."""
_END = b"</domain>"


def golden_identity(versions: Versions) -> dict[str, str]:
    """Return what a golden snapshot depends on besides image and machine."""
    return {
        "driver": "libvirt",
        "hypervisor": f"{versions.hypervisor} {version_text(versions.hypervisor_version)}",
        "libvirt": version_text(versions.libvirt),
        "machine": " ".join((*KERNEL_ARGUMENTS, EMULATED_ARGUMENT)),
        "accelerator": "kvm" if versions.is_accelerated else "tcg",
        "processor": processor_name(),
    }


def write_golden(directory: Path, state: SavedState) -> None:
    """Write the table of a golden snapshot. Raises OSError."""
    (directory / _TABLE).write_text(json.dumps(state.table()))


def read_golden(directory: Path) -> SavedState:
    """Return the state of a golden snapshot. Raises HypervisorError, OSError."""
    return read_table(read_table_file(directory / _TABLE))


def write_renamed(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Write a memory file anew, with other names in its definition; each is as long as its old one.

    Raises HypervisorError if the definition has not the old ones, OSError.
    """
    with open_regular(source) as file, create_new(target) as copy:
        definition, end, rest = file.read(_LONGEST_DEFINITION).partition(_END)
        for old, new in names.items():
            if not end or old.encode() not in definition or len(old) != len(new):
                raise HypervisorError("the golden snapshot's memory is not as libvirt writes it")
            definition = definition.replace(old.encode(), new.encode())
        copy.write(definition + end + rest)
        copy.flush()
        at = copy.tell()
        while done := copy_range(file.fileno(), at, copy.fileno(), at, 1 << 30):
            at += done
