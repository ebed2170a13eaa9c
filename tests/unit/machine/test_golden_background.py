"""What makes golden snapshots in the background ends with those for whom it does."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.contract import MachineSpec
from boincvm.job.model import MachineShape
from boincvm.machine.golden import background
from boincvm.machine.golden.switch import SWITCH

SPEC = MachineSpec(*map(Path, ("/d", "/kernel", "/initrd", "/root")), memory=256 << 20, cpus=1)
MAKER = """
import sys, time
from pathlib import Path
from boincvm.host.locks import try_exclusive
golden, begun = map(Path, sys.argv[1:])
with try_exclusive(golden / "lock") as is_ours:
    assert is_ours
    (golden / ".new-1").mkdir()
    (golden / ".new-1" / "memory").write_bytes(bytes(1 << 20))
    begun.write_text("x")
    time.sleep(300)
"""


@pytest.mark.timeout(60)
async def test_one_that_is_half_made_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH)
    golden, begun = tmp_path / "golden", tmp_path / "begun"
    (golden / "whole").mkdir(parents=True)
    os.mkfifo(begun)
    pipe, has_begun = os.open(begun, os.O_RDWR), asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe, has_begun.set)
    maker = [sys.executable, "-c", MAKER, str(golden), str(begun)]
    monkeypatch.setattr(background, "command", lambda *_, **__: maker)
    warmers = background.Warmers()
    try:
        warmers.make(SimpleNamespace(name="base", golden=golden), SPEC)
        async with asyncio.timeout(40):
            await has_begun.wait()
        assert (golden / ".new-1").is_dir()
    finally:
        asyncio.get_running_loop().remove_reader(pipe)
        os.close(pipe)
        await warmers.close()
    assert sorted(path.name for path in golden.iterdir()) == [
        "lock",
        background.ERRORS,
        "whole",
    ]


@pytest.mark.parametrize("flag", [True, False])
def test_its_command_is_one_that_boincvm_takes(tmp_path: Path, flag: bool) -> None:
    shape = MachineShape("base", 256 << 20, 2, 512 << 20, flag)
    argv = background.command(shape, tmp_path / "images", balloon=flag, durable=flag)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    # All of it was understood: what is missing is the image.
    assert (done.returncode, "base" in done.stderr) == (ExitCode.IMAGE_MISSING, True), done.stderr


@pytest.mark.timeout(60)
async def test_why_one_could_not_be_made_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH)
    golden, ended = tmp_path / "golden", tmp_path / "ended"
    os.mkfifo(ended)
    assert background.last_failure(golden) == ""
    for action, why in (("printf 'no\\n  room\\n' >&2", "no   room"), ("true", "")):
        maker = ["/bin/sh", "-c", f"{action}; echo >'{ended}'"]
        monkeypatch.setattr(background, "command", lambda *_, maker=maker, **__: maker)
        warmers = background.Warmers()
        try:
            warmers.make(SimpleNamespace(name="base", golden=golden), SPEC)
            await asyncio.to_thread(ended.read_text)
        finally:
            await warmers.close()
        assert background.last_failure(golden) == why
