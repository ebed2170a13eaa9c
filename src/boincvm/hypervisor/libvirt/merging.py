"""Puts one layer in place of the many beneath a running machine's disk.

A checkpoint adds a layer. libvirt can merge them too, but it would change files that checkpoints
have sealed, or write another file's name into one. So we merge them, into a new file, and have
libvirt copy the layer over them, which the guest writes to, to a new one over that file: while the
guest is paused, for the copy must be complete before it is recorded and used.
"""

import asyncio
from contextlib import suppress
from time import monotonic

import libvirt

from boincvm.errors import HypervisorError
from boincvm.host.files import sync_file_and_entry
from boincvm.hypervisor.contract import MachineSpec, RecordLayers
from boincvm.hypervisor.disks import disk_errors
from boincvm.hypervisor.libvirt.connection import ANSWER_LIMIT, SAVE_LIMIT, LibvirtError, call
from boincvm.hypervisor.libvirt.definition import ROOT_TARGET, root_disk
from boincvm.hypervisor.libvirt.disks import Disks
from boincvm.hypervisor.libvirt.saving import uses_layer
from boincvm.hypervisor.libvirt.watch import Watch
from boincvm.hypervisor.uninterrupted import uninterrupted
from boincvm.side_thread import in_side_thread

_COPY = libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW | libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT


async def merge_layers(
    spec: MachineSpec,
    domain: libvirt.virDomain,
    disks: Disks,
    watch: Watch,
    record_layers: RecordLayers | None,
) -> float:
    """Merge all layers but the one that the guest writes to; return the seconds it was paused.

    The files of the layers stay. Raises HypervisorError, HostDiskFullError, OSError, and what
    `record_layers` raises: then the machine is as before.
    """
    merged = await in_side_thread(disks.merge, disks.names[:-1])
    try:
        after = (merged, disks.write_layer())
    except BaseException:
        (disks.directory / merged).unlink()
        raise
    text = root_disk(spec, disks.files_of(after))
    # A call of libvirt goes on although nobody waits for it any more.
    return await uninterrupted(_use(domain, text, disks, after, watch, record_layers))


async def _use(
    domain: libvirt.virDomain,
    text: str,
    disks: Disks,
    after: tuple[str, ...],
    watch: Watch,
    record_layers: RecordLayers | None,
) -> float:
    """Do `_switch` while the guest is paused; return the seconds that it was paused for that."""
    was_running = (await call(ANSWER_LIMIT, domain.state))[0] == libvirt.VIR_DOMAIN_RUNNING
    begun = monotonic()
    try:
        if was_running:
            await call(ANSWER_LIMIT, domain.suspend)
        await _switch(domain, text, disks, after, watch, record_layers)
    finally:
        if was_running and not watch.has_ended:
            await call(ANSWER_LIMIT, domain.resume)
    return monotonic() - begun if was_running else 0.0


async def _switch(
    domain: libvirt.virDomain,
    text: str,
    disks: Disks,
    after: tuple[str, ...],
    watch: Watch,
    record_layers: RecordLayers | None,
) -> None:
    """Have a paused guest's disk be made of the layers `after`; `text` is its definition then."""
    before, is_recorded = disks.names, False
    try:
        await _copy_top(domain, text, watch)
        if record_layers is not None:
            with disk_errors():  # a recorded layer must survive a power cut
                for name in after:
                    await asyncio.to_thread(sync_file_and_entry, disks.directory / name)
            await record_layers(after)
            is_recorded = True
        pivot = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
        await call(SAVE_LIMIT, domain.blockJobAbort, ROOT_TARGET, pivot)
    except BaseException:
        with suppress(LibvirtError):  # there is no job any more, or no domain
            await call(ANSWER_LIMIT, domain.blockJobAbort, ROOT_TARGET)
        try:
            is_used = await uses_layer(domain, disks.directory / after[-1])
        except HypervisorError:
            watch.kill()  # the guest may write to either: it goes on from its last checkpoint
            raise
        if is_used:
            disks.names = after
        else:
            if is_recorded and record_layers is not None:
                await record_layers(before)
            for name in after:
                (disks.directory / name).unlink()
        raise
    disks.names = after


async def _copy_top(domain: libvirt.virDomain, text: str, watch: Watch) -> None:
    """Copy the layer that a paused guest writes to. Raises HypervisorError."""
    event = watch.next_disk_event()
    await call(ANSWER_LIMIT, domain.blockCopy, ROOT_TARGET, text, None, _COPY)
    try:
        async with asyncio.timeout(SAVE_LIMIT):
            status = await event
    except TimeoutError:
        raise HypervisorError(f"libvirt has not copied a layer within {SAVE_LIMIT:g} s") from None
    if status != libvirt.VIR_DOMAIN_BLOCK_JOB_READY:
        raise HypervisorError("libvirt could not copy the layer that the guest writes to")
