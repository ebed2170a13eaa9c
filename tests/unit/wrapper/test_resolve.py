"""How the names of a task are resolved when it starts; some jobs are hostile."""

import os
from pathlib import Path, PurePosixPath

import pytest

from boincvm.boinc.init_data import InitData
from boincvm.boinc.soft_link import resolve
from boincvm.errors import InputFileError, JobFileError
from boincvm.job.model import GUEST_DIRECTORY, HostTask, InputFile, MachineTask, OutputFile
from boincvm.wrapper.tasks.resolve import JobContext, host_command, physical_task

TASK = HostTask("app")
IN_MACHINE = MachineTask(("app",))
ELSEWHERE = PurePosixPath("out_of_it")


@pytest.fixture
def context(tmp_path: Path) -> JobContext:
    """Make a slot with an app, and a project's directory with a client's file beside it."""
    slot, project = tmp_path / "slots/0", tmp_path / "projects/p"
    for directory in (slot, project):
        directory.mkdir(parents=True)
        (directory / "app").touch()
    (tmp_path / "secret").write_text("secret")
    (slot / "link").write_text("<soft_link>../../projects/p/wu_link</soft_link>\n")
    init_data = InitData(project_directory=str(project), boinc_directory=str(tmp_path))
    return JobContext(
        slot=slot,
        project_directory=project,
        resolve=lambda name: resolve(slot, name, init_data),
        environment={"PATH": "/bin", "LD_LIBRARY_PATH": "."},
        is_for_vmwrapper=False,
    )


def test_the_smallest_task(context: JobContext) -> None:
    command = host_command(TASK, context)
    assert command.argv == ("app",)
    assert command.directory == context.slot
    assert command.environment == {"PATH": "/bin", "LD_LIBRARY_PATH": "."}
    assert set(command[3:]) == {None}


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("boinc_resolve(PROJECT/f)", "P/f"),
        ("boinc_resolve(../../projects/p/f)", "P/f"),
        ("boinc_resolve(SLOT/link)", "P/wu_link"),
        ("boinc_resolve(./link)", "P/wu_link"),
        ("boinc_resolve(boinc_resolve(link))", "P/wu_link"),
        ("--f=boinc_resolve(f_3),x", "--f=f_3,x"),
    ],
)
def test_names_in_any_combination(context: JobContext, text: str, resolved: str) -> None:
    text = text.replace("PROJECT", str(context.project_directory))
    text = text.replace("SLOT", str(context.slot))
    task = TASK._replace(command_line=text, arguments=("boinc_resolve(link)", "$PWD"))
    # As with BOINC's, names are resolved in what is appended, and macros are not replaced there.
    words = (resolved.replace("P", "../../projects/p"), "../../projects/p/wu_link", "$PWD")
    assert host_command(task, context).argv[1:] == words


def test_names_elsewhere(context: JobContext) -> None:
    (context.slot / "d3").mkdir()
    task = TASK._replace(
        application="./$PROJECT_DIR/app", directory=f"{context.slot}/d3", environment={"A": "x"}
    )
    command = host_command(task, context)
    assert command.argv == ("../../../projects/p/app",)
    assert command.directory == context.slot / "d3"
    assert command.environment["A"] == "x"


@pytest.mark.parametrize("name", ["PROJECT/../x", "SLOT/..", "SLOT", "PROJECT/out", "/x"])
def test_what_a_macro_has_made_leads_nowhere_else(context: JobContext, name: str) -> None:
    name = name.replace("PROJECT", str(context.project_directory))
    name = name.replace("SLOT", str(context.slot))
    (context.project_directory / "out").symlink_to("../../secret")
    with pytest.raises((InputFileError, JobFileError)):
        host_command(TASK._replace(command_line=f"boinc_resolve({name})"), context)


def test_all_that_a_task_may_say(context: JobContext) -> None:
    task = TASK._replace(
        application="$PROJECT_DIR/app",
        command_line="boinc_resolve(link) 3 './link' ./link",
        arguments=("--own", "x y"),
        directory=str(context.project_directory),
        environment={"PATH": "/slot", "A": ""},
        stdin=Path("link"),
        stdout=Path("out"),
        stderr=Path("d/err"),
        checkpoint=Path("saved"),
        fraction_done=Path("fraction"),
    )
    command = host_command(task, context)
    physical = context.project_directory / "wu_link"
    words = ("wu_link", "3", "./link", "./link", "--own", "x y")
    assert command.argv == ("app", *words)
    assert command.directory == context.project_directory
    assert command.environment == {"PATH": "/slot", "LD_LIBRARY_PATH": ".", "A": ""}
    files = [context.slot / name for name in ("out", "d/err", "fraction", "saved")]
    assert list(command[3:]) == [physical, *files]
    words = host_command(task, context._replace(is_for_vmwrapper=True)).argv[1:]
    assert words == ("wu_link", "3", "wu_link", "wu_link", "--own", "x y")


@pytest.mark.parametrize(
    ("application", "directory", "argv"),
    [
        ("app", None, ("app", "../../projects/p/wu_link", "d/in")),
        ("$PROJECT_DIR/app", None, ("../../projects/p/app", "../../projects/p/wu_link", "d/in")),
        ("app", "d/e", ("../../app", "../../../../projects/p/wu_link", "../../d/in")),
        ("app", "SLOT/d", ("../app", "../../../projects/p/wu_link", "../d/in")),
        ("app", "PROJECT", ("../../slots/0/app", "wu_link", "../../slots/0/d/in")),
        ("/bin/true", "d", ("/bin/true", "../../../projects/p/wu_link", "../d/in")),
    ],
)
def test_paths_that_a_program_sees_are_relative(
    context: JobContext, application: str, directory: str | None, argv: tuple[str, ...]
) -> None:
    """They are relative to its directory, so that it finds them."""
    (context.slot / "d/e").mkdir(parents=True)
    if directory is not None:
        directory = directory.replace("PROJECT", str(context.project_directory))
        directory = directory.replace("SLOT", str(context.slot))
    task = TASK._replace(
        application=application,
        directory=directory,
        command_line="boinc_resolve(link) boinc_resolve(d/in)",
    )
    command = host_command(task, context)
    assert command.argv == argv
    assert (command.directory / command.argv[0]).is_file()
    found = [os.path.realpath(command.directory / word) for word in command.argv[1:]]
    assert found == [str(context.project_directory / "wu_link"), str(context.slot / "d/in")]


def test_a_projects_directory_that_is_a_link(context: JobContext, tmp_path: Path) -> None:
    """The link's target is not visible."""
    (tmp_path / "projects").rename(tmp_path / "elsewhere")
    (tmp_path / "projects").symlink_to("elsewhere")
    command = host_command(TASK._replace(application="$PROJECT_DIR/app"), context)
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
def test_an_application_that_is_none(context: JobContext, name: str) -> None:
    for directory in (context.slot, context.project_directory):
        (directory / "out_of_it").symlink_to("../..")
    (context.slot / "out_of_it_too").write_text("<soft_link>../../secret</soft_link>\n")
    with pytest.raises((JobFileError, InputFileError)):
        host_command(TASK._replace(application=name), context)


def test_any_program_of_the_host_may_be_started(context: JobContext) -> None:
    """As with BOINC's wrapper: a job's program could start any other anyway."""
    assert host_command(TASK._replace(application="/bin/sh"), context).argv == ("/bin/sh",)


@pytest.mark.parametrize("directory", ["out_of_it", "../../projects", "../..", "/", "../x"])
def test_a_directory_that_leads_out(context: JobContext, directory: str) -> None:
    (context.slot / "out_of_it").symlink_to("..")
    with pytest.raises(JobFileError, match="leads outside the slot and the project's directory"):
        host_command(TASK._replace(directory=directory), context)


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_files_that_lead_out(context: JobContext, stream: str) -> None:
    (context.slot / "out_of_it").symlink_to("../../secret")
    name = {stream: Path(ELSEWHERE)}
    with pytest.raises(InputFileError, match="in neither the slot nor the project's directory"):
        host_command(TASK._replace(**name), context)  # type: ignore[arg-type]
    with pytest.raises(InputFileError, match="in neither the slot nor the project's directory"):
        physical_task(IN_MACHINE._replace(**name), context)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "task",
    [
        IN_MACHINE._replace(inputs=(InputFile(Path(ELSEWHERE), ELSEWHERE),)),
        IN_MACHINE._replace(outputs=(OutputFile(ELSEWHERE, ELSEWHERE),)),
        IN_MACHINE._replace(packages=(Path(ELSEWHERE),)),
    ],
)
def test_what_a_machine_is_given_from_elsewhere(context: JobContext, task: MachineTask) -> None:
    (context.slot / "out_of_it").symlink_to("../../secret")
    with pytest.raises(InputFileError, match="in neither the slot nor the project's directory"):
        physical_task(task, context)


def test_a_task_in_a_machine(context: JobContext) -> None:
    """Names in the guest are not checked here."""
    link, app = PurePosixPath("link"), PurePosixPath("app")
    task = MachineTask(
        argv=("/work/app", "link", "./link"),
        stdout=Path("link"),
        inputs=(InputFile(Path("link"), link), InputFile(Path("$PROJECT_DIR/app"), app)),
        outputs=(OutputFile(PurePosixPath("d/o"), PurePosixPath("d/o")),),
        packages=(Path("link"),),
    )
    physical = context.project_directory / "wu_link"
    assert physical_task(task, context._replace(is_for_vmwrapper=True)) == task._replace(
        stdout=physical,
        inputs=(InputFile(physical, link), InputFile(context.project_directory / "app", app)),
        outputs=(OutputFile(PurePosixPath("d/o"), PurePosixPath(context.slot / "d/o")),),
        packages=(physical,),
    )


def test_an_output_is_no_file_of_the_app_version(context: JobContext) -> None:
    signed = context._replace(app_files=frozenset([context.project_directory / "wu_link"]))
    with pytest.raises(JobFileError, match="link is a file of the app version"):
        physical_task(IN_MACHINE._replace(stdout=Path("link")), signed)


def test_an_application_is_copied_to_nowhere_but_the_work(context: JobContext) -> None:
    location = InputFile(Path("app"), PurePosixPath("/etc/app"))
    with pytest.raises(
        JobFileError,
        match=f"copied to /etc/app: in the guest, files are placed in {GUEST_DIRECTORY}",
    ):
        physical_task(IN_MACHINE._replace(inputs=(location,)), context)
