"""job.xml: single elements, what is refused, and anything else that a file may contain."""

import re
from pathlib import Path, PurePosixPath
from time import process_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm.errors import JobFileError
from boincvm.exit_codes import ExitCode
from boincvm.job import job_xml
from boincvm.job.boinc_settings import BoincSettings
from boincvm.job.job_xml import MOST_TASKS, Expansion, read_job_xml
from boincvm.job.macros import Macros
from boincvm.job.model import (
    GUEST_DIRECTORY,
    MIB,
    CheckpointNeed,
    DriverRequest,
    HostTask,
    InputFile,
    Job,
    MachineShape,
    MachineTask,
    OutputFile,
    Task,
)
from boincvm.job.wrapper_arguments import WrapperArguments
from boincvm.job.xml_fields import MOST_IGNORED

MESSAGE = re.compile(r"job\.xml:(\d+): found [^\n]+, expected [^\n]+")
DOCS = Path(__file__).parents[3] / "docs" / "job-xml.md"


GIVEN = Expansion(
    Macros("/projects/p", 3, "/slots/0"),
    WrapperArguments(threads=3, memory=700 * MIB, child_arguments=("--own", "$PWD x")),
)


def read(text: str) -> Job[Task]:
    return read_job_xml(text.encode(), "job.xml")[0]


def settings_of(text: str) -> BoincSettings:
    return read_job_xml(text.encode(), "job.xml")[1]


def read_task(elements: str) -> HostTask:
    (task,) = read(
        f"<job_desc><task><application>a</application>{elements}</task></job_desc>"
    ).tasks
    assert isinstance(task, HostTask)
    return task


def read_in_machine(
    elements: str, expansion: Expansion = GIVEN
) -> tuple[MachineTask, MachineShape]:
    """Return a task in a machine, and the machine."""
    text = f"<job_desc><task><virtualmachine>v</virtualmachine>{elements}</task></job_desc>"
    job, _ = read_job_xml(text.encode(), "job.xml", Path("/slots/0"), expansion)
    (task,) = job.tasks
    assert isinstance(task, MachineTask)
    return task, job.machines[task.machine]


def refused(text: str | bytes) -> str:
    """Return the message of the JobFileError."""
    with pytest.raises(JobFileError) as caught:
        read_job_xml(text.encode() if isinstance(text, str) else text, "job.xml")
    assert MESSAGE.fullmatch(caught.value.message)
    assert caught.value.exit_code is ExitCode.JOB_FILE
    assert "boincvm help job-xml" in caught.value.hint
    return caught.value.message


def refused_task(elements: str) -> str:
    """Return the message for a task on line 1 with `elements` on line 2."""
    return refused(
        f"<job_desc><task><application>a</application>\n{elements}</task></job_desc>"
    ).removeprefix("job.xml:2: ")


TASK = "<task><application>a</application></task>"
IN_MACHINE = "<task><virtualmachine>v</virtualmachine><application>a</application>"
FILE_ELEMENTS = ["stdin_filename", "stdout_filename", "stderr_filename", "checkpoint_filename",
                 "fraction_done_filename"]  # fmt: skip
FILE_FIELDS = ["stdin", "stdout", "stderr", "checkpoint", "fraction_done"]
MACHINE_FILES = ["image", "copy_file_to_VM", "copy_file_from_VM", "install"]
LEAVING = ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "a//b", "a/", "/", ".", "a/.",
           r"..\x", r"a\..\b", r"\x", r"\\host\share", r"C:\x", "c:x", "x" * 5000, "...", "in:1",
           "NUL"]  # fmt: skip
STAYING = ["a", "./a", "a/b.c", "a/./b", ".hidden", "a..b", "a b", r"a\b", "é"]


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("element", FILE_ELEMENTS)
def test_a_file_name_that_leaves_the_slot(element, name):
    assert refused_task(f"<{element}>{name}</{element}>").startswith(f"found <{element}> ")


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("element", MACHINE_FILES)
def test_a_machines_file_name_that_leaves_the_slot(element, name):
    text = f"<virtualmachine>v</virtualmachine><{element}>{name}</{element}>"
    assert refused_task(text).startswith(f"found <{element}> ")


@pytest.mark.parametrize("name", LEAVING)
def test_an_archives_name_that_leaves_the_slot(name):
    zip_file = f"\n<zipfilename>{name}</zipfilename>"
    for element in ("unzip_input", "zip_output"):
        text = f"<task><application>a</application></task><{element}>{zip_file}</{element}>"
        assert refused(f"<job_desc>{text}</job_desc>").startswith("job.xml:2: found <zipfilename>")


@pytest.mark.parametrize("name", STAYING)
def test_a_file_name_that_stays(name):
    tasks = [read_task(f"<{element}>{name}</{element}>") for element in FILE_ELEMENTS]
    found = [getattr(task, field) for task, field in zip(tasks, FILE_FIELDS, strict=True)]
    assert found == [Path(name)] * len(FILE_FIELDS)
    files = "".join(f"<{element}>{name}</{element}>" for element in MACHINE_FILES)
    task, machine = read_in_machine(f"<application>a</application>{files}")
    assert machine.image == name
    assert task.inputs == (InputFile(Path(name), PurePosixPath(name)),)
    assert task.outputs == (OutputFile(PurePosixPath(name), PurePosixPath(name)),)
    assert task.packages == (Path(name),)


@pytest.mark.parametrize("name", ["/bin/sh", "../x", "a/"])
def test_an_application_that_is_copied_is_a_file_of_the_slot(name):
    text = (
        "<virtualmachine>v</virtualmachine>\n"
        f"<application>{name}</application><copy_app_to_VM>1</copy_app_to_VM>"
    )
    assert refused(f"<job_desc><task>{text}</task></job_desc>").startswith(
        f"job.xml:2: found <application> '{name}', expected the name of a file in the slot"
    )


@pytest.mark.parametrize(
    "name", ["work", "work/", "a//b", "$PROJECT_DIR/x", "$PWD", "$PWD/a", r"a\b", "."]
)
def test_a_working_directory(name):
    assert read_task(f"<exec_dir>{name}</exec_dir>").directory == name


@pytest.mark.parametrize("name", ["/tmp", "..", "$PROJECT_DIR/../x", r"C:\x", r"\x", "a/.."])
def test_a_working_directory_that_leads_away(name):
    assert refused_task(f"<exec_dir>{name}</exec_dir>").startswith("found <exec_dir>")
    text = f"<application>a</application><exec_dir>{name}</exec_dir>"
    expected = PurePosixPath(name.replace("$PROJECT_DIR", "/work"))
    assert read_in_machine(text)[0].directory == expected


@pytest.mark.parametrize(
    ("elements", "found"),
    [
        ("<memory_mb>512</memory_mb>", "found <memory_mb>, expected <virtualmachine>"),
        ("<network/>", "found <network>, expected <virtualmachine>"),
        ("<install>a.deb</install>", "found <install>, expected <virtualmachine>"),
        ("<command_line>a <b>c</b></command_line>", "found the element 'b' in <command_line>"),
        ("<weight><x/></weight>", "found the element 'x' in <weight>"),
        ("<command_line>&#0;</command_line>", "found the entity '&#0;'"),
    ],
)
def test_a_fault_in_a_task_of_the_host(elements, found):
    assert refused_task(elements).startswith(found)


@pytest.mark.parametrize(
    ("elements", "found"),
    [
        ("<memory_mb>512M</memory_mb>", "found <memory_mb> '512M', expected a whole number from"),
        ("<memory_mb>63</memory_mb>", "found <memory_mb> '63'"),
        ("<memory_mb>1048577</memory_mb>", "found <memory_mb> '1048577'"),
        ("<memory_mb>512.5</memory_mb>", "found <memory_mb> '512.5'"),
        ("<memory_mb>٥١٢</memory_mb>", "found <memory_mb> '٥١٢'"),
        ("<memory_mb/>", "found <memory_mb> ''"),
        ("<disk_mb>-1</disk_mb>", "found <disk_mb> '-1'"),
        ("<disk_mb>99999999</disk_mb>", "found <disk_mb> '99999999'"),
        ("<cpus>0</cpus>", "found <cpus> '0', expected a whole number from 1 to 256"),
        ("<cpus>257</cpus>", "found <cpus> '257'"),
        ("<network>true</network>", "found <network> 'true', expected <network/>, 1 or 0"),
        ("<network></network>", "found <network> ''"),
        ("<copy_app_to_VM>yes</copy_app_to_VM>", "found <copy_app_to_VM> 'yes'"),
        ("<virtualmachine></virtualmachine>", "found <virtualmachine> '', expected a name"),
        ("<virtualmachine>..</virtualmachine>", "found <virtualmachine> '..'"),
        ("<virtualmachine>a/b</virtualmachine>", "found <virtualmachine> 'a/b'"),
        (r"<virtualmachine>a\b</virtualmachine>", r"found <virtualmachine> 'a\\b'"),
        ("<virtualmachine>a\nb</virtualmachine>", r"found <virtualmachine> 'a\nb'"),
        ("<virtualmachine>" + "v" * 129 + "</virtualmachine>", "found <virtualmachine> 'vvv"),
    ],
)  # fmt: skip
def test_a_fault_in_a_task_with_a_machine(elements, found):
    text = f"<virtualmachine>v</virtualmachine>{elements}"
    assert refused_task(text).startswith(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: found no element, expected one"),
        ("<job>\n</job>", "1: found the element 'job', expected <job_desc>"),
        ("<JOB_DESC/>", "1: found the element 'JOB_DESC', expected <job_desc>"),
        ("<vbox_job/>", "1: found the element 'vbox_job', expected <job_desc>"),
        ("{}", "1: found the text '{}', expected an element first"),
        ("<job_desc/>", "1: found no task, expected at least one <task>"),
        ("\n<job_desc></job_desc>", "2: found no task, expected at least one <task>"),
        ("<job_desc>\n<task>", "2: found '<task>' without its end"),
        ("<job_desc>\n<task/></job_desc>", "2: found a task without an application"),
        ("<job_desc>\n<task>\n<application/></task></job_desc>", "2: found a task without an"),
        ("<job_desc><task>\n<application>a</aplication></task></job_desc>",
         "2: found '<application>' without its end"),
        ("<job_desc><task><daemon/><application>a</application></task></job_desc>",
         "1: found daemons only, expected at least one <task>"),
        ("<job_desc><task>\n<virtualmachine>v</virtualmachine></task></job_desc>",
         "1: found a task without an application"),
        ("<job_desc><task><virtualmachine>v</virtualmachine><application>a</application><daemon/>",
         "1: found '<task>' without its end"),
        (f"<job_desc>{IN_MACHINE}<daemon/></task></job_desc>",
         "1: found a daemon in a virtual machine"),
        (f"<job_desc>\n<unzip_task>\n<virtualmachine>v</virtualmachine></unzip_task>{TASK}</job_desc>",
         "3: found <virtualmachine>, expected none: a <unzip_task> runs on the host"),
        (f"<job_desc>\n<VMmanage_task>\n<cpus>2</cpus></VMmanage_task>{TASK}</job_desc>",
         "3: found <cpus>, expected <virtualmachine> in the same task"),
        (f"<job_desc>\n<cpu_time>cpu</cpu_time>{TASK}</job_desc>",
         "2: found <cpu_time> 'cpu', expected guest, host or wall"),
        ("<!DOCTYPE job_desc [<!ENTITY a 'b'>]>\n<job_desc/>", "1: found \"<!DOCTYPE job_desc ["),
        ("<job_desc>" + "<task/>" * (MOST_TASKS + 1) + "</job_desc>", "1: found 1001 tasks"),
    ],
)  # fmt: skip
def test_a_fault_of_the_whole(text, message):
    assert refused(text).startswith(f"job.xml:{message}")


@pytest.mark.parametrize("scale", ["", "0", "-1", "1e7", "inf", "nan", "2x", "0x2", "1e999"])
def test_a_scale_that_is_none(scale):
    text = f"<job_desc><cpu_time_scale>\n{scale}</cpu_time_scale>{TASK}</job_desc>"
    assert refused(text).startswith("job.xml:1: found <cpu_time_scale>")


@pytest.mark.parametrize(
    "pattern",
    ["(", "[", "*", "a{9999999999}", "[[:a:]]", "a(?i)b", "(?L)a", "(?<x", "(" * 300,
     "a" * 256, "[z-\na]"],
)  # fmt: skip
def test_a_pattern_that_is_none(pattern):
    text = f"<zip_output><zipfilename>z</zipfilename>\n<filename>{pattern.replace('<', '&lt;')}"
    text += "</filename></zip_output>"
    assert refused(f"<job_desc>{text}{TASK}</job_desc>").startswith("job.xml:2: found <filename>")


def test_an_archive_without_a_name_is_none():
    text = (
        "<zip_output><filename>x</filename></zip_output><task><application>a</application></task>"
    )
    assert settings_of(f"<job_desc>{text}</job_desc>").zip_output is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("<image>a</image>", "<image>b</image>", "what line 2 says: 'a'"),
        ("<memory_mb>512</memory_mb>", "<memory_mb>513</memory_mb>", "what line 2 says: '512'"),
        ("<cpus>2</cpus>", "<cpus>1</cpus>", "what line 2 says: '2'"),
        ("", "<disk_mb>512</disk_mb>", "what line 1 says: no <disk_mb>"),
        ("", "<network/>", "what line 1 says: no <network>"),
        ("<network/>", "<network>0</network>", "what line 2 says: ''"),
        ("", "<image>sci</image>", "what line 1 says: no <image>"),
        ("", "<driver>uml</driver>", "what line 1 says: no <driver>"),
        (
            "<checkpoint>none</checkpoint>",
            "<checkpoint>wanted</checkpoint>",
            "what line 2 says: 'none'",
        ),
    ],
)
def test_a_machine_described_twice_and_differently(first, second, expected):
    text = f"<job_desc>{IN_MACHINE}\n{first}</task>\n{IN_MACHINE}\n{second}</task></job_desc>"
    element = second[1:].split(">")[0].rstrip("/")
    message = refused(text)
    assert message.startswith(f"job.xml:4: found <{element}> ")
    assert message.endswith(f" for the machine 'v', expected {expected}")


def test_what_a_machine_asks_of_its_driver():
    asked = "<checkpoint>required</checkpoint><driver>uml</driver>"
    job = read(f"<job_desc>{IN_MACHINE}{asked}</task>{IN_MACHINE}</task></job_desc>")
    assert job.driver_request("v") == DriverRequest("uml", CheckpointNeed.REQUIRED)
    job = read(f"<job_desc>{IN_MACHINE}</task></job_desc>")
    assert job.driver_request("v") == DriverRequest(None, CheckpointNeed.WANTED)


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ("<checkpoint/>", "'required', 'wanted' or 'none'"),
        ("<checkpoint>Required</checkpoint>", "'required', 'wanted' or 'none'"),
        ("<driver>../x</driver>", "the name of a driver, like 'qemu'"),
        ("<driver></driver>", "the name of a driver, like 'qemu'"),
    ],
)
def test_what_no_driver_can_be_asked(element, expected):
    message = refused(f"<job_desc>{IN_MACHINE}{element}</task></job_desc>")
    assert expected in message


@pytest.mark.parametrize("second", ["", "<image>base</image>", "<network>0</network>"])
def test_a_machine_described_twice_and_alike(second):
    both = f"{IN_MACHINE}<cpus>3</cpus></task>{IN_MACHINE}{second}</task>"
    job = read(f"<job_desc>{both}</job_desc>")
    assert len(job.tasks) == 2
    assert job.machines == {"v": MachineShape(cpus=3)}


@pytest.mark.parametrize(
    ("beside", "is_for_vmwrapper"),
    [
        ("", False),
        (f"{IN_MACHINE}</task>", True),
        ("<unzip_task><application>u</application></unzip_task>", True),
        ("<VMmanage_task><application>m</application></VMmanage_task>", True),
    ],
)
def test_a_job_of_vmwrapper_appends_arguments_unasked(beside, is_for_vmwrapper):
    daemon = "<task><application>d</application><daemon/></task>"
    reported = (
        "<task><application>c</application><append_cmdline_args>0</append_cmdline_args></task>"
    )
    text = f"<job_desc>{TASK}{reported}{daemon}{beside}</job_desc>"
    job, settings = read_job_xml(text.encode(), "job.xml", Path(), GIVEN)
    assert settings.is_for_vmwrapper == is_for_vmwrapper
    host_tasks = [task for task in job.tasks if isinstance(task, HostTask)]
    own = GIVEN.arguments.child_arguments
    assert [task.arguments for task in host_tasks] == [own if is_for_vmwrapper else (), ()]
    others = (*settings.daemons, *settings.unzip_tasks, *settings.machine_managers)
    assert not any(task.arguments for task in others)
    machine_tasks = [task for task in job.tasks if isinstance(task, MachineTask)]
    assert all(task.argv == ("a", *own) for task in machine_tasks)


def test_what_is_expanded_in_a_task_of_the_host():
    """File names are not expanded: they are resolved when the task starts."""
    text = (
        "<command_line>$NTHREADS boinc_resolve($PWD/in) $GPU_DEVICE_NUM</command_line>"
        "<exec_dir>$PWD/d$NTHREADS</exec_dir><setenv>A$NTHREADS=$PROJECT_DIR:$PWD</setenv>"
        "<append_cmdline_args/>"
    )
    job = f"<job_desc><task><application>$PROJECT_DIR/a</application>{text}</task></job_desc>"
    (task,) = read_job_xml(job.encode(), "job.xml", Path("/slots/0"), GIVEN)[0].tasks
    assert task == HostTask(
        application="$PROJECT_DIR/a",
        command_line="3 boinc_resolve(/slots/0/in) $GPU_DEVICE_NUM",
        arguments=("--own", "$PWD x"),
        directory="/slots/0/d3",
        environment={"A3": "/projects/p:/slots/0"},
    )


def test_what_is_expanded_in_a_task_in_a_machine():
    """There the files have their logical names, and nothing about the host is known."""
    task, machine = read_in_machine(
        "<application>a</application><copy_app_to_VM/><copy_file_to_VM>in</copy_file_to_VM>"
        "<command_line>boinc_resolve(in) $PROJECT_DIR $PWD $NTHREADS $GPU_DEVICE_NUM ./in"
        "</command_line><exec_dir>inside</exec_dir><setenv>A=$PWD</setenv><cpus>2</cpus>"
        "<fraction_done_filename>inside/done</fraction_done_filename>"
    )
    words = ("in", "/work", "/work", "2", "$GPU_DEVICE_NUM", "./in", "--own", "$PWD x")
    assert task.argv == ("/work/a", *words)
    assert task.name == "a"
    assert task.directory == PurePosixPath("inside")
    assert task.environment == {"A": "/work"}
    assert task.inputs == (
        InputFile(Path("in"), PurePosixPath("in")),
        InputFile(Path("a"), PurePosixPath("a")),
    )
    assert task.fraction_done == PurePosixPath("done")
    assert machine.cpus == 2


@pytest.mark.parametrize(
    ("name", "directory", "watched"),
    [
        ("done", None, "done"),
        ("d/done", "d", "done"),
        ("d/done", "/work", "d/done"),
        ("done", "d", None),
        ("d", "d", None),
        ("done", "/srv", None),
    ],
)
def test_a_file_that_is_watched_in_a_machine(name, directory, watched):
    text = f"<application>a</application><fraction_done_filename>{name}</fraction_done_filename>"
    if directory:
        text += f"<exec_dir>{directory}</exec_dir>"
    task = f"<task><virtualmachine>v</virtualmachine>{text}</task>"
    job, settings = read_job_xml(f"<job_desc>{task}</job_desc>".encode(), "job.xml")
    assert isinstance(job.tasks[0], MachineTask)
    assert job.tasks[0].fraction_done == (watched and PurePosixPath(watched))
    assert len(settings.ignored) == (watched is None)


@pytest.mark.parametrize(
    ("path", "copied", "program"),
    [
        (None, False, "a"),
        ("/usr/bin/", False, "/usr/bin/a"),
        ("/usr/bin/other", False, "/usr/bin/other"),
        ("bin/", True, f"{GUEST_DIRECTORY}/bin/a"),
        (f"{GUEST_DIRECTORY}/other", True, f"{GUEST_DIRECTORY}/other"),
    ],
)
def test_where_the_application_is_in_a_machine(path, copied, program):
    text = f"<application>a</application><copy_app_to_VM>{copied:d}</copy_app_to_VM>"
    if path:
        text += f"<app_pathVM>{path}</app_pathVM>"
    task, _ = read_in_machine(text, Expansion())
    assert task.argv == (program,)


def test_an_application_that_is_copied_has_a_name():
    text = "<virtualmachine>v</virtualmachine><copy_app_to_VM/><app_pathVM>x</app_pathVM>"
    assert "a task without an application" in refused(f"<job_desc><task>{text}</task></job_desc>")


def test_the_machine():
    application = "<application>a</application>"
    _, machine = read_in_machine(application, Expansion())
    assert machine == MachineShape()
    _, machine = read_in_machine(application)
    assert (machine.memory, machine.cpus) == (700 * MIB, 3)
    own = "<memory_mb>64</memory_mb><cpus>1</cpus><disk_mb>64</disk_mb><network/><image>sci</image>"
    _, machine = read_in_machine(application + own)
    assert machine == MachineShape("sci", 64 * MIB, 1, 64 * MIB, network=True)


@pytest.mark.parametrize("text", ["FOO", "=x", "="])
def test_a_variable_that_is_none_has_no_effect(text):
    job, settings = read_job_xml(
        f"<job_desc><task><application>a</application><setenv>{text}</setenv></task></job_desc>".encode(),
        "job.xml",
    )
    assert job.tasks[0].environment == {}
    assert settings.ignored == (f"job.xml:1: <setenv> {text!r} has no effect, expected NAME=VALUE",)


def test_remarks_are_not_endless():
    settings = settings_of(f"<job_desc>{'<x/>' * 1000}{TASK}</job_desc>")
    assert len(settings.ignored) == MOST_IGNORED


def test_a_files_name_stays_on_one_line():
    with pytest.raises(JobFileError, match=r"^'a\\nb':1: found no element, expected one$"):
        read_job_xml(b"", "a\nb")


def test_weights_add_up_to_a_number():
    task = "<task><application>a</application><weight>1e100</weight></task>"
    job = read(f"<job_desc>{task * MOST_TASKS}</job_desc>")
    assert sum(task.weight for task in job.tasks) == pytest.approx(1e103)


def test_the_manuals_examples():
    examples = re.findall(r"```xml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    settings = [settings_of(example) for example in examples]
    assert len(settings) >= 3
    assert all(not one.ignored for one in settings)


def test_the_manual_has_every_element():
    manual = DOCS.read_text()
    names = {*job_xml._JOB, *job_xml._TASK, "zipfilename", "filename"}
    assert [name for name in sorted(names) if f"`{name}`" not in manual] == []


CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.xml"))
PIECES = st.sampled_from(
    [b"<task>", b"</task>", b"<job_desc>", b"</job_desc>", b"<virtualmachine>v</virtualmachine>",
     b"<network/>", b"<cpus>9</cpus>", b"<", b">", b"/", b"&", b"&#", b";", b"&x;", b"<!--", b"-->",
     b"<![CDATA[", b"]]>", b"<!DOCTYPE a [", b"..", b"/", b"\0", b"\xff", b"\n", b"-1", b"1e999",
     b"<daemon/>", b"<filename>(</filename>", b"0" * 5000, b"<a>" * 40]
)  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """Yield a file of the corpus with a few places cut out, doubled or overwritten."""
    content = draw(st.sampled_from(CORPUS)).read_bytes()
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(0, 60)))
        middle = draw(st.one_of(PIECES, st.just(content[begin:end] * 2), st.binary(max_size=4)))
        content = content[:begin] + middle + content[end:]
    return content


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(mutations(), st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_a_job_or_a_job_file_error_with_a_line(content):
    for _ in range(3):
        start = process_time()
        try:
            read_job_xml(content, "job.xml")
            line, message = 1, ""
        except JobFileError as error:
            message = error.message
            match = MESSAGE.fullmatch(message)
            line = int(match[1]) if match else 0
        # A host that is itself a virtual machine may be held up, and not know it: once, not twice.
        if process_time() - start < 1:
            break
    else:
        pytest.fail("it takes long")
    assert 1 <= line <= content.count(b"\n") + 1
    assert len(message) < 600
