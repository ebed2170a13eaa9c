"""A newer QEMU than the host's, and machines that go on in another QEMU than saved them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.guestlink.clone_identity import clone_identity
from boincvm.hypervisor.qemu.driver import QemuDriver
from support.booted import spec_in
from support.driven import LIMIT, answering, shell
from support.newer_qemu import PROGRAM, SUITES, UnavailableError, newer_qemu
from support.not_run import not_run
from support.save_and_resume import resume, save_twice

pytestmark = pytest.mark.timeout(300)


def newer_path(suite: str) -> str:
    """PATH with the newer QEMU before the host's."""
    try:
        programs = newer_qemu(suite)
    except UnavailableError as reason:
        not_run(f"QEMU of Debian's {suite}", reason)
    return f"{programs}{os.pathsep}{os.environ['PATH']}"


def version(path: str) -> tuple[int, ...]:
    """The version of the QEMU that is first on PATH."""
    program = shutil.which(PROGRAM, path=path)
    assert program is not None
    printed = subprocess.run(
        [program, "--version"], check=True, capture_output=True, text=True, timeout=LIMIT
    ).stdout
    found = re.search(r"version (\d+)\.(\d+)", printed)
    assert found is not None, printed
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("suite", SUITES)
async def test_it_does_all_that_the_host_s_does(
    base_image: Path, tmp_path: Path, suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A boot, a golden snapshot, a copy of it, checkpoints of the copy, a resume.

    What it has saved, an older QEMU refuses: it does not know such machines.
    """
    usual, newer = os.environ["PATH"], newer_path(suite)
    assert version(newer) > version(usual)
    monkeypatch.setenv("PATH", newer)
    driver, pattern = QemuDriver("tcg"), spec_in(tmp_path / "golden", base_image)
    machine = driver.golden_snapshots.machine(pattern)
    try:
        async with answering(machine) as link:
            assert await shell(link, "uname -m") == "x86_64\n"
            await link.quiesce(LIMIT)
            state = link.state()
            await machine.freeze()
    finally:
        await machine.stop()
    spec = spec_in(tmp_path / "copy", base_image)
    copy = driver.golden_snapshots.clone(spec, pattern.directory)
    try:
        async with answering(copy, state) as link:
            await link.attach(LIMIT, clone_identity(network=False))
            saved = await save_twice(copy, link)
    finally:
        await copy.stop()
    saved = await resume(driver, spec, saved)
    assert all(finding.is_good for finding in driver.examine(saved.checkpoint))
    monkeypatch.setenv("PATH", usual)
    assert not all(finding.is_good for finding in driver.examine(saved.checkpoint))
    restored = driver.restore(spec, saved.checkpoint)
    try:
        with pytest.raises(HypervisorError, match=r"this one does not know the type pc-q35-"):
            await restored.start()
    finally:
        await restored.destroy()


async def test_what_an_older_one_has_saved_goes_on_in_a_newer_one(
    base_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes up what the one before it has saved; it stays a machine of the older kind."""
    paths = [newer_path(suite) for suite in SUITES]
    driver, spec = QemuDriver("tcg"), spec_in(tmp_path / "machine", base_image)
    machine = driver.machine(spec)
    try:
        async with answering(machine) as link:
            saved = await save_twice(machine, link)
    finally:
        await machine.stop()
    kind = saved.checkpoint.machine["type"]
    for path in paths:
        monkeypatch.setenv("PATH", path)
        assert all(finding.is_good for finding in driver.examine(saved.checkpoint))
        saved = await resume(driver, spec, saved)
        assert saved.checkpoint.machine["type"] == kind
