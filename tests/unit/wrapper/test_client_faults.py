"""Faults of a job on the host: each has a line with the reason, and the right code."""

import pytest

from boincvm.boinc.testing import EndKind
from support.host_slot import HostSlot, task

pytestmark = pytest.mark.timeout(90)

OUT = "<stdout_filename>out</stdout_filename>"
SMALLEST = "<job_desc><task><application>a</application></task></job_desc>"


async def fails(slot: HostSlot, status: int, *causes: str) -> None:
    """Check the cause in the client's message and in stderr.txt, without a traceback."""
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, status), slot.stderr
    for cause in causes:
        assert cause in end.text
        assert cause in slot.stderr
    assert "Traceback" not in slot.stderr


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("echo so it goes >&2; exit 3", "/bin/sh ended with exit code 3"),
        ("echo so it goes >&2; kill -SEGV $$", "signal 11 killed /bin/sh"),
        ("echo so it goes >&2; kill -KILL $$", "signal 9 killed /bin/sh"),
    ],
)
async def test_a_program_that_fails(slot: HostSlot, script: str, cause: str) -> None:
    slot.job(task("true"), task(script), task("echo next", OUT))
    await fails(slot, 195, cause)
    assert "so it goes" in slot.stderr
    assert slot.left() == {"job.xml"}
    assert slot.text("wrapper_checkpoint.txt").startswith("1 ")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "job.xml cannot be read: No such file or directory"),
        ("", "job.xml:1: found"),
        ("<job_desc>\n<task>\n<application>a</task></job_desc>", "job.xml:3: found"),
        ("<job_desc>\n</job_desc>", "job.xml:1: found no task"),
        ("<!DOCTYPE x>" + SMALLEST, "job.xml:1: found"),
        (SMALLEST + " " * (1 << 20), "job.xml has more than 1048576 bytes"),
        (SMALLEST.replace("</task>", "<stdout_filename>../../o</stdout_filename></task>"),
         "job.xml:1: found <stdout_filename> '../../o'"),
        (SMALLEST.replace("</task>", "<exec_dir>/tmp</exec_dir></task>"),
         "job.xml:1: found <exec_dir> '/tmp'"),
        ("<soft_link>../../../elsewhere</soft_link>\n", "job.xml leads to"),
    ],
)  # fmt: skip
async def test_a_job_file_that_is_none(slot: HostSlot, content: str | None, cause: str) -> None:
    if content is not None:
        slot.write("job.xml", content)
    await fails(slot, 206, cause)
    assert slot.left() == ({"job.xml"} if content is not None else set())


@pytest.mark.parametrize("kind", ["stdin", "stdout", "stderr", "checkpoint", "fraction_done"])
@pytest.mark.parametrize("symbolic", [False, True])
async def test_files_that_lead_out(slot: HostSlot, kind: str, symbolic: bool) -> None:
    """They lead out of the slot and the project's directory."""
    secret = slot.slot.directory / "client_state.xml"
    secret.write_text("secret")
    if symbolic:
        (slot.path / "f").symlink_to(secret)
    else:
        slot.write("f", "<soft_link>../../client_state.xml</soft_link>\n")
    slot.job(task("cat", OUT, f"<{kind}_filename>f</{kind}_filename>"))
    await fails(slot, 206, "f leads to", "neither the slot nor the project's directory")
    assert secret.read_text() == "secret"
    assert slot.text("out") == ""


@pytest.mark.parametrize(
    ("element", "status", "cause"),
    [
        ("<stdin_filename>missing</stdin_filename>", 206, "cannot be read: No such file"),
        ("<stdout_filename>directory</stdout_filename>", 195, "cannot be written: Is a dir"),
        ("<exec_dir>missing</exec_dir>", 195, "cannot start in"),
        ("<exec_dir>out_of_it</exec_dir>", 206, "leads outside the slot"),
        ("<command_line>boinc_resolve(out_of_it)</command_line>", 206, "out_of_it leads to"),
        ("<command_line>boinc_resolve(../x)</command_line>", 206, "not a file of the slot"),
    ],
)
async def test_what_a_task_needs_is_not_there(
    slot: HostSlot, element: str, status: int, cause: str
) -> None:
    (slot.path / "directory").mkdir()
    (slot.path / "out_of_it").symlink_to("..")
    slot.job(f"<application>/bin/true</application>{element}")
    await fails(slot, status, cause)


async def test_an_argument_that_is_none(slot: HostSlot) -> None:
    slot.job(task("true"))
    end = await slot.run("--nthreads", "many")
    assert (end.kind, end.status) == (EndKind.FAILED, 210)
    assert "--nthreads: found 'many', expected a number" in slot.stderr


async def test_a_slot_that_cannot_be_locked(slot: HostSlot) -> None:
    (slot.path / "boinc_lockfile").symlink_to("elsewhere")
    slot.job(task("true"))
    end = await slot.run()
    assert (end.kind, end.delay) == (EndKind.TEMPORARY_EXIT, 600), slot.stderr
    assert "boinc_lockfile cannot be locked" in end.text


async def test_init_data_that_no_client_has_written(slot: HostSlot) -> None:
    slot.write("init_data.xml", "none")
    slot.job(task("true"))
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 206), slot.stderr
    assert "init_data.xml" in slot.stderr


async def test_what_the_host_refuses_is_tried_again(slot: HostSlot) -> None:
    """The job's progress cannot be saved; the job is not at fault, and the cause may go away."""
    (slot.path / "wrapper_checkpoint.txt").mkdir()
    slot.job(task("true"))
    delays = []
    for _ in range(4):
        end = await slot.run()
        assert end.kind is EndKind.TEMPORARY_EXIT, slot.stderr
        assert "the job's progress could not be saved: Is a directory" in end.text
        delays.append(end.delay)
    assert delays == [60, 120, 240, 480]
    await fails(slot, 208, "(5 times)")


async def test_what_this_system_cannot_do_is_not_tried_again(slot: HostSlot) -> None:
    """It cannot succeed here, but another host can do it."""
    slot.patched(
        "from boincvm.host.not_yet import not_yet\n"
        "from boincvm.wrapper.tasks.host_program import HostProgram\n"
        "async def wait(self): raise not_yet('resource usage of a process tree')\n"
        "HostProgram.wait = wait"
    )
    slot.job(task("true"))
    await fails(slot, 206, "not yet supported on Linux: resource usage of a process tree")


async def test_a_defect_of_ours_is_no_success(slot: HostSlot) -> None:
    slot.patched(
        "from boincvm.wrapper.report import ClientReport\n"
        "def send(self): raise RuntimeError('a defect')\nClientReport.send = send"
    )
    slot.job(task("sleep 1000"))
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 1)
    assert "RuntimeError: a defect" in slot.stderr
