"""A project never learns where BOINC and boincvm are on a volunteer's computer: neither from
stderr.txt, the last message or the notice, nor from what its programs get."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc.testing import EndKind
from support.host_slot import HostSlot, task

pytestmark = pytest.mark.timeout(90)

TELL_TALE = "volunteer-name-7f3a"
OUT = "<stdout_filename>out</stdout_filename>"
MACHINE = "<virtualmachine>vm</virtualmachine>"


@pytest_asyncio.fixture
async def hidden(tmp_path: Path) -> AsyncIterator[HostSlot]:
    """Make a slot beneath a directory that reveals its owner."""
    home = tmp_path / TELL_TALE
    home.mkdir()
    async with HostSlot(home, period=0.1) as slot:
        yield slot


def seen(slot: HostSlot) -> str:
    """Return everything that the project can read."""
    names = ("stderr.txt", "out", "boinc_finish_called", "boinc_temporary_exit")
    return "\n".join(slot.text(name) for name in names)


async def keeps_it(slot: HostSlot, **environment: str) -> str:
    """Run the job and check that nothing visible reveals where it ran."""
    home = str(slot.slot.directory.parent)
    end = await slot.run(HOME=home, XDG_DATA_HOME=f"{home}/data", **environment)
    assert slot.stderr
    text = f"{seen(slot)}\n{end.text}"
    assert TELL_TALE not in text
    assert str(slot.slot.directory) not in text
    assert str(Path(sys.prefix)) not in text
    return text


async def test_what_a_program_is_told(hidden: HostSlot) -> None:
    """Names are as under BOINC's wrapper and lead to its files; this includes a script's own."""
    hidden.script("app", 'echo "$0" "$@"; cat "$1" "$2"')
    (hidden.slot.project / "in_1").write_text("input\n")
    hidden.slot.link("in", "in_1")
    hidden.write("own", "own input\n")
    hidden.job(
        "<application>app</application>"
        f"<command_line>boinc_resolve(in) boinc_resolve(own)</command_line>{OUT}"
    )
    await keeps_it(hidden)
    assert hidden.text("out").splitlines() == [
        f"app ../../projects/{hidden.slot.project.name}/in_1 own",
        "input",
        "own input",
    ]
    assert "running app ../../projects/" in hidden.stderr


async def test_an_application_of_the_project(hidden: HostSlot) -> None:
    program = hidden.slot.project / "app_1"
    program.write_text('#!/bin/sh\necho "$0"\n')
    program.chmod(0o755)
    hidden.slot.link("app", "app_1")
    (hidden.path / "d").mkdir()
    hidden.job(
        f"<application>app</application>{OUT}",
        f"<application>$PROJECT_DIR/app_1</application><exec_dir>d</exec_dir>{OUT}",
    )
    await keeps_it(hidden)
    names = hidden.text("out").split()
    project = f"../../projects/{hidden.slot.project.name}/app_1"
    assert names == [project, f"../{project}"]


async def test_macros_are_absolute_and_the_log_hides_them(hidden: HostSlot) -> None:
    """As with BOINC's wrapper, a job that uses one wants the absolute path."""
    hidden.job(task("test -d $PROJECT_DIR -a -d $PWD; cd /; test -d $PROJECT_DIR -a -d $PWD"))
    text = await keeps_it(hidden)
    assert f"test -d ../../projects/{hidden.slot.project.name} -a -d .;" in text
    assert "/bin/sh ended successfully" in text


@pytest.mark.parametrize(
    ("elements", "output"),
    [
        ("<application>missing</application>", "there is no missing"),
        ("<application>junk</application>", "junk cannot be executed"),
        ("<application>$PROJECT_DIR/x</application>", "there is no ../../projects/"),
        (f"<application>/bin/true</application>{OUT}<exec_dir>d</exec_dir>", "cannot start in d"),
        ("<application>/bin/true</application><exec_dir>away</exec_dir>", "away leads out"),
        ("<application>/bin/true</application><stdin_filename>x</stdin_filename>",
         "x cannot be read: No such file"),
        ("<application>/bin/true</application><stdin_filename>away</stdin_filename>", "away leads"),
        ("<application>/bin/true</application><stdout_filename>dir</stdout_filename>",
         "dir cannot be written: Is a directory"),
        (f"<application>/bin/true</application>{MACHINE}<image>none</image>", "no image"),
        (f"<application>a</application>{MACHINE}<copy_file_to_VM>no</copy_file_to_VM>", "no"),
    ],
)  # fmt: skip
async def test_a_task_that_fails(hidden: HostSlot, elements: str, output: str) -> None:
    hidden.write("junk", "\1\2", executable=True)
    (hidden.path / "dir").mkdir()
    (hidden.path / "away").symlink_to("../..")
    hidden.job(elements)
    assert output in await keeps_it(hidden)


async def test_archives_that_fail(hidden: HostSlot) -> None:
    hidden.write("in.zip", "none")
    hidden.job(task("true"), more="<unzip_input><zipfilename>in.zip</zipfilename></unzip_input>")
    assert "in.zip is not a valid zip archive" in await keeps_it(hidden)


async def test_no_hypervisor(hidden: HostSlot, tmp_path: Path) -> None:
    hidden.job(f"<application>/bin/true</application>{MACHINE}")
    await keeps_it(hidden, PATH=str(tmp_path / TELL_TALE))


async def test_a_defect_of_ours(hidden: HostSlot) -> None:
    """The traceback has what a developer needs, and no directories."""
    hidden.patched(
        "import os\nfrom boincvm.wrapper.report import ClientReport\n"
        "def send(self): raise RuntimeError(os.getcwd() + '/a')\nClientReport.send = send"
    )
    hidden.job(task("sleep 1000"))
    text = await keeps_it(hidden)
    assert "RuntimeError: a" in text
    assert 'File "boincvm/wrapper/run.py", line ' in text


async def test_a_slot_that_is_not_ours(hidden: HostSlot) -> None:
    (hidden.path / "boinc_lockfile").mkdir()
    hidden.job(task("true"))
    end = await hidden.run()
    assert end.kind is EndKind.TEMPORARY_EXIT
    assert TELL_TALE not in seen(hidden)
