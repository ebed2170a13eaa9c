"""How a running machine is saved: its memory by VirtualBox, its disk by a new layer.

A checkpoint is a snapshot of VirtualBox's of a guest that is paused meanwhile: memory and devices
go to a file, and the disk gets a new layer, to which the guest writes from then on.
"""

import asyncio
from pathlib import Path
from time import monotonic

from boincvm.errors import HypervisorError, host_error
from boincvm.file_digest import digest_of
from boincvm.host.files import sync_directory, sync_file
from boincvm.host.resources import processor_name
from boincvm.hypervisor.contract import Checkpoint, FileSeal, RecordLayers
from boincvm.hypervisor.virtualbox import vdi
from boincvm.hypervisor.virtualbox.command import DISK_CONTROLLER
from boincvm.hypervisor.virtualbox.disks import MOST_LAYERS, Disks, check_layer_name
from boincvm.hypervisor.virtualbox.home import Home, Medium
from boincvm.hypervisor.virtualbox.saved import SavedState
from boincvm.hypervisor.virtualbox.vboxmanage import Version, parse_table

_SNAPSHOT = "checkpoint-{:06d}"


class Frozen:
    """The files of one moment, and the time that the guest was paused for them."""

    def __init__(self, state: str, layers: tuple[str, ...], pause: float) -> None:
        self.state = state
        self.layers = layers
        self.pause = pause


async def take_snapshot(
    home: Home, disks: Disks, number: int, record_layers: RecordLayers | None
) -> Frozen:
    """Freeze a paused machine's memory and disk; `disks` has a new layer then.

    The caller pauses and resumes it. Raises HypervisorError, HostDiskFullError, OSError, and what
    `record_layers` raises: then the machine is as before.
    """
    if len(disks.layers) >= MOST_LAYERS:
        raise HypervisorError(f"the machine's disk has {MOST_LAYERS} layers already")
    begun, layers, before = monotonic(), disks.layers, saved_states(disks.directory)
    name = _SNAPSHOT.format(number)
    await home.manage.run("snapshot", home.name, "take", name)
    disks.chain.append(await _new_top(home, disks))
    disks.layers = (*layers, disks.chain[-1].path.name)
    (state,) = saved_states(disks.directory) - before
    if record_layers is not None:
        try:
            await asyncio.to_thread(_sync, disks.top.path)
            await record_layers(disks.layers)
        except BaseException:
            await _take_back(home, disks, name)
            (disks.directory / state).unlink(missing_ok=True)
            raise
    return Frozen(state, layers, monotonic() - begun)


async def _new_top(home: Home, disks: Disks) -> Medium:
    """Return the layer that VirtualBox has put on top."""
    output = await home.manage.run("showvminfo", home.name, "--machinereadable")
    path = Path(parse_table(output).get(f"{DISK_CONTROLLER}-0-0", ""))
    check_layer_name(path.name)
    layer = vdi.read_layer(disks.directory / path.name)
    if layer.below != disks.top.id:
        raise HypervisorError("VirtualBox has put no new layer over the machine's disk")
    return Medium(layer.id, disks.directory / path.name, "VDI")


async def _take_back(home: Home, disks: Disks, name: str) -> None:
    """Have VirtualBox remove the snapshot, and with it the new layer, which is empty."""
    await home.manage.run("snapshot", home.name, "delete", name)
    output = await home.manage.run("showvminfo", home.name, "--machinereadable")
    top = Path(parse_table(output).get(f"{DISK_CONTROLLER}-0-0", "")).name
    if top != disks.layers[-2]:
        raise HypervisorError("VirtualBox did not go back to the disk as it was recorded")
    disks.chain.pop()
    disks.layers = disks.layers[:-1]


def saved_states(directory: Path) -> set[str]:
    """Return the names of the saved states in a directory."""
    return {path.name for path in directory.glob("*.sav")}


async def describe(
    number: int, directory: Path, frozen: Frozen, version: Version, former: Checkpoint | None
) -> Checkpoint:
    """Sync and seal the files, and return the checkpoint. Raises HostError, HostDiskFullError."""
    sealed = dict(former.files) if former is not None else {}
    new = [name for name in (frozen.state, *frozen.layers) if name not in sealed]
    try:
        sealed.update(await asyncio.to_thread(_sealed, directory, new))
    except OSError as error:
        raise host_error("the checkpoint cannot be written", error, HypervisorError) from error
    saved = SavedState(str(version), processor_name(), frozen.state, frozen.layers)
    return Checkpoint(
        number=number,
        files={name: sealed[name] for name in (frozen.state, *frozen.layers)},
        machine=saved.table(),
        pause=frozen.pause,
        written=sum(sealed[name].size for name in new),
    )


def _sealed(directory: Path, names: list[str]) -> dict[str, FileSeal]:
    seals = {}
    for name in names:
        sync_file(directory / name)
        seals[name] = FileSeal(*digest_of(directory / name))
    sync_directory(directory)
    return seals


def _sync(path: Path) -> None:
    """Sync the file and its directory entry to the disk. Raises OSError."""
    sync_file(path)
    sync_directory(path.parent)
