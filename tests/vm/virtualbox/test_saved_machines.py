"""Saved machines of the real VirtualBox (support/virtualbox/root.py)."""

import json
import os
import shutil
from pathlib import Path

import pytest

from boincvm.errors import (
    HypervisorError,
)
from boincvm.hypervisor.contract import MachineSpec, MachineState
from boincvm.hypervisor.virtualbox.driver import VirtualBoxDriver
from boincvm.hypervisor.virtualbox.machine import VirtualBoxMachine
from boincvm.hypervisor.virtualbox.saved import GOLDEN_TABLE
from support.driven import LIMIT, answering, shell
from support.virtualbox.golden import WITH_A_BOOT, GoldenMachine

pytestmark = pytest.mark.timeout(WITH_A_BOOT)


async def test_layers_that_cannot_be_recorded(copy: VirtualBoxMachine) -> None:
    """The machine stays as it was: on the layers that were recorded last."""

    async def fail(layers: tuple[str, ...]) -> None:
        raise RuntimeError(f"cannot record {len(layers)} layers")

    async with answering(copy) as link:
        before = copy.disk_layers
        files = {path.name for path in copy.spec.directory.iterdir()}
        with pytest.raises(RuntimeError, match="cannot record"):
            await copy.checkpoint(1, fail)
        assert copy.disk_layers == before
        assert copy.state is MachineState.RUNNING
        assert {path.name for path in copy.spec.directory.iterdir()} == files
        assert await shell(link, "echo kept >/root/file; sync; cat /root/file") == "kept\n"


async def test_a_state_that_another_version_has_saved(
    driver: VirtualBoxDriver, golden: GoldenMachine, spec: MachineSpec, tmp_path: Path
) -> None:
    """An older one's is tried; if it cannot be read, the error names both versions."""
    older = tmp_path / "older"
    shutil.copytree(golden.spec.directory, older)
    table = json.loads((older / GOLDEN_TABLE).read_text())
    (older / GOLDEN_TABLE).write_text(json.dumps({**table, "virtualbox": "7.0.10"}))
    os.truncate(older / table["state"], 4096)
    machine = driver.golden_snapshots.clone(spec, older)
    try:
        with pytest.raises(HypervisorError) as caught:
            await machine.start()
    finally:
        await machine.destroy()
    assert f"VirtualBox 7.0.10 saved it, and {driver.version} is here" in caught.value.message


async def test_many_checkpoints(driver: VirtualBoxDriver, copy: VirtualBoxMachine) -> None:
    """Each adds a layer; when it resumes, they are merged, and the disk is unchanged."""
    recorded = []

    async def record(layers: tuple[str, ...]) -> None:
        assert (copy.spec.directory / layers[-1]).exists()
        recorded.append(layers)

    async with answering(copy) as link:
        for number in range(1, 8):
            await shell(link, f"echo {number} >/root/{number}; sync /root/{number}")
            await copy.checkpoint(number, record)
        assert recorded[-1] == copy.disk_layers
        await link.quiesce(LIMIT)
        state = link.state()
        last = await copy.save(8)
    assert [len(layers) for layers in recorded] == list(range(3, 10))
    again = driver.restore(copy.spec, last)
    async with answering(again, state) as link:
        assert len(again.disk_layers) == 2
        await link.attach(LIMIT, let_run=again.resume)
        assert await shell(link, "cat /root/?") == "".join(f"{n}\n" for n in range(1, 8))
    await again.stop()
