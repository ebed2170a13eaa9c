"""Tasks of a job.xml on the host: their order, and how each of them is started."""

import re
import signal
import stat
import sys

import pytest

from boincvm.boinc.testing import EndKind
from support.host_slot import HostSlot, task

pytestmark = pytest.mark.timeout(90)

OUT = "<stdout_filename>out</stdout_filename>"


async def test_tasks_run_in_their_order_and_leave_nothing(slot: HostSlot) -> None:
    slot.job(*(task(f"echo begin {n}; sleep 0.1; echo end {n}", OUT) for n in range(3)))
    await slot.ends_well()
    assert slot.text("out") == "".join(f"begin {n}\nend {n}\n" for n in range(3))
    assert slot.left() == {"job.xml", "out"}
    assert slot.text("wrapper_checkpoint.txt").startswith("3 ")


async def test_the_lines_in_the_log(slot: HostSlot) -> None:
    slot.script("app", "echo second >&2")
    slot.job(task("echo first >&2"), "<application>app</application>", more="<nonsense/>")
    await slot.ends_well()
    lines = slot.stderr.splitlines()
    assert lines.index("first") < lines.index("second")
    ours = [line for line in lines if line not in ("first", "second")]
    head = rf"\d\d:\d\d:\d\d \({slot.pid}\): boincvm: "
    assert all(re.match(head, line) for line in ours)
    expected = (
        r"boincvm-wrapper \S+ starts",
        r"job.xml:1: .*nonsense.* has no effect.*",
        r"running /bin/sh -c echo first >&2",
        r"/bin/sh ended successfully",
        r"running app",
        r"app ended successfully",
        r"CPU time: guest D s, host D s; wall time D s; reported: D s \(guest x 1\)",
    )
    assert len(ours) == len(expected)
    for line, pattern in zip(ours, expected, strict=True):
        assert re.fullmatch(head + pattern.replace(" D s", r" \d+\.\d s"), line), line


async def test_a_command_line_of_many_lines_is_one_line_of_the_log(slot: HostSlot) -> None:
    slot.job(task(f": '\n00:00:00 (1): boincvm: app ended well\n{'x' * 100_000}'"))
    await slot.ends_well()
    assert max(map(len, slot.stderr.splitlines())) < 1100
    assert "\n00:00:00 (1)" not in slot.stderr


async def test_macros_arguments_and_environment(slot: HostSlot) -> None:
    slot.slot.link("data", "wu_data")
    slot.script("app", 'printf "%s\\n" "$@" "$MINE" "$CLIENTS" "$LD_LIBRARY_PATH"')
    slot.job(
        "<application>app</application><append_cmdline_args/>"
        f"<setenv>MINE=$NTHREADS of $PWD</setenv>{OUT}"
        "<command_line>$PROJECT_DIR $NTHREADS_x $GPU_DEVICE_NUM boinc_resolve( data ) 'a b'"
        "</command_line>"
    )
    arguments = ("--nthreads", "3", "--device", "1", "--passthrough_child", "--device")
    await slot.ends_well(*arguments, "x y", CLIENTS="kept", LD_LIBRARY_PATH="/lib/theirs")
    project = slot.slot.project
    assert slot.text("out").splitlines() == [
        *(str(project), "3_x", "1", f"../../projects/{project.name}/wu_data", "a b"),
        *("--device", "x y"),
        *(f"3 of {slot.path}", "kept"),
        f"../../projects/{project.name}:.:../..:/lib/theirs",
    ]


async def test_arguments_are_for_tasks_that_ask_for_them(slot: HostSlot) -> None:
    slot.slot.values["gpu_device_num"] = 2
    slot.slot.write_init_data()
    slot.script("app", 'echo "$@"')
    plain = f"<application>app</application>{OUT}"
    slot.job(f"{plain}<command_line>$GPU_DEVICE_NUM</command_line>", f"{plain}<setenv>=</setenv>")
    await slot.ends_well("--use_tstp", "--passthrough_child", "more")
    assert slot.text("out") == "2\n\n"


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (("--nthreads", "4"), ""),
        (("--nthreads", "4", "--passthrough_child", "a b", "--own"), "a b,--own,"),
        (("--nthreads", "4", "--own", "--passthrough_all"), "--nthreads,4,--own,"),
    ],
)
async def test_what_is_appended(slot: HostSlot, arguments: tuple[str, ...], given: str) -> None:
    slot.script("app", 'printf "%s," "$@"')
    slot.job(f"<application>app</application><append_cmdline_args/>{OUT}")
    await slot.ends_well(*arguments)
    assert slot.text("out") == (given or ",")


async def test_an_argument_that_nobody_knows(slot: HostSlot) -> None:
    slot.job(task("echo ran > ran", "<append_cmdline_args/>"))
    end = await slot.run("--nthreads", "4", "--seed", "7")
    assert (end.kind, end.status) == (EndKind.FAILED, 206), slot.stderr
    assert "unknown argument '--seed'" in end.text
    assert not (slot.path / "ran").exists()


@pytest.mark.parametrize("symbolic", [False, True])
async def test_a_program_of_many_names(slot: HostSlot, symbolic: bool) -> None:
    """It is a symbolic link in the slot, or in the project's directory."""
    project = slot.slot.project
    (project / "many_1.0").write_text('#!/bin/sh\necho "I am $(basename "$0")"\n')
    (project / "many_1.0").chmod(0o755)
    (project / "alpha").symlink_to("many_1.0")
    slot.slot.link("alpha", "many_1.0" if symbolic else "alpha", symbolic=symbolic)
    slot.slot.app_files = ["many_1.0"]  # it is what is signed
    slot.slot.write_init_data()
    slot.job(f"<application>alpha</application>{OUT}")
    await slot.ends_well()
    assert slot.text("out") == "I am alpha\n"


@pytest.mark.parametrize("symbolic", [False, True])
async def test_files_behind_soft_links(slot: HostSlot, symbolic: bool) -> None:
    project = slot.slot.project
    (project / "app_1.0").write_text("#!/bin/sh\ncat; echo problem >&2")
    (project / "app_1.0").chmod(0o755)
    (project / "wu_in").write_text("question\n")
    (project / "wu_0_out").write_text("before\n")
    names = {"app": "app_1.0", "in": "wu_in", "out": "wu_0_out", "err": "wu_0_err"}
    for name, physical in names.items():
        slot.slot.link(name, physical, symbolic=symbolic)
    slot.job(
        f"<application>app</application><stdin_filename>in</stdin_filename>{OUT}"
        "<stderr_filename>err</stderr_filename>"
    )
    await slot.ends_well()
    assert (project / "wu_0_out").read_text() == "before\nquestion\n"
    assert (project / "wu_0_err").read_text() == "problem\n"
    assert slot.left() == {"job.xml", *names}


async def test_the_directory_of_a_task(slot: HostSlot) -> None:
    (slot.path / "inside").mkdir()
    project = slot.slot.project
    pwd = f"<application>/bin/pwd</application>{OUT}"
    directories = ("inside", "$PROJECT_DIR", "$PWD/inside")
    slot.job(pwd, *(f"{pwd}<exec_dir>{directory}</exec_dir>" for directory in directories))
    await slot.ends_well()
    inside = str(slot.path / "inside")
    assert slot.text("out").splitlines() == [str(slot.path), inside, str(project), inside]


@pytest.mark.parametrize(
    ("application", "status", "cause"),
    [
        ("/bin/true", 0, ""),
        ("$PROJECT_DIR/app", 0, ""),
        ("/bin/../bin/true", 206, "contains '..'"),
        ("$PROJECT_DIR/../../app", 206, "contains '..'"),
        ("../0/app", 206, "contains '..'"),
        ("$PROJECT_DIR/out_of_it/app", 206, "leads outside the slot"),
        ("missing", 206, "the application missing is missing"),
        ("a" * 300, 206, "File name too long"),
        ("/" + "a" * 300, 206, "is missing"),
        ("data", 195, "Permission denied"),
    ],
)
async def test_the_application(slot: HostSlot, application: str, status: int, cause: str) -> None:
    (slot.slot.project / "out_of_it").symlink_to("../..")
    for directory in (slot.path, slot.slot.project, slot.slot.directory):
        app = directory / "app"
        app.write_text("#!/bin/sh\n")
        app.chmod(0o755)
    slot.write("data", "no program").chmod(stat.S_IRUSR)
    slot.job(f"<application>{application}</application>")
    end = await slot.run()
    assert end.status == status, slot.stderr
    assert end.kind is (EndKind.FAILED if status else EndKind.FINISHED)
    assert cause in slot.stderr
    assert end.text[:100] in slot.stderr


@pytest.mark.parametrize(
    ("element", "init_data", "nice"),
    [
        ("", {}, 19),
        ("<priority>2</priority>", {}, 10),
        ("<priority>7</priority>", {}, None),
        ("<priority>7</priority>", {"process_priority": 0}, 19),
        ("<priority>2</priority>", {"process_priority": 0}, 19),
        ("", {"no_priority_change": 1}, None),
    ],
)
async def test_the_priority(
    slot: HostSlot, element: str, init_data: dict[str, int], nice: int | None
) -> None:
    slot.slot.values |= init_data
    slot.slot.write_init_data()
    slot.write(
        "nice.py",
        "import os\nfor pid in (0, os.getppid()): print(os.getpriority(os.PRIO_PROCESS, pid))",
    )
    slot.job(
        f"<application>{sys.executable}</application><command_line>nice.py</command_line>"
        f"{OUT}{element}"
    )
    await slot.ends_well()
    own, guards = map(int, slot.text("out").split())
    assert own == (guards if nice is None else nice)


async def test_standalone(slot: HostSlot) -> None:
    """Run in a directory that no client has made, as for trying out a job."""
    (slot.path / "init_data.xml").unlink()
    slot.job(task("echo $MINE; pwd", OUT, "<setenv>MINE=$PROJECT_DIR</setenv>"))
    await slot.ends_well()
    assert slot.text("out") == f"{slot.path}\n" * 2
    assert "standalone" in slot.stderr


async def test_standalone_checkpoints_count(slot: HostSlot) -> None:
    """A program's own are recorded while it runs, so that a kill loses no CPU time before them."""
    (slot.path / "init_data.xml").unlink()
    burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    again = f"while [ ! -e go ]; do sleep 0.01; done; {burn}"
    slot.job(
        task(
            f"[ -e saved ] && {{ {again}; exit; }}; until [ -e begin ]; do sleep 0.01; done;"
            f" {burn}; date > saved; sleep 1000",
            "<checkpoint_filename>saved</checkpoint_filename>",
        )
    )
    await slot.begin()
    await slot.wait_for_text("wrapper_checkpoint.txt", "0 0.000000")
    slot.write("begin", "")
    await slot.holds(lambda: "0 0.000000" not in slot.text("wrapper_checkpoint.txt"))
    before = float(slot.text("wrapper_checkpoint.txt").split()[1])
    assert before > 0.05
    slot.kill(signal.SIGKILL)
    await slot.wait()
    slot.write("go", "")
    await slot.ends_well()
    assert float(slot.text("wrapper_checkpoint.txt").split()[1]) > before + 0.05


@pytest.mark.parametrize("word", [None, signal.SIGTERM, signal.SIGKILL])
async def test_what_a_part_says_of_its_end_is_not_the_jobs(
    slot: HostSlot, word: signal.Signals | None
) -> None:
    """A BOINC program writes these files in the slot when it has done its part."""
    prints = (
        "printf '0\\nwell\\n' > boinc_finish_called; printf '5\\nlater\\n' > boinc_temporary_exit"
    )
    stays = "true" if word is None else "echo up; sleep 1000"
    slot.job(task(prints), task(f"ls | grep boinc_[ft]; {stays}", OUT))
    await slot.begin()
    if word is None:
        end = await slot.wait()
        assert (end.kind, end.text) == (EndKind.FINISHED, ""), slot.stderr
    else:
        await slot.wait_for_text("out", "up")
        slot.write("boinc_finish_called", "0\n")  # as by one that is still at it
        slot.kill(word)
        end = await slot.wait()
        assert end.kind is (EndKind.PREMATURE if word is signal.SIGTERM else EndKind.KILLED)
    assert slot.text("out").split() == (["up"] if word else [])


async def test_a_finish_file_of_a_killed_run_is_not_believed(slot: HostSlot) -> None:
    """The client would end the task if it lived on long after reporting its end."""
    slot.write("boinc_finish_called", "0\n")
    slot.job(task("ls | grep boinc_[ft]; true", OUT))
    await slot.ends_well()
    assert slot.text("out") == ""
