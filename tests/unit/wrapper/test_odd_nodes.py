"""A FIFO, directory, device, socket or dangling link in place of any file of a job on the host:
nothing waits for it but its program."""

import asyncio
import os
import signal
import zipfile

import pytest

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from support.host_slot import HostSlot, task
from support.odd_nodes import KINDS, make_node
from support.slot import state

pytestmark = pytest.mark.timeout(90)

SOON = 8.0
"""Seconds; a busy test machine included."""
STREAMS = ("stdin", "stdout", "stderr")
FILES = (*STREAMS, "checkpoint", "fraction_done")
OUT = "<stdout_filename>out</stdout_filename>"

NAMED = {
    **{f"the {kind}_filename": kind for kind in FILES},
    "the application": "program",
    "the archive to unpack": "in.zip",
    "the archive to make": "out.zip",
    "where it is made": ".out.zip.part",
    "the list of files": "initial_file_list",
    "job.xml": "job.xml",
    "init_data.xml": "init_data.xml",
    "the lock": "boinc_lockfile",
    "the shared memory": "boinc_mmap_file",
    "the checkpoint": "wrapper_checkpoint.txt",
    "where it is written": ".wrapper_checkpoint.txt.part",
    "the state": "boincvm_state.json",
    "the graphics status": "graphics_status.xml",
    "where that is written": ".graphics_status.xml.new",
}


def complete_job(slot: HostSlot) -> None:
    """Make a job that names all files that a job can name, and runs until it is ended."""
    slot.script("program", "echo >runs; touch made; exec sleep 1000")
    slot.write("stdin", "")
    with zipfile.ZipFile(slot.path / "in.zip", "w") as made:
        made.writestr("data", "")
    names = "".join(f"<{kind}_filename>{kind}</{kind}_filename>" for kind in FILES)
    slot.job(
        f"<application>program</application>{names}",
        more="<unzip_input><zipfilename>in.zip</zipfilename></unzip_input>"
        "<zip_output><zipfilename>out.zip</zipfilename><filename>made</filename></zip_output>"
        "<enable_graphics_support/>",
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("location", NAMED)
async def test_whatever_is_there_the_client_is_obeyed(
    slot: HostSlot, location: str, kind: str
) -> None:
    """Either the job ends with a message, or it runs and can be suspended and aborted."""
    complete_job(slot)
    make_node(slot.path / NAMED[location], kind)
    await slot.begin()
    running = slot.path / "runs"
    waits = kind == "fifo" and NAMED[location] in STREAMS
    await slot.until(
        lambda: not slot.is_running or running.exists() or (waits and bool(slot.of_tasks())), SOON
    )
    if slot.is_running and "standalone" in slot.stderr:
        slot.kill(signal.SIGTERM)
    elif slot.is_running:
        slot.send(Control.SUSPEND)
        await slot.until(lambda: not slot.is_running or slot.stands_still(), SOON)
        slot.send(Control.RESUME)
        slot.send(Control.ABORT)
    end = await slot.wait(SOON)
    assert "Traceback" not in slot.stderr
    assert "Error:" not in slot.stderr
    if end.kind in (EndKind.FAILED, EndKind.TEMPORARY_EXIT):
        assert slot.stderr.count("failed with") + slot.stderr.count("to be tried again") <= 1
    else:
        assert end.kind in (EndKind.ABORTED, EndKind.QUIT, EndKind.KILLED), slot.stderr


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("directory", "Is a directory"),
        ("socket", "No such device or address"),
        ("loop", "Too many levels of symbolic links"),
    ],
)
@pytest.mark.parametrize(
    ("stream", "status", "what"),
    [("stdin", 206, "read"), ("stdout", 195, "written"), ("stderr", 195, "written")],
)
async def test_a_stream_that_is_none(
    slot: HostSlot, kind: str, reason: str, stream: str, status: int, what: str
) -> None:
    make_node(slot.path / "f", kind)
    slot.job(task("true", f"<{stream}_filename>f</{stream}_filename>"))
    end = await slot.run(limit=SOON)
    assert (end.kind, end.status) == (EndKind.FAILED, status), slot.stderr
    assert end.text.endswith(f"f cannot be {what}: {reason}")
    assert "Traceback" not in slot.stderr


@pytest.mark.parametrize("kind", KINDS)
async def test_an_archive_that_is_none(slot: HostSlot, kind: str) -> None:
    complete_job(slot)
    make_node(slot.path / "in.zip", kind)
    end = await slot.run(limit=SOON)
    assert (end.kind, end.status) == (EndKind.FAILED, 206), slot.stderr
    assert "in.zip cannot be unpacked: " in end.text


async def test_a_daemon_feeds_a_task_through_a_fifo(slot: HostSlot) -> None:
    """One writes to it, one reads from it: three programs run concurrently."""
    os.mkfifo(slot.path / "in")
    os.mkfifo(slot.path / "through")
    feeds = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i; done"
    slot.job(
        task(f"{feeds}; exec sleep 1000", "<daemon/>", "<stdout_filename>in</stdout_filename>"),
        task("sleep 0.3; wc -l; echo >end; exec sleep 1000", "<daemon/>", OUT,
             "<stdin_filename>through</stdin_filename>"),
        task("head -n 1000", "<stdin_filename>in</stdin_filename>",
             "<stdout_filename>through</stdout_filename>"),
        task("until [ -s out ]; do sleep 0.01; done"),
    )  # fmt: skip
    await slot.ends_well()
    assert slot.text("out").split() == ["1000"]


async def test_a_daemon_that_feeds_a_later_task_waits_for_it(slot: HostSlot) -> None:
    """Nothing opens the FIFO before, even briefly: otherwise the daemon would write to nobody."""
    os.mkfifo(slot.path / "in")
    (slot.path / "link").symlink_to("in")
    names = "<command_line>boinc_resolve(in) boinc_resolve(link)</command_line>"
    slot.script("names", "sleep 0.3")
    slot.job(
        task("echo fed; echo >end; exec sleep 1000", "<daemon/>",
             "<stdout_filename>in</stdout_filename>"),
        f"<application>names</application>{names}",
        task("sleep 0.1; cat", OUT, "<stdin_filename>in</stdin_filename>"),
        more="<zip_output><zipfilename>z</zipfilename><filename>o</filename></zip_output>",
    )  # fmt: skip
    await slot.begin()
    await slot.wait_for_text("out", "fed")


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("control", [Control.ABORT, Control.QUIT])
async def test_who_waits_for_a_fifo_is_suspended_and_ended(
    slot: HostSlot, stream: str, control: Control
) -> None:
    """And a waiting program does not start while the task is suspended."""
    os.mkfifo(slot.path / "f")
    slot.job(task("echo >runs; exec sleep 1000", f"<{stream}_filename>f</{stream}_filename>"))
    await slot.begin()
    await slot.holds(lambda: len(slot.of_tasks()) == 1)
    await slot.suspend()
    other = os.open(slot.path / "f", os.O_RDWR | os.O_NONBLOCK)
    try:
        await asyncio.sleep(0.2)  # in which it would begin
        assert {state(pid) for pid in slot.of_tasks()} == {"T"}
        assert not (slot.path / "runs").exists()
        slot.send(Control.RESUME)
        await slot.holds((slot.path / "runs").exists)
    finally:
        os.close(other)
    slot.send(control)
    end = await slot.wait(SOON)
    assert end.kind is (EndKind.ABORTED if control is Control.ABORT else EndKind.QUIT)


async def test_a_program_that_cannot_start_once_its_fifo_is_open(slot: HostSlot) -> None:
    os.mkfifo(slot.path / "f")
    slot.write("program", "", executable=True)
    slot.job("<application>program</application><stdin_filename>f</stdin_filename>")
    await slot.begin()
    await slot.holds(lambda: len(slot.of_tasks()) == 1)
    os.close(os.open(slot.path / "f", os.O_WRONLY))
    end = await slot.wait(SOON)
    assert (end.kind, end.status) == (EndKind.FAILED, 195), slot.stderr
    assert "program cannot be executed: Exec format error" in end.text


async def test_a_program_puts_a_fifo_in_every_place_of_ours(slot: HostSlot) -> None:
    """It does so while the job runs: later writes of the wrapper do not block."""
    names = " ".join(
        name
        for name in NAMED.values()
        if name.startswith((".", "out.zip", "graphics", "wrapper", "boincvm", "initial"))
    )
    slot.job(
        task(f"for f in {names}; do rm -f $f; mkfifo $f; done; sleep 0.5; touch made"),
        more="<zip_output><zipfilename>out.zip</zipfilename><filename>made</filename></zip_output>"
        "<enable_graphics_support/>",
    )
    end = await slot.run(limit=SOON)
    assert (end.kind, end.status) == (EndKind.FAILED, 195), slot.stderr
    assert "out.zip cannot be made: something else has that name" in end.text
    assert slot.text("wrapper_checkpoint.txt").startswith("1 ")
