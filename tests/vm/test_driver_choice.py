"""The driver of a real machine: requests of job, volunteer and host, and the line in the log."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc.testing import EndKind
from boincvm.exit_codes import ExitCode
from support.command_line import boincvm
from support.slot import Slot

NO_CHECKPOINTS = "<checkpoint>none</checkpoint>"
pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("base_image")]


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path) as slot:
        yield slot


async def test_a_task_runs_in_a_machine_that_can_be_saved(slot: Slot) -> None:
    slot.machine_job("echo done")
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert "the machine vm: the driver qemu: " in slot.stderr
    assert ", checkpoints" in slot.stderr


async def test_a_task_without_checkpoints_runs_at_the_hosts_own_speed(slot: Slot) -> None:
    slot.machine_job("uname -r; echo done", NO_CHECKPOINTS)
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    (line,) = [line for line in slot.stderr.splitlines() if "the machine vm: the driver" in line]
    _, _, reason = line.partition("the driver ")
    assert "the host's own speed" in reason
    # Where KVM works QEMU is as fast, and isolates better.
    is_accelerated = "isolated by the processor" in reason
    assert reason.startswith("qemu: " if is_accelerated else "uml: the host's own speed, ")


async def test_a_volunteer_has_the_last_word(slot: Slot, tmp_path: Path) -> None:
    directory = tmp_path / "configuration"
    (directory / "boincvm").mkdir(parents=True)
    (directory / "boincvm/preferences.toml").write_text('driver = "qemu"\n')
    slot.machine_job("echo done", NO_CHECKPOINTS)
    end = await slot.run(XDG_CONFIG_HOME=str(directory))
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert "the machine vm: the driver qemu: the preferences ask for it" in slot.stderr


async def test_preferences_that_cannot_be_read_postpone_the_task(
    slot: Slot, tmp_path: Path
) -> None:
    directory = tmp_path / "configuration"
    (directory / "boincvm").mkdir(parents=True)
    (directory / "boincvm/preferences.toml").write_text("driver = 7\n")
    slot.machine_job("echo done")
    end = await slot.run(XDG_CONFIG_HOME=str(directory))
    assert end.kind is EndKind.TEMPORARY_EXIT, slot.stderr
    assert "driver: found 7, expected a text in quotes" in slot.stderr
    assert str(tmp_path) not in slot.stderr


def test_the_run_says_which_and_why() -> None:
    done = boincvm("run", "-v", "--", "echo", "done")
    assert done.stdout == "done\n"
    assert done.stderr == "boincvm: the driver qemu: the default\n"
    done = boincvm("run", "-v", "--driver", "auto", "--", "echo", "done")
    assert done.stdout == "done\n"
    assert done.stderr.startswith("boincvm: the driver qemu: ")
    assert "isolated by" in done.stderr


def test_a_job_file_asks_for_a_driver(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        '[machine]\ndriver = "uml"\n[[task]]\ncommand = ["echo", "done"]\n'
    )
    done = boincvm("run", "-v", "--json", str(tmp_path / "job.toml"))
    assert json.loads(done.stdout)["stdout"] == "done\n"
    assert done.stderr == "boincvm: the driver uml: the job asks for it\n"


def test_without_qemu_another_driver_is_as_good(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for directory in os.get_exec_path():
        for path in Path(directory).glob("*"):
            if not path.name.startswith("qemu") and not (programs / path.name).is_symlink():
                (programs / path.name).symlink_to(path)
    without_qemu = {"PATH": str(programs)}
    done = boincvm(
        "run",
        "-v",
        "--",
        "echo",
        "done",
        environment={**without_qemu, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.stdout == "done\n", done.stderr
    assert done.stderr.startswith("boincvm: the driver uml: the host's own speed, isolated")
    refused = boincvm("run", "--driver", "qemu", "--", "true", environment=without_qemu)
    assert refused.returncode == ExitCode.HYPERVISOR_MISSING
