"""What a saved machine consists of, and the checks of what a manifest says about it.

    NAME.vmss, NAME.vmsn   its devices, as VMware writes them when it suspends, or takes a snapshot
    NAME.vmem              its memory; where VMware writes none it is in the file before
    NAME.vmdk ...          the layers of its disk over the image's

VMware's own table of snapshots is not relied on: a machine that goes on is defined anew, gets a new
layer over these, and its definition names the state, as VMware's own do.
"""

import re
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.hypervisor import saved_state
from boincvm.hypervisor.contract import Checkpoint, Finding
from boincvm.hypervisor.vmware.disks import LAYER, MOST_LAYERS
from boincvm.hypervisor.vmware.vmrun import Version

_STATE = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,99}\.(?:vmss|vmsn)")
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,12}")
_MEMORY_SUFFIX = ".vmem"


class SavedState(NamedTuple):
    """The state of a machine that was saved; all files are in one directory."""

    version: str
    """That of `vmrun`, like 1.17.0.22583795."""
    product: str
    processor: str
    """The host's processor, as its kernel named it."""
    state: str
    """The name of the file with the devices."""
    memory: str
    """The name of the file with the memory; empty if it is in the other one."""
    layers: tuple[str, ...]
    """The names of the root disk's layers, the lowest first."""

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(name for name in (self.state, self.memory, *self.layers) if name)

    def table(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {**self._asdict(), "layers": list(self.layers)}


def read_saved_state(checkpoint: Checkpoint) -> SavedState:
    """Check the checkpoint and return its state. Raises HypervisorError."""
    table = checkpoint.machine
    state, memory = saved_state.matched(table, "state", _STATE), saved_state.text(table, "memory")
    if memory not in ("", memory_of(state)):
        raise HypervisorError(f"{saved_state.shown(memory)} is not the memory of {state}")
    saved = SavedState(
        version=saved_state.matched(table, "version", _VERSION),
        product=saved_state.text(table, "product"),
        processor=saved_state.text(table, "processor"),
        state=state,
        memory=memory,
        layers=saved_state.layers(table, LAYER, MOST_LAYERS),
    )
    saved_state.check_sealed(saved.files, checkpoint.files)
    return saved


def memory_of(state: str) -> str:
    """Return the name of the file with the memory of a state."""
    return Path(state).stem + _MEMORY_SUFFIX


def saved_states(directory: Path) -> set[str]:
    """Return the names of the saved states in a directory."""
    return {path.name for kind in ("*.vmss", "*.vmsn") for path in directory.glob(kind)}


def compare(saved: SavedState, version: Version, product: str) -> list[Finding]:
    """Return whether a machine in that state can go on here."""
    build = int(saved.version.rpartition(".")[2])
    return [
        Finding(
            is_good=saved.product == product and build <= version.build,
            what=f"VMware ({ascii(saved.product)[1:20]}) {saved.version} saved it, and"
            f" ({product}) {version} is here",
        ),
        saved_state.same_processor(saved.processor),
    ]
