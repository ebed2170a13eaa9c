"""A machine that is ended while libvirt restores it: nothing may be left that runs on."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import libvirt
import pytest

from boincvm.hypervisor.contract import Checkpoint, MachineSpec
from boincvm.hypervisor.libvirt.connection import Connection
from boincvm.hypervisor.libvirt.machine import LibvirtMachine
from boincvm.hypervisor.libvirt.saved import SavedState, Source, Versions
from boincvm.hypervisor.libvirt.uri import parse_uri
from boincvm.hypervisor.qcow2 import write_overlay

LIMIT = 20.0
PROBE = 0.1
"""Seconds in which something would happen that must not."""
STATE = SavedState(
    versions=Versions("qemu", 7_002_000, 9_000_000, is_accelerated=False),
    id="0123abcd",
    uuid="01234567-89ab-cdef-0123-456789abcdef",
    machine_type="pc-q35-7.2",
    processor="any",
    memory="memory-000001",
    layers=("disk-000000.qcow2",),
)


class SlowLibvirt:
    """A libvirt of one domain, which it restores when it may."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.runs = False
        self._report: Callable[..., None] = print

    def restoreFlags(self, _memory: str, _text: str, _flags: int) -> None:  # noqa: N802
        self.begun.set()
        assert self.may_end.wait(LIMIT)
        self.runs = True

    def lookupByUUIDString(self, _uuid: str) -> "SlowLibvirt":  # noqa: N802
        return self

    def UUIDString(self) -> str:  # noqa: N802
        return STATE.uuid

    def destroy(self) -> None:
        self.runs = False
        stopped = libvirt.VIR_DOMAIN_EVENT_STOPPED
        self._report(self, self, stopped, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED, None)

    def domainEventRegisterAny(  # noqa: N802
        self, _domain: None, event: int, function: Callable[..., None], _opaque: None
    ) -> int:
        if event == libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE:
            self._report = function
        return event

    def domainEventDeregisterAny(self, _number: int) -> None:  # noqa: N802
        """Do nothing."""

    def registerCloseCallback(self, _function: object, _opaque: None) -> None:  # noqa: N802
        """Do nothing."""

    def unregisterCloseCallback(self) -> None:  # noqa: N802
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the domain runs on."""


async def ended(work: Awaitable[object]) -> object:
    return (await asyncio.gather(work, return_exceptions=True))[0]


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_what_libvirt_restores_meanwhile_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    slow = SlowLibvirt()

    async def connect(_uri: object) -> Connection:
        return Connection(cast(libvirt.virConnect, slow))

    monkeypatch.setattr(Connection, "open", connect)
    for name in ("root", *STATE.layers):
        write_overlay(tmp_path / name, 1 << 30)
    none = tmp_path / "none"
    spec = MachineSpec(tmp_path, none, none, tmp_path / "root", memory=256 << 20, cpus=1)
    source = Source(STATE, tmp_path, Checkpoint(1, {}, {}))
    machine = LibvirtMachine(spec, parse_uri("qemu:///session"), STATE.versions, source)
    start = asyncio.ensure_future(machine.start())
    assert await asyncio.to_thread(slow.begun.wait, LIMIT)
    if how == "cancelled":
        start.cancel()
        ends: asyncio.Task[object] = asyncio.ensure_future(ended(start))
    else:
        ends = asyncio.ensure_future(ended(machine.stop()))
    done, _ = await asyncio.wait((ends,), timeout=PROBE)
    assert not done
    slow.may_end.set()
    async with asyncio.timeout(LIMIT):
        await ends
    assert not slow.runs
    start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await machine.destroy()
