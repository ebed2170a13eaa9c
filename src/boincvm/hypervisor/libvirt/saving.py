"""How libvirt saves a running machine: its memory to a file, its disk by a new layer.

A checkpoint is an external snapshot: libvirt writes the memory, and puts a layer of ours over the
disk, to which the guest writes from then on. With KVM the guest runs on while most of its memory is
written. Under emulation it is paused for all of that time: QEMU (7.2 at least) loses track of
writes then, as qemu/checkpoint.py tells, and libvirt has no way around that.
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

from boincvm.errors import HostDiskFullError
from boincvm.host.files import sync_file_and_entry
from boincvm.hypervisor.contract import RecordLayers
from boincvm.hypervisor.disks import disk_errors
from boincvm.hypervisor.libvirt.connection import ANSWER_LIMIT, SAVE_LIMIT, LibvirtError, call
from boincvm.hypervisor.libvirt.definition import ROOT_TARGET, TRANSFER_DISK_TARGET
from boincvm.hypervisor.libvirt.disks import Disks
from boincvm.hypervisor.libvirt.watch import Watch
from boincvm.hypervisor.life_cycle import check_top_layer
from boincvm.hypervisor.saved_state import memory_name

_SNAPSHOT = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
)
_EVENT_LIMIT = 5.0
"""Seconds within which libvirt tells what has happened already."""
_NO_ROOM = ("No space left on device", os.strerror(errno.ENOSPC))
"""What libvirt says of a full disk, in words alone: in English, or in this host's language."""


class Frozen(NamedTuple):
    """The files of one moment."""

    memory: str
    layers: tuple[str, ...]
    pause: float
    """Seconds that the guest was paused."""


async def take_snapshot(
    domain: libvirt.virDomain,
    disks: Disks,
    watch: Watch,
    number: int,
    record_layers: RecordLayers | None,
    *,
    live: bool,
) -> Frozen:
    """Freeze a machine's memory and disk as of one moment; `disks` has a new layer then.

    With `live` a guest that runs runs on while its memory is written. Raises HypervisorError,
    HostDiskFullError, OSError, and what `record_layers` raises: then the machine is as before.
    """
    frozen, memory = disks.names, memory_name(number)
    layer = disks.write_layer()
    path = disks.directory / layer
    if record_layers is not None:
        try:
            with disk_errors():  # a recorded layer must survive a power cut
                await asyncio.to_thread(sync_file_and_entry, path)
            await record_layers((*frozen, layer))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    begun = monotonic()
    text = _definition(disks.directory / memory, path)
    is_running = (await call(ANSWER_LIMIT, domain.state))[0] == libvirt.VIR_DOMAIN_RUNNING
    how = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE if is_running and live else 0
    pause = watch.next_pause()
    try:
        with _saving_to(disks.directory / memory):
            await call(SAVE_LIMIT, domain.snapshotCreateXML, text, _SNAPSHOT | how)
    except BaseException:
        if await uses_layer(domain, path):
            disks.names = (*frozen, layer)
        raise
    disks.names = (*frozen, layer)
    took = monotonic() - begun
    return Frozen(memory, frozen, await _length_of(pause, took) if is_running else took)


async def _length_of(pause: asyncio.Future[float], most: float) -> float:
    """Return the seconds of a pause that has ended; `most` if libvirt does not tell."""
    try:
        async with asyncio.timeout(_EVENT_LIMIT):
            return min(await pause, most)
    except TimeoutError:
        return most


def _definition(memory: Path, layer: Path) -> str:
    """Return the snapshot's definition, made by an XML library for the names' sake."""
    snapshot = Element("domainsnapshot")
    SubElement(snapshot, "memory", snapshot="external", file=str(memory))
    disks = SubElement(snapshot, "disks")
    root = SubElement(disks, "disk", name=ROOT_TARGET, snapshot="external", type="file")
    SubElement(root, "driver", type="qcow2")
    SubElement(root, "source", file=str(layer))
    SubElement(disks, "disk", name=TRANSFER_DISK_TARGET, snapshot="no")
    return tostring(snapshot, encoding="unicode")


async def _definition_of(domain: libvirt.virDomain) -> Element:
    """Return the definition of a domain that runs. Raises HypervisorError, ParseError."""
    text = await call(ANSWER_LIMIT, domain.XMLDesc)
    return fromstring(text)  # noqa: S314 - it is libvirt's, of a definition of ours


async def uses_layer(domain: libvirt.virDomain, layer: Path) -> bool:
    """Tell whether that layer belongs to the disk, after a change of it that failed.

    Raises HypervisorError if libvirt does not answer, so that this is not known.
    """
    try:
        root = await _definition_of(domain)
    except (LibvirtError, ParseError):
        return False  # it has ended
    return any(
        source.get("file") == str(layer) for source in root.iterfind("./devices/disk/source")
    )


async def check_top(domain: libvirt.virDomain, disks: Disks) -> None:
    """Raise HypervisorError unless the guest writes to the topmost layer that `disks` knows."""
    top = disks.directory / disks.names[-1]
    check_top_layer("libvirt", is_known=await uses_layer(domain, top))


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
