"""A machine that is ended while libvirt restores it: nothing may be left that runs on."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import libvirt
import pytest

from boincvm.errors import HypervisorKilledError
from boincvm.hypervisor.contract import Checkpoint, MachineSpec
from boincvm.hypervisor.libvirt.connection import Connection, LibvirtError
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


@pytest.fixture
def slow() -> SlowLibvirt:
    return SlowLibvirt()


@pytest.fixture
def machine(slow: SlowLibvirt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtMachine:
    """Return a saved machine of that libvirt."""

    async def connect(_uri: object) -> Connection:
        return Connection(cast(libvirt.virConnect, slow))

    monkeypatch.setattr(Connection, "open", connect)
    for name in ("root", *STATE.layers):
        write_overlay(tmp_path / name, 1 << 30)
    none = tmp_path / "none"
    spec = MachineSpec(tmp_path, none, none, tmp_path / "root", memory=256 << 20, cpus=1)
    source = Source(STATE, tmp_path, Checkpoint(1, {}, {}))
    return LibvirtMachine(spec, parse_uri("qemu:///session"), STATE.versions, source)


@pytest.mark.parametrize("how", ["cancelled", "stopped"])
async def test_what_libvirt_restores_meanwhile_is_ended(
    slow: SlowLibvirt, machine: LibvirtMachine, how: str
) -> None:
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


class Refusal(libvirt.libvirtError):
    """An error of libvirt with a number."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self._code = code

    def get_error_code(self) -> int:
        return self._code


def refuse(slow: SlowLibvirt, monkeypatch: pytest.MonkeyPatch, error: Refusal) -> None:
    """Have libvirt restore no domain, for that reason."""

    def restore(_memory: str, _text: str, _flags: int) -> None:
        raise error

    monkeypatch.setattr(slow, "restoreFlags", restore)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("internal error: qemu unexpectedly closed the monitor", libvirt.VIR_ERR_INTERNAL_ERROR),
        (
            "internal error: process exited while connecting to monitor",
            libvirt.VIR_ERR_INTERNAL_ERROR,
        ),
        ("operation failed: domain is not running", libvirt.VIR_ERR_OPERATION_FAILED),
        (
            "Unable to read from monitor: Connection reset by peer",
            libvirt.VIR_ERR_SYSTEM_ERROR,
        ),
        ("Domain not found: no domain with matching uuid '0' (a)", libvirt.VIR_ERR_NO_DOMAIN),
    ],
)
async def test_a_hypervisor_that_ends_is_no_fault_of_what_was_saved(
    text: str,
    code: int,
    slow: SlowLibvirt,
    machine: LibvirtMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What libvirt reports depends on the moment."""
    refuse(slow, monkeypatch, Refusal(text, code))
    with pytest.raises(HypervisorKilledError, match="the machine did not start: "):
        await machine.start()


async def test_what_qemu_writes_is_the_reason(
    slow: SlowLibvirt, machine: LibvirtMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "internal error: process exited while connecting to monitor: qemu: no such device"
    refuse(slow, monkeypatch, Refusal(text, libvirt.VIR_ERR_INTERNAL_ERROR))
    with pytest.raises(LibvirtError, match="no such device"):
        await machine.start()
