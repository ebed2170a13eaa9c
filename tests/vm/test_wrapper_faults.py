"""Faults of a machine under the client: each has a line with the reason, nothing is left behind,
and there is never a false success."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from boincvm.image.pack import pack_image
from boincvm.image.store import ImageStore
from support import with_support
from support.counting import RESUMED
from support.host_delays import within
from support.slot import LIMIT, Slot, state
from support.small_disk import UNSHARE, needs_namespaces

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("base_image")]


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path, period=0.25) as slot:
        yield slot


def made_by_machines(slot: Slot) -> list[str]:
    return [path.name for path in slot.path.iterdir() if "machine" in path.name]


def disk_of(slot: Slot) -> int:
    """Return the bytes of disk that the machine's own layers take."""
    layers = slot.path.glob("boincvm-machine-0/disk-*.qcow2")
    return sum(path.stat().st_blocks << 9 for path in layers)


async def runs(slot: Slot) -> None:
    """Start a job and wait until its program runs."""
    slot.machine_job("echo begin; sleep 1000")
    await slot.begin()
    await slot.wait_for_text("out", "begin")


async def test_a_killed_hypervisor(slot: Slot) -> None:
    await runs(slot)
    (pid,) = slot.machines()
    os.kill(pid, signal.SIGKILL)
    end = await slot.wait(LIMIT)
    assert end.kind is EndKind.TEMPORARY_EXIT, slot.stderr
    assert "killed from outside" in end.text
    assert made_by_machines(slot) == []


async def test_a_hypervisor_that_is_killed_while_a_checkpoint_wakes(slot: Slot) -> None:
    """The checkpoint is not at fault: the work resumes from it."""
    waits = f"first=$(cat /etc/machine-id); echo begin; until {RESUMED}; do sleep 0.1; done"
    slot.machine_job(f"{waits}; sleep 4; echo end")
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    slot.send(Control.QUIT)
    assert (await slot.wait(LIMIT)).kind is EndKind.QUIT, slot.stderr
    await slot.begin()
    await slot.holds(lambda: bool(slot.machines()))
    (pid,) = slot.machines()
    os.kill(pid, signal.SIGKILL)
    end = await slot.wait(LIMIT)
    assert end.kind is EndKind.TEMPORARY_EXIT, slot.stderr
    assert "signal 9 ended QEMU" in end.text
    assert list((slot.path / "boincvm-machine-0").glob("checkpoint-*.json"))
    end = await slot.run()
    assert end.kind is EndKind.FINISHED, slot.stderr
    assert slot.text("out") == "begin\nend\n"
    assert "starts over" not in slot.stderr


async def test_a_machine_that_fails_again_and_again(slot: Slot) -> None:
    slot.machine_job("echo c > /proc/sysrq-trigger; sleep 1000")
    delays = []
    for _ in range(4):
        end = await slot.run()
        assert end.kind is EndKind.TEMPORARY_EXIT, slot.stderr
        assert "the guest's kernel panicked" in end.text
        delays.append(end.delay)
    assert delays == sorted(delays)
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 208), slot.stderr
    assert made_by_machines(slot) == []


async def test_a_killed_wrapper(slot: Slot) -> None:
    await runs(slot)
    (pid,) = slot.machines()
    slot.kill(signal.SIGKILL)
    end = await slot.wait(LIMIT)
    assert end.kind is EndKind.KILLED
    await slot.until(lambda: state(pid) == "gone")
    slot.machine_job("echo begin")
    end = await slot.run()
    assert end.kind is EndKind.FINISHED, slot.stderr
    assert "ended before it was saved" in slot.stderr
    assert made_by_machines(slot) == []


async def test_a_dead_client(slot: Slot) -> None:
    await runs(slot)
    await slot.die()
    end = await slot.wait(LIMIT)
    assert end.status == 0, slot.stderr
    assert slot.machines() == []
    assert slot.text("boinc_finish_called") == ""
    # Nobody is there, the work is kept.
    assert list((slot.path / "boincvm-machine-0").glob("checkpoint-*.json"))


@pytest.mark.usefixtures("cold")
@pytest.mark.parametrize("control", [Control.QUIT, Control.ABORT, Control.SUSPEND])
async def test_a_word_of_the_client_while_the_machine_boots(slot: Slot, control: Control) -> None:
    slot.machine_job("echo begin")
    await slot.begin()
    await slot.holds(lambda: bool(slot.machines()))
    slot.send(control)
    if control is Control.SUSPEND:
        await slot.holds(lambda: not slot.control.is_full)
        slot.send(Control.RESUME)
        end = await slot.wait(LIMIT)
        assert end.kind is EndKind.FINISHED, slot.stderr
        assert slot.text("out") == "begin\n"
    else:
        with within(5):
            end = await slot.wait(LIMIT)
        assert end.kind is (EndKind.QUIT if control is Control.QUIT else EndKind.ABORTED)
    assert made_by_machines(slot) == []


async def test_abort_while_suspended(slot: Slot) -> None:
    await runs(slot)
    slot.send(Control.SUSPEND)
    await slot.holds(lambda: not slot.control.is_full)
    slot.send(Control.ABORT)
    with within(5):
        end = await slot.wait(LIMIT)
    assert end.kind is EndKind.ABORTED, slot.stderr
    assert made_by_machines(slot) == []


async def test_without_a_hypervisor(slot: Slot, tmp_path: Path) -> None:
    """Use a PATH that has everything but QEMU."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "setpriv"):
        (programs / name).symlink_to(str(shutil.which(name)))
    slot.machine_job("echo begin")
    end = await slot.run(PATH=str(programs))
    assert end.kind is EndKind.TEMPORARY_EXIT, slot.stderr
    assert end.notice
    assert "apt-get install" in end.text
    assert made_by_machines(slot) == []


async def test_without_the_image(slot: Slot) -> None:
    slot.machine_job("echo begin", "<image>nowhere</image>")
    end = await slot.run()
    assert end.kind is EndKind.TEMPORARY_EXIT, slot.stderr
    assert end.notice
    assert "boincvm image build nowhere" in end.text


async def test_more_memory_than_there_is(slot: Slot) -> None:
    slot.machine_job("echo begin", "<memory_mb>1000000</memory_mb>")
    end = await slot.run()
    assert end.kind is EndKind.TEMPORARY_EXIT, slot.stderr
    assert "of memory" in end.text
    assert made_by_machines(slot) == []


async def test_an_output_that_was_not_made(slot: Slot) -> None:
    """Existing outputs are copied back, and each missing one is named."""
    names = ("a", "result", "b", "other")
    wanted = "".join(f"<copy_file_from_VM>{name}</copy_file_from_VM>" for name in names)
    slot.machine_job("echo A >a; echo B >b", wanted)
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 195), slot.stderr
    assert "output result" in end.text
    assert "output other" in end.text
    assert (slot.text("a"), slot.text("b")) == ("A\n", "B\n")


async def test_memory_of_the_machine_used_up(slot: Slot) -> None:
    slot.machine_job(
        "echo made >result; python3 -c 'x = []\nwhile True: x.append(b\"x\" * (1 << 20))'",
        "<memory_mb>256</memory_mb><copy_file_from_VM>result</copy_file_from_VM>",
    )
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 198), slot.stderr
    assert slot.text("result") == "made\n"


async def test_the_time_limit_counts_as_success(slot: Slot) -> None:
    slot.machine_job(
        "echo made > result; echo begin; sleep 1000",
        "<time_limit>15</time_limit><copy_file_from_VM>result</copy_file_from_VM>",
    )
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("result") == "made\n"


async def test_a_time_limit_leaves_time_to_save(slot: Slot) -> None:
    slot.machine_job(
        "trap 'sleep 4; echo made > result; exit' TERM; echo begin; while :; do sleep 0.1; done",
        "<time_limit>15</time_limit><copy_file_from_VM>result</copy_file_from_VM>",
    )
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("result") == "made\n"


async def test_a_package_of_the_workunit(slot: Slot, tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\necho I am a tool\n")
    program.chmod(0o755)
    with tarfile.open(slot.path / "tool.tar.gz", "w:gz") as archive:
        archive.add(program, "usr/bin/tool")
    slot.script("app.sh", "tool")
    slot.script("after.sh", "command -v tool || echo gone")
    vm = (
        "<virtualmachine>vm</virtualmachine><copy_app_to_VM>1</copy_app_to_VM>"
        "<stdout_filename>out</stdout_filename>"
    )
    slot.job(
        f"<application>app.sh</application>{vm}<install>tool.tar.gz</install>",
        f"<application>after.sh</application>{vm}",
    )
    end = await slot.run()
    assert end.kind is EndKind.FINISHED, slot.stderr
    assert slot.text("out") == "I am a tool\ngone\n"


async def test_an_image_that_came_as_a_file(slot: Slot, tmp_path: Path) -> None:
    with ImageStore().open("base") as image:
        pack_image(image, slot.path / "base.image.tar.gz")
    slot.machine_job("echo begin", "<image>base.image.tar.gz</image>")
    end = await slot.run(XDG_DATA_HOME=str(tmp_path / "no images"))
    assert end.kind is EndKind.FINISHED, slot.stderr
    assert slot.text("out") == "begin\n"


async def test_no_network_while_the_client_wants_none(slot: Slot) -> None:
    slot.machine_job("while :; do cat /sys/class/net/eth0/carrier; sleep 0.3; done", "<network/>")
    await slot.begin()
    await slot.wait_for_text("out", "1\n")
    slot.heartbeat = slot.heartbeat.__class__(network_suspended=True)
    await slot.wait_for_text("out", "0\n")
    assert (await slot.status()).want_network
    slot.heartbeat = slot.heartbeat.__class__()
    await slot.wait_for_text("out", "0\n1\n")
    await slot.until(lambda: not slot.statuses[-1].value.want_network)
    slot.send(Control.ABORT)
    with within(5):
        await slot.wait(LIMIT)


@needs_namespaces
@pytest.mark.parametrize(("size", "cause"), [("450m", "disk is full"), ("150m", "of disk")])
def test_a_full_disk(tmp_path: Path, size: str, cause: str) -> None:
    """The disk becomes full while the machine runs, or is too small for it to start."""
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "support.full_disk", str(tmp_path), size],
        env=with_support(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "TEMPORARY_EXIT", found
    assert cause in found["text"]
    assert found["left"] == []


async def test_a_program_that_is_killed(slot: Slot) -> None:
    slot.machine_job("kill -9 $$")
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 195), slot.stderr
    assert "signal 9 killed app.sh" in end.text


async def test_a_program_cannot_kill_the_agent(slot: Slot) -> None:
    slot.machine_job("kill -9 1; kill -TERM 1; echo end")
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("out") == "end\n"


@pytest.mark.parametrize("kill", [False, True])
async def test_an_end_while_files_are_copied_in(slot: Slot, *, kill: bool) -> None:
    size = 400 << 20
    with (slot.path / "in").open("wb") as file:
        for _ in range(size >> 20):
            file.write(b"x" * (1 << 20))
    slot.machine_job("stat -c %s in", "<copy_file_to_VM>in</copy_file_to_VM>")
    await slot.begin()
    # The machine's disk grows as soon as the file begins to come in.
    await slot.holds(lambda: disk_of(slot) > 32 << 20)
    if kill:
        slot.kill(signal.SIGKILL)
    else:
        slot.send(Control.QUIT)
    end = await slot.wait(30)
    assert end.kind is (EndKind.KILLED if kill else EndKind.QUIT), slot.stderr
    assert slot.text("out") == ""
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("out") == f"{size}\n"
    assert made_by_machines(slot) == []
