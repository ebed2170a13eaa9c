"""A machine of Windows' build of QEMU: saved while its guest runs, and resumed."""

import sys
from pathlib import Path

import pytest

from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.image.store import ImageStore
from support.booted import booted, spec_in
from support.save_and_resume import resume, save_twice

assert sys.platform == "win32"

pytestmark = pytest.mark.machines


async def test_a_saved_machine_resumes_where_it_was(tmp_path: Path) -> None:
    with ImageStore().open("base") as image:
        spec = spec_in(tmp_path / "machine", image.directory)
        async with booted(spec) as (machine, link):
            saved = await save_twice(machine, link)
            again = await resume(QemuDriver("tcg"), spec, saved)
            assert again.checkpoint.number == saved.checkpoint.number + 1
    assert list(spec.directory.iterdir()) == []  # QEMU has closed all files
