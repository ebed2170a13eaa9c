"""What is checked before libvirt saves a machine, with libvirt's own test hypervisor."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import libvirt
import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.libvirt import saving
from boincvm.hypervisor.libvirt.definition import Domain, definition
from boincvm.hypervisor.libvirt.disks import Disks
from boincvm.hypervisor.libvirt.saving import check_top, uses_layer
from boincvm.hypervisor.libvirt.uri import parse_uri
from boincvm.hypervisor.qcow2 import write_overlay

TEST = "test:///default"


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    directory = tmp_path / "a machine, its place: <odd>=\"yes\"&'no'"
    directory.mkdir()
    write_overlay(tmp_path / "root", 1 << 30)
    kernel, initrd, root = (tmp_path / name for name in ("kernel", "initrd", "root"))
    return MachineSpec(directory, kernel, initrd, root, memory=256 << 20, cpus=1)


@pytest.fixture
def disks(spec: MachineSpec) -> Iterator[Disks]:
    disks = Disks(spec)
    disks.names = (*disks.names, disks.write_layer())
    yield disks
    disks.close()


@pytest.fixture
def running(spec: MachineSpec, disks: Disks) -> Iterator[libvirt.virDomain]:
    """Return a domain with these disks, which runs for the test hypervisor."""
    connection = libvirt.open(TEST)
    layers, here = disks.layers, spec.directory
    sockets = (here / "link", here / "console")
    identity = "6a3c4bb2-6a3c-4bb2-9a3c-4bb26a3c4bb3"
    made = Domain(
        "0badcafd", identity, parse_uri(TEST), False, layers, here / "transfer-disk", *sockets
    )
    domain = connection.createXML(definition(spec, made))
    yield domain
    domain.destroy()
    connection.close()


async def test_the_guest_writes_to_the_topmost_layer(
    running: libvirt.virDomain, disks: Disks
) -> None:
    await check_top(running, disks)


async def test_the_guest_writes_to_another_layer(running: libvirt.virDomain, disks: Disks) -> None:
    """A checkpoint of what is beneath it would lack what the guest has written since."""
    below, top = disks.names
    for names in ((below,), (below, top, disks.write_layer())):
        disks.names = names
        with pytest.raises(HypervisorError, match="can no longer be saved"):
            await check_top(running, disks)


async def test_a_libvirt_that_does_not_answer_leaves_it_open(
    disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that the guest may write to must not be taken for unused."""
    released = Event()

    class Silent:
        def XMLDesc(self) -> str:  # noqa: N802
            released.wait(20)
            return ""

    monkeypatch.setattr(saving, "ANSWER_LIMIT", 0.05)
    try:
        with pytest.raises(HypervisorError, match="has not answered"):
            await uses_layer(Silent(), disks.directory / disks.names[-1])
    finally:
        released.set()
