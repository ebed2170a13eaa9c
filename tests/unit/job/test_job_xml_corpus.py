"""job.xml as project administrators write it: each file of the corpus, and what it means."""

import os
from pathlib import Path

import pytest

from boincvm.job.boinc_job import BoincJob, CpuTimeSource, MachineUse, TaskDescription, ZipOutput
from boincvm.job.job_xml import read_job_xml
from boincvm.job.model import GIB

CORPUS = Path(__file__).parent / "corpus"


def job(*tasks: TaskDescription, **rest: object) -> BoincJob:
    return BoincJob(tasks, **rest)


def task(application: str, line: int, command_line: str = "", **rest: object) -> TaskDescription:
    return TaskDescription(application, line, command_line, **rest)


EXPECTED = {
    "single": job(task("worker", 2, "10", stdin_filename="in", stdout_filename="out")),
    "append_arguments": job(
        task(
            "pmemd",
            2,
            stdout_filename="md.log",
            stderr_filename="md.err",
            checkpoint_filename="md.rst",
            append_command_line=True,
        )
    ),
    "two_tasks_with_weights": job(
        task(
            "mdrun.exe",
            2,
            "-v -x -c -o -e -cpi md.cpt -cpt 1 -deffnm md",
            weight=100.0,
            checkpoint_filename="state.cpt",
            fraction_done_filename="progress.txt",
        ),
        task("7za.exe", 9, "a -y -tzip out.7z *.log *.tpr job.xml *.top"),
    ),
    "multi_process_and_unzip": job(
        task("BlindAlgo", 2, "0001.json", multi_process=True), unzip_input=("app.zip",)
    ),
    "zip_in_and_out": job(
        task("sim", 6),
        unzip_input=("data.zip", "tables.zip"),
        zip_output=ZipOutput("results.zip", (r".*\.log$", "^out_[0-9]+")),
    ),
    "daemons": job(
        task("worker", 7),
        daemons=(
            task("database", 2, "--port-file port.txt", is_daemon=True),
            task("monitor", 11, is_daemon=True, multi_process=True),
        ),
    ),
    "header_and_attributes": job(task("main", 8), daemons=(task("worker", 4, is_daemon=True),)),
    "cdata": job(
        task(
            "worker",
            2,
            "--where \"a < b && c > d\" --text '&lt;'",
            environment=(("FILTER", "x<1"),),
        )
    ),
    "entities": job(task("worker", 2, "<in> \"a&b\" 'c' A&#x42;é d&e a && b")),
    "comments_everywhere": job(task("worker", 3, weight=2.0)),
    "crlf": job(task("worker.exe", 3, "-a\r\n\t\t\t-b")),
    "byte_order_mark": job(task("worker", 1)),
    "latin_1": job(task("worker", 3, os.fsdecode(b"--name Jos\xe9"))),
    "utf_8": job(task("worker", 1, "--name José 日本")),
    "trailing_junk": job(task("worker", 1)),
    "one_line": job(task("a", 1), task("b", 1, weight=3.0)),
    "windows_paths": job(
        task(
            r".\bin\worker.exe",
            2,
            r'"C:\Program Files\R\bin\R.exe" --file=boinc_resolve(script.R) data\in.txt',
            stdout_filename=r"logs\out.txt",
            forward_slashes=True,
        )
    ),
    "macros": job(
        task(
            "$PROJECT_DIR/worker_1.0",
            2,
            "--threads $NTHREADS --gpu $GPU_DEVICE_NUM boinc_resolve(in)",
            exec_dir="$PWD/there/",
            environment=(
                ("LD_LIBRARY_PATH", "$PROJECT_DIR/lib:$PWD"),
                ("OMP_NUM_THREADS", "$NTHREADS"),
                ("EMPTY", ""),
                ("EQUATION", "a=b"),
            ),
        )
    ),
    "limits_and_priority": job(
        task("a", 2, time_limit=3600.0, priority=3),
        task("b", 3, time_limit=150.0, priority=5),
        task("c", 4, priority=6),
        task("d", 5),
        ignored=("job.xml:5: <priority> 'high' has no effect, expected a whole number",),
    ),
    "graphics": job(task("worker", 3), graphics=True),
    "odd_numbers": job(
        task("a", 2, weight=2.0),
        task("b", 3),
        task("c", 4),
        task("d", 5, weight=0.0),
        *(task(name, line) for line, name in enumerate("efghi", 6)),
        task("j", 11, weight=0.5),
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
    "no_weights": job(task("a", 2), task("b", 3), daemons=(task("c", 4, is_daemon=True),)),
    "odd_switches": job(
        task("a", 2),
        task("b", 3),
        task("c", 4, multi_process=True),
        task("d", 5),
        task("e", 6, multi_process=True),
        ignored=(
            "job.xml:2: <multi_process> '' has no effect, expected <multi_process/>, 1 or 0",
            "job.xml:3: <multi_process> 'true' has no effect, expected <multi_process/>, 1 or 0",
        ),
    ),
    "unknown_elements": job(
        task("worker", 4),
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
    "repeated": job(task("second", 2, "y"), zip_output=ZipOutput("b.zip", ("a", "b"))),
    "vmwrapper_2009": job(
        task(
            "worker",
            17,
            "./in out",
            stdin_filename="stdin",
            stdout_filename="stdout",
            stderr_filename="stderr",
            checkpoint_filename="1",
            weight=2.0,
            append_command_line=True,
            machine=MachineUse(
                "CernVM",
                image="cernvm-1.2.0-x86.vmdk",
                application_path="/home/boinc/",
                copy_application=True,
                copy_in=("in", "in_2"),
                copy_out=("out",),
            ),
        ),
        task("postprocess", 33, "./out", append_command_line=True),
        unzip_tasks=(task("unzip", 2, "-o ./controller.zip", stdout_filename="stdout_unzip"),),
        machine_managers=(
            task("broker", 8, "console"),
            task("HostMain.py", 12, "./HostConfig.cfg"),
        ),
        ignored=(
            (
                "job.xml:35: <copy_app_to_VM> has no effect, "
                "expected <virtualmachine> in the same task"
            ),
        ),
    ),
    "vm_in_steps": job(
        task(
            "/usr/bin/make",
            4,
            exec_dir="/srv/work",
            machine=MachineUse(
                "sim",
                image="sci",
                memory=2 * GIB,
                cpus=4,
                network=True,
                disk=8 * GIB,
                packages=("libgsl.deb", "tools/extra.tar.gz"),
            ),
        ),
        task(
            "./run",
            17,
            append_command_line=True,
            machine=MachineUse(
                "sim",
                image="sci",
                memory=2 * GIB,
                cpus=4,
                network=True,
                disk=8 * GIB,
                copy_out=("results.csv",),
            ),
        ),
        task("true", 24, append_command_line=True, machine=MachineUse("other")),
        cpu_time=CpuTimeSource.HOST,
        cpu_time_scale=0.5,
    ),
    "vm_smallest": job(
        task(
            "", 1, append_command_line=True, machine=MachineUse("vm", application_path="/bin/true")
        )
    ),
    "wall_time": job(task("worker", 2), cpu_time=CpuTimeSource.WALL, cpu_time_scale=1000.0),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_file_means(name):
    assert read_job_xml((CORPUS / f"{name}.xml").read_bytes(), "job.xml") == EXPECTED[name]


def test_every_file_is_expected():
    assert {path.stem for path in CORPUS.glob("*.xml")} == set(EXPECTED)
