"""Which layer a machine of VirtualBox writes to; tests/vm/virtualbox saves real ones."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.virtualbox.disks import Disks
from boincvm.hypervisor.virtualbox.home import Home
from boincvm.hypervisor.virtualbox.saving import check_top

WITH_OUR_KERNEL = 'boot-0-0="/a/boot.iso"\ndisks-0-0="/m/{layer}"\n'
WITHOUT = 'boot-0-0="/m/{layer}"\ndisks-0-0="none"\n'
"""Firmware boots its disk, so it is where a disc is otherwise."""


def as_reported(text: str) -> Home:
    """Return a stand-in for VirtualBox, which reports this of the machine."""

    async def run(*_: str) -> str:
        return text

    return cast(Home, SimpleNamespace(name="it", manage=SimpleNamespace(run=run)))


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    layers = ("disk-000000.vdi", "disk-000001.vdi")
    return cast(Disks, SimpleNamespace(directory=tmp_path, layers=layers))


@pytest.mark.parametrize("report", [WITH_OUR_KERNEL, WITHOUT], ids=["our kernel", "its own"])
async def test_the_guest_writes_to_the_topmost_layer(disks: Disks, report: str) -> None:
    await check_top(as_reported(report.format(layer="disk-000001.vdi")), disks)
    for other in ("disk-000000.vdi", "{b01c0000-0000-4000-8000-000000000001}.vdi"):
        with pytest.raises(HypervisorError, match="can no longer be saved"):
            await check_top(as_reported(report.format(layer=other)), disks)
