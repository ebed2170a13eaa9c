"""What runs beside the tasks of a job.xml, or before all of them."""

import zipfile

import pytest

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from support.host_delays import within
from support.host_slot import SHORT_GRACE, SHORTENED, HostSlot, task

pytestmark = pytest.mark.timeout(90)

OUT = "<stdout_filename>out</stdout_filename>"
DAEMON = "<daemon/>"


def until(name: str) -> str:
    """Return a line of a shell script."""
    return f"while [ ! -e {name} ]; do sleep 0.01; done"


async def test_daemons_are_there_before_and_until_after_the_tasks(slot: HostSlot) -> None:
    slot.job(
        task("until [ -s ready ] && [ -s pid ]; do sleep 0.01; done; echo task", OUT),
        task("trap 'echo ended > end; exit' TERM; echo $MINE $0 > ready; sleep 1000 & wait",
             DAEMON, "<append_cmdline_args/>", "<setenv>MINE=$NTHREADS in $PWD</setenv>"),
        task("[ ! -e end ] && kill -0 $(cat pid) && echo daemons live", OUT),
        task("echo $$ > pid; sleep 1000", DAEMON),
    )  # fmt: skip
    await slot.ends_well("--nthreads", "2", "--passthrough_child", "more")
    assert slot.text("out") == "task\ndaemons live\n"
    assert slot.text("ready") == f"2 in {slot.path} more\n"
    assert slot.text("end") == "ended\n"
    assert slot.left() == {"job.xml", "out", "ready", "end", "pid"}


async def test_daemons_end_with_a_task_that_fails(slot: HostSlot) -> None:
    """They have their time at once, not one after the other."""
    slot.patched(SHORTENED)
    slot.job(
        task(f"{until('up')}; exit 3"), *[task("trap '' TERM; echo > up; sleep 1000", DAEMON)] * 3
    )
    await slot.begin()
    await slot.holds(lambda: (slot.path / "up").exists())
    with within(2 * SHORT_GRACE + 2):
        end = await slot.wait()
    assert (end.kind, end.status) == (EndKind.FAILED, 195)
    assert end.text == "/bin/sh ended with exit code 3"


async def test_a_daemon_that_ends_by_itself(slot: HostSlot) -> None:
    slot.job(task(f"{until('up')}; sleep 0.1; echo done", OUT), task("echo > up; exit 1", DAEMON))
    await slot.ends_well()
    assert slot.text("out") == "done\n"


async def test_a_daemon_that_is_missing(slot: HostSlot) -> None:
    slot.job(task("echo task", OUT), "<application>missing</application><daemon/>")
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 206)
    assert "missing" in end.text
    assert slot.text("out") == ""


async def test_daemons_start_again_with_the_job(slot: HostSlot) -> None:
    slot.job(
        task("echo first", OUT), task(f"echo second; {until('go')}", OUT),
        task("echo up >> daemon; sleep 1000", DAEMON),
    )  # fmt: skip
    await slot.begin()
    await slot.wait_for_text("out", "second")
    await slot.wait_for_text("daemon", "up")
    slot.send(Control.QUIT)
    await slot.wait()
    slot.write("go", "")
    await slot.ends_well()
    assert slot.text("out") == "first\nsecond\nsecond\n"
    assert slot.text("daemon") == "up\nup\n"


@pytest.mark.parametrize("element", ["", "<multi_process/>"])
async def test_all_processes_stop(slot: HostSlot, element: str) -> None:
    """This holds whatever the job requests."""
    count = "while :; do echo >> ticks; sleep 0.01; done"
    slot.job(task(f"{count} & (setsid sh -c '{count}' &); {count}", element))
    await slot.begin()
    await slot.wait_for_text("ticks", "\n")
    for _ in range(3):
        await slot.suspend()
        size = len(slot.text("ticks"))
        await slot.status()
        await slot.status()
        assert len(slot.text("ticks")) == size
        slot.send(Control.RESUME)
        await slot.holds(lambda size=size: len(slot.text("ticks")) > size + 10)  # type: ignore[misc]
    slot.send(Control.ABORT)
    with within(5):
        await slot.wait()


async def test_with_tstp_the_program_is_told(slot: HostSlot) -> None:
    slot.job(task("trap 'echo told' TSTP; echo begin; while :; do sleep 0.01; done", OUT))
    await slot.begin("--use_tstp")
    await slot.wait_for_text("out", "begin")
    slot.send(Control.SUSPEND)
    await slot.wait_for_text("out", "told")
    slot.send(Control.ABORT)
    with within(5):
        await slot.wait()


async def test_the_tasks_of_vmwrapper_that_run_on_the_host(slot: HostSlot) -> None:
    """They unpack once, before everything else; a word `./NAME` is a logical name. No task has a
    machine, so no manager of machines is started."""
    slot.slot.link("data.tar", "wu_data.tar")
    (slot.slot.project / "wu_data.tar").write_text("data\n")
    slot.write("unpack", "#!/bin/sh\necho unpacks $1; cp $1 data\n", executable=True)
    unpack = (
        "<unzip_task><application>unpack</application><command_line>./data.tar</command_line>"
        f"{OUT}</unzip_task>"
    )
    manager = "<VMmanage_task><application>missing</application></VMmanage_task>"
    slot.job(task(f"cat data; {until('go')}", OUT), more=unpack + manager)
    await slot.begin()
    await slot.wait_for_text("out", "data\n")
    slot.send(Control.QUIT)
    await slot.wait()
    slot.write("go", "")
    await slot.ends_well()
    physical = f"../../projects/{slot.slot.project.name}/wu_data.tar"
    assert slot.text("out") == f"unpacks {physical}\ndata\ndata\n"


async def test_an_unpacking_task_that_fails(slot: HostSlot) -> None:
    slot.job(
        task("echo task", OUT), more=f"<unzip_task>{task('echo unpacks; exit 2', OUT)}</unzip_task>"
    )
    for _ in range(2):
        end = await slot.run()
        assert (end.kind, end.status) == (EndKind.FAILED, 195)
    assert slot.text("out") == "unpacks\n" * 2  # it was not done, so it is begun again


async def test_an_archive_that_is_none(slot: HostSlot) -> None:
    slot.write("in.zip", "no archive")
    slot.job(
        task("echo task", OUT), more="<unzip_input><zipfilename>in.zip</zipfilename></unzip_input>"
    )
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 206)
    assert "in.zip is not a valid zip archive" in end.text
    assert slot.left() == {"job.xml", "in.zip"}


async def test_nothing_that_the_archive_of_the_output_would_hold(slot: HostSlot) -> None:
    slot.write("input", "")
    slot.job(
        task("true"),
        more="<zip_output><zipfilename>o.zip</zipfilename><filename>put</filename></zip_output>",
    )
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 195)
    assert "nothing to put into o.zip" in end.text
    assert not zipfile.is_zipfile(slot.path / "o.zip")
