"""job.xml as project administrators write it: each file of the corpus, and what it means."""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

from boincvm.job.boinc_settings import BoincSettings, CpuTimeSource, ZipOutput
from boincvm.job.job_xml import Expansion, read_job_xml
from boincvm.job.model import (
    GIB,
    HostTask,
    InputFile,
    Job,
    MachineShape,
    MachineTask,
    OutputFile,
    Task,
)
from boincvm.job.wrapper_arguments import WrapperArguments

CORPUS = Path(__file__).parent / "corpus"
OWN = ("--own",)
GIVEN = Expansion(arguments=WrapperArguments(child_arguments=OWN))


def job(
    *tasks: Task, machines: Mapping[str, MachineShape] | None = None, **settings: object
) -> tuple[Job[Task], BoincSettings]:
    return Job(tasks, Path(), machines or {}), BoincSettings(**settings)


def task(application: str, command_line: str = "", **rest: object) -> HostTask:
    return HostTask(application, command_line, **rest)


EXPECTED = {
    "single": job(task("worker", "10", stdin=Path("in"), stdout=Path("out"))),
    "append_arguments": job(
        task(
            "pmemd",
            stdout=Path("md.log"),
            stderr=Path("md.err"),
            checkpoint=Path("md.rst"),
            arguments=OWN,
        )
    ),
    "two_tasks_with_weights": job(
        task(
            "mdrun.exe",
            "-v -x -c -o -e -cpi md.cpt -cpt 1 -deffnm md",
            weight=100.0,
            checkpoint=Path("state.cpt"),
            fraction_done=Path("progress.txt"),
        ),
        task("7za.exe", "a -y -tzip out.7z *.log *.tpr job.xml *.top"),
    ),
    "multi_process_and_unzip": job(
        task("BlindAlgo", "0001.json", multi_process=True), unzip_input=("app.zip",)
    ),
    "zip_in_and_out": job(
        task(
            "sim",
        ),
        unzip_input=("data.zip", "tables.zip"),
        zip_output=ZipOutput("results.zip", (r".*\.log$", "^out_[0-9]+")),
    ),
    "daemons": job(
        task(
            "worker",
        ),
        daemons=(
            task("database", "--port-file port.txt"),
            task("monitor", multi_process=True),
        ),
    ),
    "header_and_attributes": job(
        task(
            "main",
        ),
        daemons=(task("worker"),),
    ),
    "cdata": job(
        task(
            "worker",
            "--where \"a < b && c > d\" --text '&lt;'",
            environment={"FILTER": "x<1"},
        )
    ),
    "entities": job(task("worker", "<in> \"a&b\" 'c' A&#x42;é d&e a && b")),
    "comments_everywhere": job(task("worker", weight=2.0)),
    "crlf": job(task("worker.exe", "-a\r\n\t\t\t-b")),
    "byte_order_mark": job(
        task(
            "worker",
        )
    ),
    "latin_1": job(task("worker", os.fsdecode(b"--name Jos\xe9"))),
    "utf_8": job(task("worker", "--name José 日本")),
    "trailing_junk": job(
        task(
            "worker",
        )
    ),
    "one_line": job(
        task(
            "a",
        ),
        task("b", weight=3.0),
    ),
    "windows_paths": job(
        task(
            r".\bin\worker.exe",
            r'"C:\Program Files\R\bin\R.exe" --file=boinc_resolve(script.R) data\in.txt',
            stdout=Path(r"logs\out.txt"),
            forward_slashes=True,
        )
    ),
    "macros": job(
        task(
            "$PROJECT_DIR/worker_1.0",
            "--threads $NTHREADS --gpu $GPU_DEVICE_NUM boinc_resolve(in)",
            directory="$PWD/there/",
            environment={
                "LD_LIBRARY_PATH": "$PROJECT_DIR/lib:$PWD",
                "OMP_NUM_THREADS": "$NTHREADS",
                "EMPTY": "",
                "EQUATION": "a=b",
            },
        )
    ),
    "limits_and_priority": job(
        task("a", time_limit=3600.0, priority=3),
        task("b", time_limit=150.0, priority=5),
        task("c", priority=6),
        task(
            "d",
        ),
        ignored=("job.xml:5: <priority> 'high' has no effect, expected a whole number",),
    ),
    "graphics": job(
        task(
            "worker",
        ),
        graphics=True,
    ),
    "odd_numbers": job(
        task("a", weight=2.0),
        task(
            "b",
        ),
        task(
            "c",
        ),
        task("d", weight=0.0),
        *map(task, "efghi"),
        task("j", weight=0.5),
        ignored=(
            "job.xml:3: <weight> '2 of 3' has no effect, expected a number",
            "job.xml:4: <weight> '1,5' has no effect, expected a number",
            "job.xml:6: <weight> '' has no effect, expected a number",
            "job.xml:7: <weight> -3.0 has no effect, expected 0 to 1e+100",
            "job.xml:8: <weight> 'inf' has no effect, expected a number",
            "job.xml:9: <weight> 'nan' has no effect, expected a number",
            "job.xml:10: <weight> inf has no effect, expected 0 to 1e+100",
            "job.xml:11: <weight> '?' has no effect, expected a number",
        ),
    ),
    "no_weights": job(
        task(
            "a",
        ),
        task(
            "b",
        ),
        daemons=(task("c"),),
    ),
    "odd_switches": job(
        task(
            "a",
        ),
        task(
            "b",
        ),
        task("c", multi_process=True),
        task(
            "d",
        ),
        task("e", multi_process=True),
        ignored=(
            "job.xml:2: <multi_process> '' has no effect, expected <multi_process/>, 1 or 0",
            "job.xml:3: <multi_process> 'true' has no effect, expected <multi_process/>, 1 or 0",
        ),
    ),
    "unknown_elements": job(
        task(
            "worker",
        ),
        ignored=tuple(
            f"job.xml:{line}: the {what} has no effect, expected {expected}"
            for line, what, expected in (
                (1, "text 'stray text'", "elements"),
                (3, "element 'title'", "an element that <job_desc> may have"),
                (12, "element 'VIRTUALMACHINE'", "an element that <job_desc> may have"),
                (6, "element 'aplication'", "an element that <task> may have"),
                (7, "element 'options'", "an element that <task> may have"),
                (8, "element 'Weight'", "an element that <task> may have"),
                (11, "element 'filename'", "an element that <unzip_input> may have"),
            )
        ),
    ),
    "repeated": job(task("second", "y"), zip_output=ZipOutput("b.zip", ("a", "b"))),
    "vmwrapper_2009": job(
        MachineTask(
            argv=("/home/boinc/worker", "./in", "out", *OWN),
            stdin=Path("stdin"),
            stdout=Path("stdout"),
            stderr=Path("stderr"),
            machine="CernVM",
            inputs=(
                InputFile(Path("in"), PurePosixPath("in")),
                InputFile(Path("in_2"), PurePosixPath("in_2")),
                InputFile(Path("worker"), PurePosixPath("/home/boinc/worker")),
            ),
            outputs=(OutputFile(PurePosixPath("out"), PurePosixPath("out")),),
            weight=2.0,
        ),
        task("postprocess", "./out", arguments=OWN),
        machines={"CernVM": MachineShape(image="cernvm-1.2.0-x86.vmdk")},
        unzip_tasks=(task("unzip", "-o ./controller.zip", stdout=Path("stdout_unzip")),),
        machine_managers=(task("broker", "console"), task("HostMain.py", "./HostConfig.cfg")),
        is_for_vmwrapper=True,
        ignored=(
            (
                "job.xml:35: <copy_app_to_VM> has no effect, "
                "expected <virtualmachine> in the same task"
            ),
        ),
    ),
    "vm_in_steps": job(
        MachineTask(
            argv=("/usr/bin/make",),
            directory=PurePosixPath("/srv/work"),
            machine="sim",
            packages=(Path("libgsl.deb"), Path("tools/extra.tar.gz")),
        ),
        MachineTask(
            argv=("./run", *OWN),
            machine="sim",
            outputs=(OutputFile(PurePosixPath("results.csv"), PurePosixPath("results.csv")),),
        ),
        MachineTask(argv=("true", *OWN), machine="other"),
        machines={
            "sim": MachineShape("sci", 2 * GIB, 4, 8 * GIB, network=True),
            "other": MachineShape(),
        },
        cpu_time=CpuTimeSource.HOST,
        cpu_time_scale=0.5,
        is_for_vmwrapper=True,
    ),
    "vm_smallest": job(
        MachineTask(argv=("/bin/true", *OWN), machine="vm"),
        machines={"vm": MachineShape()},
        is_for_vmwrapper=True,
    ),
    "wall_time": job(
        task(
            "worker",
        ),
        cpu_time=CpuTimeSource.WALL,
        cpu_time_scale=1000.0,
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_file_means(name):
    content = (CORPUS / f"{name}.xml").read_bytes()
    assert read_job_xml(content, "job.xml", Path(), GIVEN) == EXPECTED[name]


def test_every_file_is_expected():
    assert {path.stem for path in CORPUS.glob("*.xml")} == set(EXPECTED)
