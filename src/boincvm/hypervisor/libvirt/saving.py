"""How libvirt saves a running machine: its memory to a file, its disk by a new layer.

A checkpoint is an external snapshot: libvirt writes the memory while the guest runs on, pauses it
for the rest, and puts a layer of ours over the disk, to which the guest writes from then on.
"""

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

import libvirt

from boincvm.errors import HostDiskFullError, HypervisorError, host_error
from boincvm.file_digest import digest_of
from boincvm.host.files import sync_directory, sync_file
from boincvm.hypervisor.contract import Checkpoint, FileSeal, RecordLayers
from boincvm.hypervisor.disks import disk_errors
from boincvm.hypervisor.libvirt.connection import ANSWER_LIMIT, SAVE_LIMIT, LibvirtError, call
from boincvm.hypervisor.libvirt.definition import ROOT_TARGET, WINDOW_TARGET
from boincvm.hypervisor.libvirt.disks import Disks
from boincvm.hypervisor.libvirt.saved import SavedState

_SNAPSHOT = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
)
_NO_ROOM = ("No space left on device", os.strerror(errno.ENOSPC))
"""What libvirt says of a full disk, in words alone: in English, or in this host's language."""


class Frozen(NamedTuple):
    """The files of one moment."""

    memory: str
    layers: tuple[str, ...]
    seconds: float
    """How long libvirt took, which is the most that the guest can have been paused."""


def memory_name(number: int) -> str:
    """Return the name of the file with the memory of that checkpoint."""
    return f"memory-{number:06d}"


async def take_snapshot(
    domain: libvirt.virDomain, disks: Disks, number: int, record_layers: RecordLayers | None
) -> Frozen:
    """Freeze a machine's memory and disk as of one moment; `disks` has a new layer then.

    Raises HypervisorError, HostDiskFullError, OSError, and what `record_layers` raises: then the
    machine is as before.
    """
    frozen, memory = disks.names, memory_name(number)
    layer = disks.write_layer()
    path = disks.directory / layer
    if record_layers is not None:
        try:
            with disk_errors():  # a recorded layer must survive a power cut
                await asyncio.to_thread(_sync, path)
            await record_layers((*frozen, layer))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    begun = monotonic()
    text = _definition(disks.directory / memory, path)
    is_running = (await call(ANSWER_LIMIT, domain.state))[0] == libvirt.VIR_DOMAIN_RUNNING
    live = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE if is_running else 0
    try:
        with _saving_to(disks.directory / memory):
            await call(SAVE_LIMIT, domain.snapshotCreateXML, text, _SNAPSHOT | live)
    except BaseException:
        if await _uses(domain, path):
            disks.names = (*frozen, layer)
        raise
    disks.names = (*frozen, layer)
    return Frozen(memory, frozen, monotonic() - begun)


def _definition(memory: Path, layer: Path) -> str:
    """Return the snapshot's definition, made by an XML library for the names' sake."""
    snapshot = Element("domainsnapshot")
    SubElement(snapshot, "memory", snapshot="external", file=str(memory))
    disks = SubElement(snapshot, "disks")
    root = SubElement(disks, "disk", name=ROOT_TARGET, snapshot="external", type="file")
    SubElement(root, "driver", type="qcow2")
    SubElement(root, "source", file=str(layer))
    SubElement(disks, "disk", name=WINDOW_TARGET, snapshot="no")
    return tostring(snapshot, encoding="unicode")


async def _definition_of(domain: libvirt.virDomain) -> Element:
    """Return the definition of a domain that runs. Raises HypervisorError, ParseError."""
    text = await call(ANSWER_LIMIT, domain.XMLDesc)
    return fromstring(text)  # noqa: S314 - it is libvirt's, of a definition of ours


async def _uses(domain: libvirt.virDomain, layer: Path) -> bool:
    """Tell whether the guest writes to that layer, after a snapshot that failed."""
    try:
        root = await _definition_of(domain)
    except (HypervisorError, ParseError):
        return False  # it has ended
    return any(
        source.get("file") == str(layer) for source in root.iterfind("./devices/disk/source")
    )


async def write_memory(domain: libvirt.virDomain, path: Path) -> None:
    """Write the memory and end the domain; if that fails it runs on. Raises HypervisorError."""
    with _saving_to(path):
        # Not VIR_DOMAIN_SAVE_PAUSED: with it a guest whose save has failed would stay paused.
        await call(SAVE_LIMIT, domain.saveFlags, str(path))


@contextmanager
def _saving_to(path: Path) -> Iterator[None]:
    """Remove the file if the block fails. Raises HostDiskFullError if that is for lack of room."""
    try:
        yield
    except LibvirtError as error:
        path.unlink(missing_ok=True)
        if any(words in str(error.__cause__) for words in _NO_ROOM):
            raise HostDiskFullError(
                "the host's disk is full, so the machine cannot be saved",
                hint="free some space and run again",
            ) from error
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise


async def machine_type(domain: libvirt.virDomain) -> str:
    """Return the machine type with its version; the short name changes meaning with QEMU."""
    kind = (await _definition_of(domain)).find("./os/type")
    return "" if kind is None else kind.get("machine", "")


async def describe(
    number: int, directory: Path, state: SavedState, former: Checkpoint | None, pause: float
) -> Checkpoint:
    """Sync and seal the files, and return the checkpoint. Raises HostError, HostDiskFullError."""
    known = former.files if former is not None else {}
    new = [name for name in (state.memory, *state.layers) if name not in known]
    try:
        seals = {**known, **await asyncio.to_thread(_sealed, directory, new)}
    except OSError as error:
        raise host_error("the checkpoint cannot be written", error, HypervisorError) from error
    return Checkpoint(
        number=number,
        files={name: seals[name] for name in (state.memory, *state.layers)},
        machine=state.table(),
        pause=pause,
        written=sum(seals[name].size for name in new),
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
