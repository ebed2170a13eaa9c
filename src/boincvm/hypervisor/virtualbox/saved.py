"""What a saved machine consists of, and the checks of what a manifest says about it.

    NAME.sav          the machine's memory and devices, as VirtualBox writes them
    disk-….vdi, {…}.vdi   the layers of its disk over the image's

VirtualBox's own snapshots are not relied on: a machine that goes on is defined anew, gets a new
layer over these, and adopts the state.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.host.files import read_regular
from boincvm.host.resources import processor_name
from boincvm.hypervisor.contract import Checkpoint, Finding
from boincvm.hypervisor.virtualbox.disks import MOST_LAYERS, check_layer_name
from boincvm.hypervisor.virtualbox.vboxmanage import Version

_STATE = re.compile(r"[0-9A-Za-z{][0-9A-Za-z{}.-]{0,99}\.sav")
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
GOLDEN_TABLE = "virtualbox.json"
"""In a golden snapshot: what `SavedState.table` returned."""
_LONGEST_TABLE = 1 << 16


class SavedState(NamedTuple):
    """The state of a machine that was saved; all files are in one directory."""

    version: str
    """VirtualBox's, like 7.2.22."""
    processor: str
    """The host's processor, as its kernel named it."""
    state: str
    """The name of the file with memory and devices."""
    layers: tuple[str, ...]
    """The names of the root disk's layers, the lowest first."""

    def table(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "virtualbox": self.version,
            "processor": self.processor,
            "state": self.state,
            "layers": list(self.layers),
        }


def read_table(table: Mapping[str, object]) -> SavedState:
    """Check and read what `SavedState.table` returned. Raises HypervisorError."""
    version, state = table.get("virtualbox"), table.get("state")
    processor, layers = table.get("processor"), table.get("layers")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise HypervisorError("the checkpoint does not say which VirtualBox made it")
    if not isinstance(state, str) or not _STATE.fullmatch(state):
        raise HypervisorError(f"{ascii(state)[:80]} is no saved state's name")
    if not isinstance(processor, str):
        raise HypervisorError("the checkpoint does not say its processor")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MOST_LAYERS:
        raise HypervisorError("the checkpoint does not say its layers")
    for name in layers:
        check_layer_name(name)
    if len(set(layers)) != len(layers):
        raise HypervisorError("a layer of the machine's disk is named twice")
    return SavedState(version, processor, state, tuple(layers))


def read_saved_state(checkpoint: Checkpoint) -> SavedState:
    """Check the checkpoint and return its state. Raises HypervisorError."""
    saved = read_table(checkpoint.machine)
    for name in (saved.state, *saved.layers):
        if name not in checkpoint.files:
            raise HypervisorError(f"{name} is not among the files of the checkpoint")
    return saved


def compare(saved: SavedState, version: Version) -> list[Finding]:
    """Return whether a machine in that state can go on here."""
    made_by = tuple(map(int, saved.version.split(".")))
    is_same = saved.processor == processor_name()
    return [
        Finding(
            is_good=made_by <= version,
            what=f"VirtualBox {saved.version} saved it, and {version} is here",
        ),
        Finding(is_good=is_same, what=f"it was saved on {ascii(saved.processor)[:80]}"),
    ]


def check_identity(saved: SavedState, version: Version) -> None:
    """Raise HypervisorError if a machine in that state cannot go on here."""
    for finding in compare(saved, version):
        if not finding.is_good:
            raise HypervisorError(f"the machine cannot go on here: {finding.what}")


def read_golden(directory: Path) -> SavedState:
    """Return the state of a golden snapshot. Raises HypervisorError, OSError."""
    try:
        table = json.loads(read_regular(directory / GOLDEN_TABLE, _LONGEST_TABLE))
    except ValueError:
        raise HypervisorError(f"{GOLDEN_TABLE} cannot be read") from None
    if not isinstance(table, dict):
        raise HypervisorError(f"{GOLDEN_TABLE} cannot be read")
    return read_table(table)


def share_file(source: Path, target: Path) -> None:
    """Have `target` be the same file as `source`, or a copy if it lies elsewhere. Raises OSError.

    Nobody writes to either from then on.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)
