"""How a running machine is saved: its memory by VirtualBox, its disk by a new layer.

A checkpoint is a snapshot of VirtualBox's of a guest that is paused meanwhile: memory and devices
go to a file, and the disk gets a new layer, to which the guest writes from then on.
"""

import asyncio
from pathlib import Path
from time import monotonic

from boincvm.errors import HypervisorError
from boincvm.host.files import sync_file_and_entry
from boincvm.hypervisor.contract import RecordLayers
from boincvm.hypervisor.life_cycle import check_top_layer
from boincvm.hypervisor.virtualbox import vdi
from boincvm.hypervisor.virtualbox.command import BOOT_CONTROLLER, DISK_CONTROLLER
from boincvm.hypervisor.virtualbox.disks import LAYER, MOST_LAYERS, Disks
from boincvm.hypervisor.virtualbox.home import Home, Medium
from boincvm.hypervisor.virtualbox.vboxmanage import parse_table

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
            await asyncio.to_thread(sync_file_and_entry, disks.top.path)
            await record_layers(disks.layers)
        except BaseException:
            await _take_back(home, disks, name)
            (disks.directory / state).unlink(missing_ok=True)
            raise
    return Frozen(state, layers, monotonic() - begun)


async def _top(home: Home) -> str:
    """Return the name of the layer that the guest writes to, "" if it is none of ours."""
    table = parse_table(await home.manage.run("showvminfo", home.name, "--machinereadable"))
    # A machine without our kernel has it where firmware boots from; other ones have a disc there.
    names = (Path(table.get(f"{one}-0-0", "")).name for one in (DISK_CONTROLLER, BOOT_CONTROLLER))
    return next(filter(LAYER.fullmatch, names), "")


async def check_top(home: Home, disks: Disks) -> None:
    """Raise HypervisorError unless the guest writes to the topmost layer that `disks` knows."""
    check_top_layer("VirtualBox", is_known=await _top(home) == disks.layers[-1])


async def _new_top(home: Home, disks: Disks) -> Medium:
    """Return the layer that VirtualBox has put on top."""
    name = await _top(home)
    layer = vdi.read_layer(disks.directory / (name or disks.layers[-1]))
    if layer.below != disks.top.id:
        raise HypervisorError("VirtualBox has put no new layer over the machine's disk")
    return Medium(layer.id, disks.directory / name, "VDI")


async def _take_back(home: Home, disks: Disks, name: str) -> None:
    """Have VirtualBox remove the snapshot, and with it the new layer, which is empty."""
    await home.manage.run("snapshot", home.name, "delete", name)
    if await _top(home) != disks.layers[-2]:
        raise HypervisorError("VirtualBox did not go back to the disk as it was recorded")
    disks.chain.pop()
    disks.layers = disks.layers[:-1]


def saved_states(directory: Path) -> set[str]:
    """Return the names of the saved states in a directory."""
    return {path.name for path in directory.glob("*.sav")}
