"""`boincvm boinc try`: an app version under the real client, without a project."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.boinc import trial
from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode
from support.bench import until_waits_in
from support.boinc.installed import path
from support.killed_on_failure import killed_on_failure

pytestmark = pytest.mark.timeout(100)
VERSION = """
<version>
    <file><physical_name>start_1.0</physical_name><main_program/></file>
    <file><physical_name>job_1.0.xml</physical_name><logical_name>job.xml</logical_name></file>
    <file><physical_name>work_1.0</physical_name><logical_name>work</logical_name></file>
    <is_wrapper/>
    <api_version>7.20.0</api_version>
</version>
"""
JOB = """
<job_desc><task>
    <application>work</application><append_cmdline_args/><stdin_filename>in</stdin_filename>
    <stdout_filename>out</stdout_filename>
</task></job_desc>
"""
OPTIONS = (
    "--input",
    "in=number",
    "--output",
    "out",
    "app",
    "--",
    "--passthrough_child",
    "a b",
    "c",
)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app version whose program is still to be written; its parent is where we are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path())
    app = tmp_path / "app"
    app.mkdir()
    (app / "version.xml").write_text(VERSION)
    (app / "job_1.0.xml").write_text(JOB)
    script(app, "start_1.0", 'exec boincvm-wrapper "$@"')
    (tmp_path / "number").write_text("91\n")
    return app


def script(app: Path, name: str, text: str) -> None:
    (app / name).write_text(f"#!/bin/sh\n{text}\n")
    (app / name).chmod(0o755)


def test_a_task_that_succeeds(
    app: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script(app, "work_1.0", 'cat; printf "%s\\n" "$@"; echo noted >&2')
    assert main(["boinc", "try", *OPTIONS]) == ExitCode.SUCCESS
    printed = capsys.readouterr()
    assert printed.out == "the task has succeeded\n"
    assert "\nnoted\n" in printed.err
    assert (tmp_path / "out").read_text() == "91\na b\nc\n"
    assert sorted(os.listdir()) == ["app", "number", "out"]


def test_a_task_that_fails(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(app, "work_1.0", "exit 3")
    assert main(["boinc", "try", *OPTIONS]) == ExitCode.CHILD_FAILED
    printed = capsys.readouterr().err
    assert "work ended with exit code 3" in printed
    assert "boincvm: the task failed with 195" in printed


def test_a_task_that_makes_no_output(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its exit status is 0 for the client, too, which counts it as failed all the same."""
    script(app, "work_1.0", "true")
    options = ["--input", "in=number", "--output", "other", "app"]
    assert main(["boinc", "try", *options]) == ExitCode.CHILD_FAILED
    printed = capsys.readouterr()
    assert "succeeded" not in printed.out
    assert "counts it as failed: it lacks other\n" in printed.err
    assert "output_0" not in printed.err  # as the client calls it


def test_a_client_that_records_no_end(
    app: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is a program that only says that the task has ended."""
    script(app, "work_1.0", "true")
    script(tmp_path, "boinc", "echo Computation for task work_0 finished; exec sleep 1000")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{path()}")
    assert main(["boinc", "try", *OPTIONS]) == ExitCode.HOST
    printed = capsys.readouterr()
    assert "succeeded" not in printed.out
    assert "recorded no exit status" in printed.err


def test_a_client_that_does_not_end(
    app: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is a program that hears neither requests nor signals; it is killed."""
    script(app, "work_1.0", "true")
    finished = "echo Computation for task work_0 finished"
    script(tmp_path, "boinc", f"trap '' TERM; {finished}; exec sleep 1000")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{path()}")
    monkeypatch.setattr(trial, "_END_LIMIT", 1.0)
    assert main(["boinc", "try", *OPTIONS]) == ExitCode.HOST
    assert "did not end within 1 s and was killed" in capsys.readouterr().err


def test_a_task_that_waits(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(app, "work_1.0", "true")
    script(app, "start_1.0", "printf '600\\nno licence\\n' >boinc_temporary_exit")
    assert main(["boinc", "try", *OPTIONS]) == ExitCode.HOST
    printed = capsys.readouterr().err
    assert "the task did not end" in printed
    assert "600 seconds: no licence" in printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_client(
    number: signal.Signals, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data directory is removed, too. The client is a program that only waits."""
    script(app, "work_1.0", "true")
    programs, temporary = tmp_path / "programs", tmp_path / "temporary"
    for directory in (programs, temporary):
        directory.mkdir()
    script(programs, "boinc", f"echo $$ >{tmp_path}/pid; echo work_0 runs; exec sleep 1000")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{path()}")
    monkeypatch.setenv("TMPDIR", str(temporary))
    call = "import sys; from boincvm.cli.main import main; sys.exit(main())"
    begun = subprocess.Popen(
        [sys.executable, "-c", call, "boinc", "try", "app"], stderr=subprocess.PIPE
    )
    with killed_on_failure(begun) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"work_0 runs\n"
        until_waits_in(process.pid, "pipe_read")  # for the client's next line
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number, errors
    assert list(temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda app: (app / "version.xml").unlink(), "version.xml cannot be read"),
        (lambda app: (app / "version.xml").write_text("<version>"), "version.xml: "),
        (
            lambda app: (app / "version.xml").write_text("<version/>"),
            "0 files with <main_program/>",
        ),
        (lambda app: (app / "work_1.0").unlink(missing_ok=True), "work_1.0' does not exist"),
    ],
)
def test_what_is_no_app_version(
    broken: object, reason: str, app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(broken)
    broken(app)
    assert main(["boinc", "try", *OPTIONS]) == ExitCode.INPUT_FILE
    assert reason in capsys.readouterr().err
