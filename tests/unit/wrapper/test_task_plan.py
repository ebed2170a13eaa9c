"""From a task of a job.xml to the command that is started; some jobs mean no good."""

import os
from functools import partial
from pathlib import Path, PurePosixPath

import pytest

from boincvm.boinc.init_data import InitData
from boincvm.boinc.soft_link import resolve
from boincvm.errors import InputFileError, JobFileError
from boincvm.job.boinc_job import MachineUse, TaskDescription
from boincvm.job.macros import Macros
from boincvm.job.model import MIB, InputFile, OutputFile
from boincvm.wrapper.task_plan import (
    DEFAULT_MEMORY,
    WORK,
    Surroundings,
    host_command,
    machine_command,
    machine_shape,
)

TASK = TaskDescription("app", line=1)
USE = MachineUse("vm")


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    """A slot with an app, and a project's directory, beside which there is a client's file."""
    slot, project = tmp_path / "slots/0", tmp_path / "projects/p"
    for directory in (slot, project):
        directory.mkdir(parents=True)
        (directory / "app").touch()
    (tmp_path / "secret").write_text("secret")
    (slot / "link").write_text("<soft_link>../../projects/p/wu_link</soft_link>\n")
    init_data = InitData(project_directory=str(project), boinc_directory=str(tmp_path))
    return Surroundings(
        slot=slot,
        project_directory=project,
        resolve=lambda name: resolve(slot, name, init_data),
        macros=Macros(str(project), 3, str(slot)),
        arguments=("--own", "x y"),
        environment={"PATH": "/bin", "LD_LIBRARY_PATH": "."},
        is_for_vmwrapper=False,
    )


def test_the_smallest_task(around: Surroundings) -> None:
    command = host_command(TASK, around)
    assert command.argv == ("app",)
    assert command.directory == around.slot
    assert command.environment == {"PATH": "/bin", "LD_LIBRARY_PATH": "."}
    assert set(command[3:]) == {None}


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("boinc_resolve($PROJECT_DIR/f)", "P/f"),
        ("boinc_resolve(../../projects/p/f)", "P/f"),
        ("boinc_resolve($PWD/link)", "P/wu_link"),
        ("boinc_resolve(./link)", "P/wu_link"),
        ("boinc_resolve(boinc_resolve(link))", "P/wu_link"),
        ("--f=boinc_resolve(f_$NTHREADS),$PWD$PWD", "--f=f_3,SS"),
    ],
)
def test_macros_in_any_combination(around: Surroundings, text: str, resolved: str) -> None:
    resolved = resolved.replace("P", "../../projects/p").replace("S", str(around.slot))
    own = around._replace(arguments=("boinc_resolve(link)", "$PWD"))
    task = TASK._replace(command_line=text, append_command_line=True)
    # As with BOINC's, names are resolved in what is appended, and macros are not replaced there.
    assert host_command(task, own).argv[1:] == (resolved, "../../projects/p/wu_link", "$PWD")


def test_macros_elsewhere(around: Surroundings) -> None:
    (around.slot / "d3").mkdir()
    task = TASK._replace(
        application="./$PROJECT_DIR/app",
        exec_dir="$PWD/d$NTHREADS",
        environment=(("A$NTHREADS", "$PROJECT_DIR:$PWD"),),
    )
    command = host_command(task, around)
    assert command.argv == ("../../../projects/p/app",)
    assert command.directory == around.slot / "d3"
    assert command.environment["A3"] == f"{around.project_directory}:{around.slot}"


@pytest.mark.parametrize("name", ["$PROJECT_DIR/../x", "$PWD/..", "$PWD", "$PROJECT_DIR/out", "/x"])
def test_what_a_macro_makes_leads_nowhere_else(around: Surroundings, name: str) -> None:
    (around.project_directory / "out").symlink_to("../../secret")
    with pytest.raises((InputFileError, JobFileError)):
        host_command(TASK._replace(command_line=f"boinc_resolve({name})"), around)


def test_all_that_a_task_may_say(around: Surroundings) -> None:
    task = TASK._replace(
        application="$PROJECT_DIR/app",
        command_line="boinc_resolve(link) $NTHREADS './link' ./link",
        exec_dir="$PROJECT_DIR",
        environment=(("PATH", "$PWD"), ("A", "")),
        append_command_line=True,
        stdin_filename="link",
        stdout_filename="out",
        stderr_filename="d/err",
        checkpoint_filename="saved",
        fraction_done_filename="fraction",
    )
    command = host_command(task, around)
    physical = around.project_directory / "wu_link"
    words = ("wu_link", "3", "./link", "./link", "--own", "x y")
    assert command.argv == ("app", *words)
    assert command.directory == around.project_directory
    assert command.environment == {"PATH": str(around.slot), "LD_LIBRARY_PATH": ".", "A": ""}
    files = [around.slot / name for name in ("out", "d/err", "fraction", "saved")]
    assert list(command[3:]) == [physical, *files]
    words = host_command(task, around._replace(is_for_vmwrapper=True)).argv[1:]
    assert words == ("wu_link", "3", "wu_link", "wu_link", "--own", "x y")


@pytest.mark.parametrize(
    ("application", "exec_dir", "argv"),
    [
        ("app", None, ("app", "../../projects/p/wu_link", "d/in")),
        ("$PROJECT_DIR/app", None, ("../../projects/p/app", "../../projects/p/wu_link", "d/in")),
        ("app", "d/e", ("../../app", "../../../../projects/p/wu_link", "../../d/in")),
        ("app", "$PWD/d", ("../app", "../../../projects/p/wu_link", "../d/in")),
        ("app", "$PROJECT_DIR", ("../../slots/0/app", "wu_link", "../../slots/0/d/in")),
        ("/bin/true", "d", ("/bin/true", "../../../projects/p/wu_link", "../d/in")),
    ],
)
def test_paths_that_a_program_sees_are_relative(
    around: Surroundings, application: str, exec_dir: str | None, argv: tuple[str, ...]
) -> None:
    """From where it starts, so that it finds them."""
    (around.slot / "d/e").mkdir(parents=True)
    task = TASK._replace(
        application=application,
        exec_dir=exec_dir,
        command_line="boinc_resolve(link) boinc_resolve(d/in)",
    )
    command = host_command(task, around)
    assert command.argv == argv
    assert (command.directory / command.argv[0]).is_file()
    found = [os.path.realpath(command.directory / word) for word in command.argv[1:]]
    assert found == [str(around.project_directory / "wu_link"), str(around.slot / "d/in")]


def test_a_projects_directory_that_is_a_link(around: Surroundings, tmp_path: Path) -> None:
    """Where it leads is not to be seen."""
    (tmp_path / "projects").rename(tmp_path / "elsewhere")
    (tmp_path / "projects").symlink_to("elsewhere")
    command = host_command(TASK._replace(application="$PROJECT_DIR/app"), around)
    assert command.argv == ("../../projects/p/app",)


@pytest.mark.parametrize(
    "name",
    [
        "../0/app",
        "./../0/app",
        "/bin/../bin/sh",
        "$PROJECT_DIR/../p/app",
        "..",
        "$PROJECT_DIR/out_of_it/secret",
        "out_of_it/secret",
        "out_of_it_too",
        "",
        ".",
        "missing",
        "$PROJECT_DIR",
        "/",
        "/" + "x" * 300,
        "x" * 300,
        "a\0b",
        "\udcff\ud800",
    ],
)
def test_an_application_that_is_none(around: Surroundings, name: str) -> None:
    for directory in (around.slot, around.project_directory):
        (directory / "out_of_it").symlink_to("../..")
    (around.slot / "out_of_it_too").write_text("<soft_link>../../secret</soft_link>\n")
    with pytest.raises((JobFileError, InputFileError)):
        host_command(TASK._replace(application=name), around)


def test_any_program_of_the_host_may_be_started(around: Surroundings) -> None:
    """As with BOINC's wrapper: what the job starts can start any other anyway."""
    assert host_command(TASK._replace(application="/bin/sh"), around).argv == ("/bin/sh",)


@pytest.mark.parametrize("directory", ["out_of_it", "$PROJECT_DIR/..", "../..", "/", "$PWD/../x"])
def test_a_directory_that_leads_out(around: Surroundings, directory: str) -> None:
    (around.slot / "out_of_it").symlink_to("..")
    with pytest.raises(JobFileError, match="leads out of the slot and of the project's directory"):
        host_command(TASK._replace(exec_dir=directory), around)


@pytest.mark.parametrize("plan", ["host", "machine"])
@pytest.mark.parametrize(
    "element",
    ["stdin_filename", "stdout_filename", "stderr_filename"],
)
def test_files_that_lead_out(around: Surroundings, plan: str, element: str) -> None:
    (around.slot / "out_of_it").symlink_to("../../secret")
    task = TASK._replace(**{element: "out_of_it"})  # type: ignore[arg-type]
    make = host_command if plan == "host" else partial(machine_command, use=USE)
    with pytest.raises(InputFileError, match="in neither the slot nor the project's directory"):
        make(task, around=around)


@pytest.mark.parametrize(
    "use",
    [
        USE._replace(copy_in=("out_of_it",)),
        USE._replace(copy_out=("out_of_it",)),
        USE._replace(packages=("out_of_it",)),
    ],
)
def test_what_a_machine_is_given_from_elsewhere(around: Surroundings, use: MachineUse) -> None:
    (around.slot / "out_of_it").symlink_to("../../secret")
    with pytest.raises(InputFileError, match="in neither the slot nor the project's directory"):
        machine_command(TASK, use, around)


def test_a_task_in_a_machine(around: Surroundings) -> None:
    """There the files have their logical names, and nothing of the host's is known."""
    task = TASK._replace(
        command_line="boinc_resolve(link) $PROJECT_DIR $PWD $NTHREADS $GPU_DEVICE_NUM ./link",
        environment=(("A", "$PWD"),),
        append_command_line=True,
        stdout_filename="link",
        fraction_done_filename="fraction",
        exec_dir="inside",
    )
    use = USE._replace(copy_application=True, copy_in=("link",), copy_out=("d/o",), cpus=2)
    command = machine_command(task, use, around._replace(is_for_vmwrapper=True))
    words = ("link", "/work", "/work", "2", "$GPU_DEVICE_NUM", "./link", "--own", "x y")
    assert command.argv == (f"{WORK}/app", *words)
    assert command.directory == PurePosixPath(f"{WORK}/inside")
    assert command.environment == {"A": "/work"}
    physical = around.project_directory / "wu_link"
    assert command.stdout == physical
    assert command.fraction_done == PurePosixPath(f"{WORK}/fraction")
    assert command.inputs == (
        InputFile(physical, PurePosixPath("link")),
        InputFile(around.slot / "app", PurePosixPath("app")),
    )
    output = OutputFile(PurePosixPath("d/o"), PurePosixPath(around.slot / "d/o"))
    assert command.outputs == (output,)


@pytest.mark.parametrize(
    ("path", "copied", "program"),
    [
        (None, False, "app"),
        ("/usr/bin/", False, "/usr/bin/app"),
        ("/usr/bin/other", False, "/usr/bin/other"),
        ("bin/", True, f"{WORK}/bin/app"),
        (f"{WORK}/other", True, f"{WORK}/other"),
    ],
)
def test_where_the_application_is_in_a_machine(
    around: Surroundings, path: str | None, copied: bool, program: str
) -> None:
    use = USE._replace(application_path=path, copy_application=copied)
    assert machine_command(TASK, use, around).argv == (program,)


def test_an_application_is_copied_to_nowhere_but_the_work(around: Surroundings) -> None:
    use = USE._replace(application_path="/etc/", copy_application=True)
    with pytest.raises(JobFileError, match="cannot be copied to /etc/app"):
        machine_command(TASK, use, around)


def test_the_machine(around: Surroundings) -> None:
    shape = machine_shape(USE, around)
    assert (shape.memory, shape.cpus) == (DEFAULT_MEMORY, 3)
    assert machine_shape(USE, around._replace(memory=700 * MIB)).memory == 700 * MIB
    own = USE._replace(memory=64 * MIB, cpus=1, disk=MIB, network=True, image="sci")
    shape = machine_shape(own, around._replace(memory=700 * MIB))
    assert (shape.image, shape.memory, shape.cpus) == ("sci", 64 * MIB, 1)
    assert (shape.disk, shape.network) == (MIB, True)
