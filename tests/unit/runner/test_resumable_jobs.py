"""Jobs that are kept on disk: their names, locks and records."""

import argparse
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.cli import resumable
from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    HostError,
    InputFileError,
    UsageError,
)
from boincvm.job.model import Job, MachineTask
from boincvm.paths import jobs_directory
from boincvm.runner import resumable_jobs
from boincvm.runner.resumable_jobs import JobRecord, existing_job, names, new_job

RECORD = JobRecord({"command": ["prog", "\udcff"]}, "/", 0.0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(name: str | None = None, suggestion: str = "prog") -> str:
    with new_job(name, suggestion, RECORD) as location:
        return location.name


def test_a_job_is_found_again() -> None:
    assert begin() == "prog"
    for name in ("prog", ""):
        with existing_job(name) as location:
            assert (location.name, dict(location.record.arguments)) == (
                "prog",
                dict(RECORD.arguments),
            )
            assert location.record.made > 0
            assert not location.has_checkpoint
    with existing_job("prog") as location:
        location.remove()
        location.remove()
    assert names() == []


def test_names_that_are_taken_and_odd_programs() -> None:
    assert [begin(), begin(), begin(suggestion="/../ü x!")] == ["prog", "prog-2", "x-"]
    assert begin(suggestion="…") == "job"
    with pytest.raises(UsageError, match="there is a job 'prog' already"):
        begin("prog")
    with pytest.raises(UsageError, match="4 jobs can be resumed: job, prog, prog-2, x-"):
        begin_existing("")
    with pytest.raises(UsageError) as refused:
        begin_existing("porg")
    assert refused.value.hint.startswith("did you mean prog? ")


def begin_existing(name: str) -> None:
    with existing_job(name):
        pass


@pytest.mark.parametrize("name", ["..", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_refused(name: str) -> None:
    for act in (begin, begin_existing):
        with pytest.raises(UsageError, match="expected the name of a job"):
            act(name)


def test_new_names_are_ones_that_windows_can_store(home: Path) -> None:
    """A job of such a name that is there already is found."""
    for name in ("NUL", "com1.x", "prog."):
        with pytest.raises(UsageError, match="expected the name of a job"):
            begin(name)
    assert names() == []
    assert [begin(suggestion=name) for name in ("aux", "prog.")] == ["job-aux", "job-prog"]
    begin("mine")
    (jobs_directory() / "mine").rename(jobs_directory() / "prog.")
    begin_existing("prog.")


def test_a_directory_of_ones_own(home: Path) -> None:
    assert begin("./here") == "./here"
    assert (home / "here/job.json").exists()
    assert names() == []
    begin_existing("./here")
    with pytest.raises(UsageError, match="there is no job"):
        begin_existing("./there")


def test_a_job_that_is_running() -> None:
    with (
        new_job(None, "prog", RECORD),
        pytest.raises(UsageError, match="the job prog is running"),
    ):
        begin_existing("prog")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema": 2}', '{"schema": 1, "arguments": [], "directory": "", "made": 1}'],
)
def test_a_record_that_is_damaged(text: str) -> None:
    begin()
    (jobs_directory() / "prog/job.json").write_text(text)
    with pytest.raises(HostError, match="cannot be read") as refused:
        begin_existing("prog")
    assert "--discard prog" in refused.value.hint
    assert resumable.run(parsed("--discard", "prog")) == 0
    assert names() == []


def test_a_directory_that_is_no_job_s_is_not_discarded(home: Path) -> None:
    (home / "other").mkdir()
    record = home / "other/job.json"
    record.write_text('{"name": "another program\'s"}')
    with pytest.raises(HostError, match="cannot be read") as refused:
        resumable.run(parsed("--discard", "./other"))
    assert "--discard" not in refused.value.hint
    assert record.exists()


def test_a_job_that_ends_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one has its name by then: nothing of that is touched."""
    begin()
    open_directory = resumable_jobs.open_lockable_directory

    def replaced(directory: Path) -> int:
        descriptor = open_directory(directory)
        shutil.rmtree(directory)
        begin()
        return descriptor

    calls = iter((replaced, open_directory))
    monkeypatch.setattr(
        resumable_jobs, "open_lockable_directory", lambda directory: next(calls)(directory)
    )
    with pytest.raises(UsageError, match="prog has just ended"):
        resumable_jobs.discard_job("prog")
    assert names() == ["prog"]


def test_a_job_that_cannot_be_recorded_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(resumable_jobs, "write_atomically", fail)
    with pytest.raises(HostDiskFullError):
        begin("prog")
    assert list(jobs_directory().iterdir()) == []


def test_errors_of_the_job_itself_are_left_as_they_are() -> None:
    with pytest.raises(FileNotFoundError, match="x"), new_job(None, "prog", RECORD):
        raise FileNotFoundError("x")
    with pytest.raises(FileNotFoundError, match="x"), existing_job("prog"):
        raise FileNotFoundError("x")


def parsed(*words: str) -> argparse.Namespace:
    from boincvm.cli.run import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(words)
    arguments.command = None
    return arguments


@pytest.mark.parametrize(
    "words", [("--memory", "1G"), ("--input", "x"), ("job.toml",), ("--resumable",)]
)
def test_a_job_goes_on_as_it_was_begun(words: tuple[str, ...]) -> None:
    begin()
    for option in ("--resume", "--discard"):
        with pytest.raises(UsageError, match=f"with {option}, expected"):
            resumable.run(parsed(*words, option, "prog"))


def test_arguments_of_a_wrong_kind_and_a_directory_that_is_gone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin()
    path = jobs_directory() / "prog/job.json"
    table = json.loads(path.read_text())
    good = dict.fromkeys(resumable._OF_THE_JOB)
    for wrong in ({"command": "prog"}, {**good, "memory": "1G"}, {**good, "command": [1]}):
        path.write_text(json.dumps({**table, "arguments": wrong}))
        with pytest.raises(HostError, match="damaged"):
            resumable.run(parsed("--resume", "prog"))
    gone = {**table, "arguments": good, "directory": str(home / "gone")}
    path.write_text(json.dumps(gone))
    with pytest.raises(InputFileError, match="gone: No such file"):
        resumable.run(parsed("--resume", "prog"))
    capsys.readouterr()
    assert resumable.run(parsed("--discard", "prog")) == 0
    assert capsys.readouterr().out == "job prog has been removed\n"
    with pytest.raises(BoincvmError, match="no job to resume"):
        resumable.run(parsed("--resume"))


def test_a_job_file_elsewhere_is_found_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is relative to where the command was given, not to the job's directory."""
    jobs: list[Job[MachineTask]] = []

    def run_resumable(_: object, job: Job[MachineTask], __: object) -> int:
        jobs.append(job)
        return 0

    monkeypatch.setattr(resumable, "run_resumable", run_resumable)
    (home / "sub").mkdir()
    (home / "sub/job.toml").write_text("[[task]]\ncommand = ['true']\n")
    resumable.run(parsed("--resumable", "sub/job.toml"))
    monkeypatch.chdir("/")
    resumable.run(parsed("--resume"))
    assert [job.directory for job in jobs] == [home / "sub"] * 2


@pytest.mark.parametrize("name", ["prog", "./here"])
@pytest.mark.parametrize("killed_at", range(1, 6))
def test_a_removal_that_is_killed(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, killed_at: int
) -> None:
    """Whatever it has removed by then, the job is none any more, and its name is free again."""

    class KilledError(BaseException):
        pass

    count = 0

    def killed_then(real: Callable[..., None]) -> Callable[..., None]:
        def act(*arguments: object, **options: object) -> None:
            nonlocal count
            count += 1
            if count == killed_at:
                raise KilledError
            real(*arguments, **options)

        return act

    with new_job(name, "prog", RECORD) as stored, monkeypatch.context() as patch:
        stored.machine.mkdir()
        (stored.machine / "state-1").touch()
        for call in ("rename", "replace", "unlink", "rmdir"):
            patch.setattr(os, call, killed_then(getattr(os, call)))
        with pytest.raises(KilledError):
            stored.remove()
    directory = home / "here" if name == "./here" else jobs_directory() / "prog"
    if killed_at == 1:  # nothing had been removed
        assert (directory / "machine/state-1").exists()
        begin_existing(name)
        resumable_jobs.discard_job(name)
    else:
        assert names() == []
        with pytest.raises(UsageError, match="there is no job"):
            resumable_jobs.discard_job(name)
    assert not directory.exists() or not list(directory.iterdir())
    assert begin(name) == name


def test_what_others_call_removed_is_left(home: Path) -> None:
    (home / "here").mkdir()
    (home / "here/removed").write_text("photographs")
    with pytest.raises(UsageError, match=r"there is a job '\./here' already"):
        begin("./here")
    with pytest.raises(UsageError, match="there is no job"):
        resumable_jobs.discard_job("./here")
    assert (home / "here/removed").exists()


def test_a_killed_removal_is_finished_by_the_next_job() -> None:
    begin()
    record = jobs_directory() / "prog/job.json"
    record.rename(record.with_name("removed"))
    (jobs_directory() / "prog/machine").mkdir()
    assert begin(suggestion="other") == "other"
    assert [path.name for path in jobs_directory().iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("./here", "here/out"),
        ("./here", "out:here/"),
        ("./here", "here"),
        ("./out/deep/here", "out"),
        ("./here", "here/*.txt"),
        ("./here", "*.txt:here/"),
        ("./", "out"),
        ("../", "out"),
    ],
)
def test_a_directory_that_is_not_the_job_s_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, option: str
) -> None:
    (home / "at").mkdir()
    monkeypatch.chdir(home / "at")
    arguments = parsed("--resumable", "--name", name, "--output", option)
    arguments.command = ["true"]
    with pytest.raises(UsageError, match="expected a directory that the job alone uses"):
        resumable.run(arguments)
    assert list((home / "at").iterdir()) == []


def test_what_else_is_in_its_directory_stays(home: Path) -> None:
    with new_job("./here", "prog", RECORD) as stored:
        stored.machine.mkdir()
        (home / "here/result").write_text("of the user")
        stored.remove()
    assert [path.name for path in (home / "here").iterdir()] == ["result"]


@pytest.mark.parametrize("name", ["prog", "./here"])
def test_a_job_that_is_killed_while_it_is_made(home: Path, name: str) -> None:
    directory = home / "here" if name == "./here" else jobs_directory() / name
    for act in (begin, begin_existing, resumable_jobs.discard_job):
        directory.mkdir(parents=True)
        (directory / ".job.json.part").write_text('{"sch')
        if act is begin:
            assert begin(name) == name
            resumable_jobs.discard_job(name)
        else:
            with pytest.raises(UsageError, match="there is no job"):
                act(name)
        assert not directory.exists()
