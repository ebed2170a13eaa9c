"""What a saved machine consists of, and the checks of what a manifest says about it.

    NAME.sav          the machine's memory and devices, as VirtualBox writes them
    disk-….vdi, {…}.vdi   the layers of its disk over the image's

VirtualBox's own snapshots are not relied on: a machine that goes on is defined anew, gets a new
layer over these, and adopts the state.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.hypervisor import saved_state
from boincvm.hypervisor.contract import Checkpoint, Finding
from boincvm.hypervisor.virtualbox.disks import LAYER, MOST_LAYERS
from boincvm.hypervisor.virtualbox.vboxmanage import Version

_STATE = re.compile(r"[0-9A-Za-z{][0-9A-Za-z{}.-]{0,99}\.sav")
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}")
GOLDEN_TABLE = "virtualbox.json"
"""In a golden snapshot: what `SavedState.table` returned."""


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

    @property
    def files(self) -> tuple[str, ...]:
        return (self.state, *self.layers)

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
    return SavedState(
        version=saved_state.matched(table, "virtualbox", _VERSION),
        processor=saved_state.text(table, "processor"),
        state=saved_state.matched(table, "state", _STATE),
        layers=saved_state.layers(table, LAYER, MOST_LAYERS),
    )


def read_saved_state(checkpoint: Checkpoint) -> SavedState:
    """Check the checkpoint and return its state. Raises HypervisorError."""
    saved = read_table(checkpoint.machine)
    saved_state.check_sealed(saved.files, checkpoint.files)
    return saved


def compare(saved: SavedState, version: Version) -> list[Finding]:
    """Return whether a machine in that state can go on here."""
    made_by = tuple(map(int, saved.version.split(".")))
    return [
        Finding(
            is_good=made_by <= version,
            what=f"VirtualBox {saved.version} saved it, and {version} is here",
        ),
        saved_state.same_processor(saved.processor),
    ]


def read_golden(directory: Path) -> SavedState:
    """Return the state of a golden snapshot. Raises HypervisorError, OSError."""
    return read_table(saved_state.read_table_file(directory / GOLDEN_TABLE))
