"""A machine's hypervisor is killed while its guest writes: what had been synced is on its disk,
whose file system is whole.

One round of support/controller/killed_disk.py, which can play any number.
"""

import os
from pathlib import Path

import pytest

from boincvm.host.locks import open_lock, try_lock
from boincvm.hypervisor.disk_lock import FILE
from support.controller.controlled import Controlled, children_of, controlled
from support.controller.killed_disk import VM, check_disk, compare, write_and_kill

pytestmark = pytest.mark.timeout(280)


async def test_what_was_synced_is_there(base_image: Path, tmp_path: Path) -> None:
    async with controlled(tmp_path / "c") as asked:
        await asked("create", name=VM, memory="256M")
        assert await asked.outcome("start", VM) == {"state": "running"}
        hypervisor_has_disk(asked)
        count = await write_and_kill(asked, "files", 100, victim="hypervisor")
        assert check_disk(asked, tmp_path, was_shut_down=False) == ""
        assert await asked.outcome("start", VM) == {"state": "running"}
        assert await compare(asked, {"files": count}) == ""
        assert await asked.outcome("stop", VM) == {"state": "powered_off"}
        assert check_disk(asked, tmp_path, was_shut_down=True) == ""


def hypervisor_has_disk(asked: Controlled) -> None:
    """Check that nobody else can use the disk before the hypervisor has ended."""
    path = asked.directory(VM).disk / FILE
    (hypervisor, *_) = children_of(asked.shim(VM))
    assert path.read_text() == str(hypervisor)
    descriptor = open_lock(path)
    try:
        assert not try_lock(descriptor)
    finally:
        os.close(descriptor)
