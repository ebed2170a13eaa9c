"""`boincvm-wrapper` with tasks on the host, started by a real BOINC client."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from boincvm.boinc.client_directory import Output, Preferences, TaskFile, Work
from support.boinc.installed import WRAPPER, images
from support.boinc.rig import COMPUTE_ERROR, SUSPENDED, MakeRig, Rig
from support.boinc.watch import LIMIT, is_gone, state_of, until
from support.host_delays import within

CHILD_FAILED, ABORTED_VIA_GUI, INIT_FAILURE = 195, 203, 206
"""BOINC lib/error_numbers.h."""
ABORT_LIMIT = 5.0
"""Seconds in which all of an aborted task is gone."""
pytestmark = pytest.mark.timeout(200)

SLEEP = 'echo "$0 $$" >"$RIG_WORDS"; exec sleep 1000\n'
"""The end of a script that says its name and process id, and stays."""


def script(name: str, text: str) -> TaskFile:
    """Make an executable of the app version, with the name `name` in the slot."""
    content = f"#!/bin/sh\n{text}".encode()
    return TaskFile(f"{name}_1.00", content, open_name=name, executable=True)


def work(
    tasks: str,
    scripts: Sequence[TaskFile] = (),
    *,
    inputs: Sequence[TaskFile] = (),
    outputs: Sequence[Output] = (),
) -> Work:
    """Make a job.xml with `tasks`, for our wrapper."""
    job = TaskFile("job_1.00.xml", f"<job_desc>{tasks}</job_desc>".encode(), open_name="job.xml")
    main = TaskFile("boincvm-wrapper_1.00", WRAPPER, executable=True)
    return Work([main, job, *scripts], inputs, outputs)


def task(application: str, more: str = "") -> str:
    return f"<task><application>{application}</application>{more}</task>"


def started(make_rig: MakeRig, work: Work, **options: object) -> Rig:
    rig = make_rig(work, **options)
    rig.start()
    return rig


@pytest.fixture
def tree(make_rig: MakeRig) -> tuple[Rig, list[int]]:
    """Start a task of three generations that stay, the youngest re-parented; return their ids."""
    scripts = [
        script("child", './older & ( sh -c "exec ./orphan" & ) ; ' + SLEEP),
        script("older", SLEEP),
        script("orphan", SLEEP),
    ]
    rig = started(make_rig, work(task("child", "<multi_process/>"), _findable(scripts)))
    pids = sorted(int(rig.next_message().split()[1]) for _ in scripts)
    return rig, pids


def _findable(scripts: Sequence[TaskFile]) -> list[TaskFile]:
    """Copy what a script starts by its logical name, because it resolves no soft links."""
    first, *others = scripts
    return [first, *(TaskFile(f.name, f.content, f.open_name, True, True) for f in others)]


@pytest.mark.parametrize("api_version", ["7.20.0", "5.10.0"], ids=["mapped file", "System V"])
def test_a_job_of_two_tasks(make_rig: MakeRig, api_version: str) -> None:
    upper = script("upper", "tr a-z A-Z\n")
    twice = script("twice", 'cat "$1" "$1"; echo "read $1" >&2\n')
    tasks = task(
        "upper", "<stdin_filename>in</stdin_filename><stdout_filename>half</stdout_filename>"
    ) + task("twice", "<command_line>half</command_line><stdout_filename>out</stdout_filename>")
    described = work(
        tasks,
        [upper, twice],
        inputs=[TaskFile("work_in", b"words\n", open_name="in")],
        outputs=[Output("work_0_out", "out")],
    )
    rig = started(make_rig, replace(described, api_version=api_version))
    ended = rig.ended()
    assert ended.is_success, rig.story(ended.stderr)
    assert (rig.project / "work_0_out").read_text() == "WORDS\nWORDS\n"
    assert "read half" in ended.stderr
    assert "): boincvm: " in ended.stderr
    assert rig.processes() == []


def test_an_app_version_that_is_copied(make_rig: MakeRig) -> None:
    """With <copy_file/> on every file the slot has copies, and init_data.xml the physical names."""
    upper = script("upper", "tr a-z A-Z\n")
    streams = "<stdin_filename>in</stdin_filename><stdout_filename>out</stdout_filename>"
    described = work(
        task("upper", streams),
        [upper],
        inputs=[TaskFile("work_in", b"words\n", "in", copy=True)],
        outputs=[Output("work_0_out", "out")],
    )
    copied = [replace(file, copy=True) for file in described.app_files]
    rig = started(make_rig, replace(described, app_files=copied))
    ended = rig.ended()
    assert ended.is_success, rig.story(ended.stderr)
    assert (rig.project / "work_0_out").read_text() == "WORDS\n"


def test_a_job_of_the_workunit_starts_copies_of_signed_programs_only(make_rig: MakeRig) -> None:
    """This holds even if a file of the workunit has a program's logical name."""
    signed = script("signed", 'echo signed >"$RIG_WORDS"\n')
    job = f"<job_desc>{task('signed')}{task('mine')}</job_desc>".encode()
    mine = b"#!/bin/sh\necho mine >$RIG_WORDS\n"
    described = Work(
        [work("").app_files[0], replace(signed, copy=True)],
        [
            TaskFile("work_job", job, "job.xml", copy=True),
            TaskFile("work_mine", mine, "mine", copy=True, executable=True),
            TaskFile("work_signed", mine, "signed", copy=True, executable=True),
        ],
    )
    rig = started(make_rig, described)
    ended = rig.ended()
    assert (ended.state, ended.exit_status) == (COMPUTE_ERROR, INIT_FAILURE), ended.stderr
    assert "it is not signed" in ended.stderr
    assert rig.next_message() == "signed"
    with pytest.raises(AssertionError, match="says nothing"):
        rig.next_message(0)


def test_a_child_that_fails(make_rig: MakeRig) -> None:
    fails = script("fails", "echo 'it says why' >&2; exit 7\n")
    never = script("never", 'echo never >"$RIG_WORDS"\n')
    rig = started(make_rig, work(task("fails") + task("never"), [fails, never]))
    ended = rig.ended()
    assert (ended.state, ended.exit_status) == (COMPUTE_ERROR, CHILD_FAILED), ended.stderr
    assert "it says why" in ended.stderr
    with pytest.raises(AssertionError, match="says nothing"):
        rig.next_message(0)


def test_suspend_stops_the_whole_tree_and_resume_lets_it_go_on(
    tree: tuple[Rig, list[int]],
) -> None:
    rig, pids = tree
    for _ in range(3):
        rig.suspend()
        until(lambda: all(state_of(pid) == "T" for pid in pids), story=rig.log)
        rig.until(lambda task: task.process_state == SUSPENDED)
        rig.resume()
        until(lambda: all(state_of(pid) in ("S", "R") for pid in pids), story=rig.log)


@pytest.mark.parametrize("suspended", [False, True], ids=["running", "suspended"])
def test_abort_ends_all(tree: tuple[Rig, list[int]], suspended: bool) -> None:
    rig, pids = tree
    if suspended:
        rig.suspend()
        until(lambda: all(state_of(pid) == "T" for pid in pids), story=rig.log)
    rig.abort()
    with within(ABORT_LIMIT):
        until(lambda: all(map(is_gone, pids)), story=rig.log)
    with within(ABORT_LIMIT):
        until(lambda: rig.processes() == [], story=rig.log)
    assert rig.until(lambda task: task.is_over).exit_status == ABORTED_VIA_GUI


def test_the_client_quits_and_goes_on_at_the_same_task(make_rig: MakeRig) -> None:
    scripts = [
        script("one", 'echo one >"$RIG_WORDS"\n'),
        script("two", "[ -e again ] || { : >again; " + SLEEP + "}\n" + 'echo two >"$RIG_WORDS"\n'),
        script("three", 'echo three >"$RIG_WORDS"\n'),
    ]
    rig = started(make_rig, work("".join(map(task, ("one", "two", "three"))), scripts))
    assert rig.next_message() == "one"
    pid = int(rig.next_message().split()[1])
    rig.quit()
    assert is_gone(pid)
    assert rig.processes() == []
    assert (rig.slot() / "wrapper_checkpoint.txt").read_text().split()[0] == "1"
    for name in ("boinc_finish_called", "boinc_temporary_exit", "boinc_lockfile"):
        assert not (rig.slot() / name).exists()
    rig.start()
    assert [rig.next_message(), rig.next_message()] == ["two", "three"]
    ended = rig.ended()
    assert ended.is_success, ended.stderr


SAVES_AT_ITS_END = script(
    "saves",
    "[ -e saved ] && first=no\n"
    "trap 'sleep 1; date > saved; exit' TERM\n"
    'echo begun >"$RIG_WORDS"\n'
    'i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done; echo burnt >"$RIG_WORDS"\n'
    "while [ -z $first ] || [ ! -e go ]; do sleep 0.1; done\n",
)


@pytest.mark.parametrize("ending", ["client quits", "client is killed", "preempted"])
def test_a_checkpoint_that_is_made_at_a_quit_counts(make_rig: MakeRig, ending: str) -> None:
    """The client continues from where the program was when it saved."""
    saves = task("saves", "<checkpoint_filename>saved</checkpoint_filename>")
    preferences = Preferences(leave_in_memory=False)
    rig = started(make_rig, work(saves, [SAVES_AT_ITS_END]), preferences=preferences)
    assert rig.next_message() == "begun"
    # The client counts from the wrapper's start; after its own death only the program's time is
    # known, which is shorter by as long as a busy host takes to start it.
    start = rig.task().elapsed_time if ending == "client is killed" else 0.0
    assert rig.next_message() == "burnt"
    rig.until(lambda task: task.elapsed_time >= start + 3 and task.cpu_time > 0)
    if ending == "preempted":
        # A client that has never heard of a checkpoint does not take a task out of memory.
        (rig.slot() / "saved").touch()
        rig.until(lambda task: task.checkpoint_cpu_time > 0)
        pid = rig.task().pid
        before = rig.task()
        rig.suspend()
        until(lambda: is_gone(pid), story=rig.log)
        rig.resume()
    elif ending == "client quits":
        before = rig.task()
        rig.quit()
        rig.start()
    else:
        before = rig.task()
        rig.kill_client()
        until(lambda: rig.processes() == [], story=rig.stderr())
        rig.start()
    assert [rig.next_message(), rig.next_message()] == ["begun", "burnt"]
    # The program may be quicker than the client, which asks the wrapper once a second.
    after = rig.until(lambda task: task.cpu_time > before.cpu_time)
    assert after.checkpoint_cpu_time >= before.cpu_time > 0, rig.story(f"{before} {after}")
    assert after.elapsed_time >= before.elapsed_time - start, rig.story(f"{before} {after}")
    (rig.slot() / "go").touch()
    ended = rig.ended()
    assert ended.is_success, ended.stderr
    assert ended.cpu_time >= before.cpu_time
    assert ended.elapsed_time >= before.elapsed_time - start


def test_the_client_is_killed(tree: tuple[Rig, list[int]]) -> None:
    rig, _ = tree
    rig.kill_client()
    until(lambda: rig.processes() == [], story=rig.stderr())


def test_the_wrapper_is_killed_and_started_again(tree: tuple[Rig, list[int]]) -> None:
    rig, pids = tree
    os.kill(rig.running().pid, signal.SIGKILL)
    with within(ABORT_LIMIT):
        until(lambda: all(map(is_gone, pids)), story=rig.log)
    again = [int(rig.next_message().split()[1]) for _ in pids]
    assert not set(again) & set(pids)
    assert rig.running().pid in rig.processes()


@pytest.mark.parametrize("plan_class", ["", "vbox64"], ids=["the client's", "ours"])
def test_cpu_limit(make_rig: MakeRig, plan_class: str) -> None:
    """The client leaves it to tasks for VirtualBox, as which it takes all with such a name."""
    rig = started(
        make_rig,
        replace(work(task("stays"), [script("stays", SLEEP)]), plan_class=plan_class),
        preferences=Preferences(cpu_limit=50),
    )
    pid = int(rig.next_message().split()[1])
    for _ in range(3):
        until(lambda: state_of(pid) == "T", story=rig.log)
        until(lambda: state_of(pid) == "S", story=rig.log)


def test_the_hypervisor_is_missing(make_rig: MakeRig, tmp_path: Path, base_image: Path) -> None:
    (tmp_path / "empty").mkdir()
    machine = "<virtualmachine>m</virtualmachine><app_pathVM>/bin/true</app_pathVM>"
    rig = started(
        make_rig,
        work(task("true", machine)),
        environment={
            "PATH": str(tmp_path / "empty"),
            **images(),
        },
    )
    line = rig.wait_for_line("postponed", LIMIT)
    assert "qemu" in line.lower()
    until(lambda: any("apt" in notice for notice in rig.notices()), story=rig.log)
    until(lambda: rig.processes() == [])
