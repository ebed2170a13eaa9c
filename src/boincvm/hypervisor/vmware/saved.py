"""What a saved machine consists of, and the checks of what a manifest says about it.

    NAME.vmss, NAME.vmsn   its devices, as VMware writes them when it suspends, or takes a snapshot
    NAME.vmem              its memory; where VMware writes none it is in the file before
    NAME.vmdk ...          the layers of its disk over the image's

VMware's own table of snapshots is not relied on: a machine that goes on is defined anew, gets a new
layer over these, and its definition names the state, as VMware's own do.
"""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError, host_error
from boincvm.file_digest import digest_of
from boincvm.host.files import sync_directory, sync_file
from boincvm.host.resources import processor_name
from boincvm.hypervisor.contract import Checkpoint, FileSeal, Finding
from boincvm.hypervisor.vmware.disks import MOST_LAYERS, check_layer_name
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
    saved = _read_table(checkpoint.machine)
    for name in saved.files:
        if name not in checkpoint.files:
            raise HypervisorError(f"{name} is not among the files of the checkpoint")
    return saved


def _read_table(table: Mapping[str, object]) -> SavedState:
    version, product, processor = (table.get(name) for name in SavedState._fields[:3])
    state, memory, layers = (table.get(name) for name in SavedState._fields[3:])
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise HypervisorError("the checkpoint does not say which VMware made it")
    if not isinstance(product, str) or not isinstance(processor, str):
        raise HypervisorError("the checkpoint does not say its product and its processor")
    if not isinstance(state, str) or not _STATE.fullmatch(state):
        raise HypervisorError(f"{ascii(state)[:80]} is no saved state's name")
    if memory not in ("", memory_of(state)):
        raise HypervisorError(f"{ascii(memory)[:80]} is not the memory of {state}")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MOST_LAYERS:
        raise HypervisorError("the checkpoint does not say its layers")
    for name in layers:
        check_layer_name(name)
    if len(set(layers)) != len(layers):
        raise HypervisorError("a layer of the machine's disk is named twice")
    return SavedState(version, product, processor, state, str(memory), tuple(layers))


def memory_of(state: str) -> str:
    """Return the name of the file with the memory of a state."""
    return Path(state).stem + _MEMORY_SUFFIX


def saved_states(directory: Path) -> set[str]:
    """Return the names of the saved states in a directory."""
    return {path.name for kind in ("*.vmss", "*.vmsn") for path in directory.glob(kind)}


def compare(saved: SavedState, version: Version, product: str) -> list[Finding]:
    """Return whether a machine in that state can go on here."""
    build = int(saved.version.rpartition(".")[2])
    is_same = saved.processor == processor_name()
    return [
        Finding(
            is_good=saved.product == product and build <= version.build,
            what=f"VMware ({ascii(saved.product)[1:20]}) {saved.version} saved it, and"
            f" ({product}) {version} is here",
        ),
        Finding(is_good=is_same, what=f"it was saved on {ascii(saved.processor)[:80]}"),
    ]


def check_identity(saved: SavedState, version: Version, product: str) -> None:
    """Raise HypervisorError if a machine in that state cannot go on here."""
    for finding in compare(saved, version, product):
        if not finding.is_good:
            raise HypervisorError(f"the machine cannot go on here: {finding.what}")


async def describe(
    number: int, directory: Path, saved: SavedState, pause: float, former: Checkpoint | None
) -> Checkpoint:
    """Sync and seal the files, and return the checkpoint. Raises HostError, HostDiskFullError."""
    sealed = dict(former.files) if former is not None else {}
    new = [name for name in saved.files if name not in sealed]
    try:
        sealed.update(await asyncio.to_thread(_sealed, directory, new))
    except OSError as error:
        raise host_error("the checkpoint cannot be written", error, HypervisorError) from error
    return Checkpoint(
        number=number,
        files={name: sealed[name] for name in saved.files},
        machine=saved.table(),
        pause=pause,
        written=sum(sealed[name].size for name in new),
    )


def _sealed(directory: Path, names: list[str]) -> dict[str, FileSeal]:
    seals = {}
    for name in names:
        sync_file(directory / name)
        seals[name] = FileSeal(*digest_of(directory / name))
    sync_directory(directory)
    return seals
