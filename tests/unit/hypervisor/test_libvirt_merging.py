"""A merge of layers that is cancelled while libvirt is at work: it goes on, and so does ours."""

import asyncio
import threading
from pathlib import Path
from typing import cast

import libvirt
import pytest

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.libvirt.disks import Disks
from boincvm.hypervisor.libvirt.merging import merge_layers
from boincvm.hypervisor.libvirt.watch import Watch
from boincvm.hypervisor.qcow2 import write_overlay

pytestmark = pytest.mark.timeout(60)

LIMIT = 20.0
PROBE = 0.1
"""Seconds in which something would happen that must not."""


class SlowDomain:
    """Stands for a running domain, which does `slow` only when it may end."""

    def __init__(self, slow: str, disks: Disks, watch: Watch) -> None:
        self._slow, self._watch = slow, watch
        self._loop = asyncio.get_running_loop()
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.is_paused = False
        self.names = disks.names
        """The layers of its disk."""
        self.after: tuple[str, ...] = ()
        """The same after the pivot."""

    def _do(self, what: str) -> None:
        if what == self._slow:
            self.begun.set()
            assert self.may_end.wait(LIMIT)

    def state(self) -> list[int]:
        paused, running = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_RUNNING
        return [paused if self.is_paused else running]

    def suspend(self) -> None:
        self._do("suspend")
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def blockCopy(self, *_: object) -> None:  # noqa: N802
        ready = libvirt.VIR_DOMAIN_BLOCK_JOB_READY
        self._loop.call_soon_threadsafe(self._watch.on_disk_job, ready)

    def blockJobAbort(self, _target: str, flags: int = 0) -> None:  # noqa: N802
        assert flags == libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
        self._do("pivot")
        self.names = self.after

    def XMLDesc(self) -> str:  # noqa: N802
        sources = "".join(f"<disk><source file='{name}'/></disk>" for name in self.names)
        return f"<domain><devices>{sources}</devices></domain>"


@pytest.mark.parametrize("slow", ["suspend", "pivot"])
async def test_a_merge_that_is_cancelled(tmp_path: Path, slow: str) -> None:
    """The guest runs on, with the disk that is recorded."""
    none, directory = tmp_path / "none", tmp_path / "machine"
    directory.mkdir()
    write_overlay(tmp_path / "root", 1 << 30)
    spec = MachineSpec(directory, none, none, tmp_path / "root", memory=256 << 20, cpus=1)
    disks = Disks(spec)
    for _ in range(2):
        disks.names = (*disks.names, disks.write_layer())
    watch = Watch()
    domain = SlowDomain(slow, disks, watch)
    recorded = [disks.names]

    async def record(layers: tuple[str, ...]) -> None:
        recorded.append(layers)
        domain.after = layers

    merging = asyncio.ensure_future(
        merge_layers(spec, cast(libvirt.virDomain, domain), disks, watch, record)
    )
    try:
        assert await asyncio.to_thread(domain.begun.wait, LIMIT)
        merging.cancel()
        done, _ = await asyncio.wait((merging,), timeout=PROBE)
        assert not done
        domain.may_end.set()
        await asyncio.wait((merging,), timeout=LIMIT)
        assert merging.cancelled()
    finally:
        domain.may_end.set()
        disks.close()
    assert not domain.is_paused
    assert domain.names == disks.names == recorded[-1]
    assert len(domain.names) == 2
    assert all((directory / name).exists() for name in domain.names)
