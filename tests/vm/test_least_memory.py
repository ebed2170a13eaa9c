"""A machine with less memory than its image needs is refused before it starts, with the size."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from boincvm.boinc.testing import EndKind
from boincvm.errors import GuestError
from boincvm.exit_codes import ExitCode
from boincvm.image.store import ImageStore
from support.bench import COMMAND, Bench
from support.booted import booted, spec_in
from support.slot import Slot

TOO_LITTLE = 64
BOOT_LIMIT = 20.0
"""Seconds: several times what the boot of a machine with enough takes."""


@pytest.fixture
def least(base_image: Path) -> int:
    """Return the MiB that the base image needs, as measured when it was built."""
    with ImageStore().open("base") as image:
        figure = image.manifest.least_memory
    assert figure is not None
    return figure >> 20


def test_a_run_is_refused_at_once(bench: Bench, least: int) -> None:
    done = bench.run("--memory", f"{TOO_LITTLE}M", "--", "true")
    done.check_error(ExitCode.USAGE, f"base needs {least}.0 MiB", f"was given {TOO_LITTLE}.0 MiB")
    assert f"--memory {least}M" in done.stderr


def test_the_figure_is_enough(bench: Bench, least: int) -> None:
    done = bench.run("--memory", f"{least}M", "--", "sh", "-c", "python3 -c 'print(6 * 7)'")
    assert (done.code, done.stdout) == (0, b"42\n"), done.stderr


def test_the_figure_is_not_much_more_than_enough(tmp_path: Path, base_image: Path) -> None:
    """A refused machine would not boot, or have next to nothing left."""

    async def boot() -> None:
        spec = spec_in(tmp_path / "machine", base_image)._replace(memory=TOO_LITTLE << 20)
        async with asyncio.timeout(BOOT_LIMIT), booted(spec):
            pass

    with pytest.raises((GuestError, TimeoutError)):
        asyncio.run(boot())


async def test_a_task_is_refused_at_once(tmp_path: Path, least: int) -> None:
    async with Slot(tmp_path, period=0.25) as slot:
        slot.machine_job("true", f"<memory_mb>{TOO_LITTLE}</memory_mb>")
        end = await slot.run()
        assert end.kind is EndKind.FAILED
        assert f"needs {least}.0 MiB of memory" in slot.stderr


def test_no_snapshot_is_made_of_such_a_machine(bench: Bench, least: int) -> None:
    done = subprocess.run(
        [*COMMAND, "image", "warm", "base", "--memory", f"{TOO_LITTLE}M"],
        env=bench.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.USAGE
    assert f"needs {least}.0 MiB of memory" in done.stderr
