"""The behaviour of our wrapper for the odd jobs in docs/coming-from-boinc-wrapper.md.

BOINC's behaviour was observed with its wrapper 26019, and is not tested here.
"""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

WRAPPER = Path(sys.executable).with_name("boincvm-wrapper")
LIMIT = 60.0
"""Seconds that a job may take."""
RUNS = "<application>app</application>"
PRINTS = "pwd; printf '[%s]' \"$@\"\n"
UNZIP = "<unzip_input><zipfilename>in.zip</zipfilename></unzip_input>"


class Outcome(NamedTuple):
    exit_status: int
    finish: str
    """The first line of boinc_finish_called; "" where there is no such file."""
    output: str
    errors: str


def archive(entries: Mapping[str, str], mode: int = 0o100644) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as made:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = mode << 16
            made.writestr(info, content)
    return whole.getvalue()


def run(slot: Path, job: str | None, arguments: Sequence[str] = (), app: str = PRINTS) -> Outcome:
    """Run our wrapper once, standalone, with `job` and a script `app`."""
    if job is not None:
        (slot / "job.xml").write_text(job)
    (slot / "app").write_text(f"#!/bin/sh\n{app}")
    (slot / "app").chmod(0o755)
    done = subprocess.run(
        [WRAPPER, *arguments],
        cwd=slot,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    finish = slot / "boinc_finish_called"
    first = finish.read_text().splitlines()[0] if finish.exists() else ""
    return Outcome(done.returncode, first, done.stdout, done.stderr)


def tasks(*inner: str, beside: str = "") -> str:
    return f"<job_desc>{beside}{''.join(f'<task>{text}</task>' for text in inner)}</job_desc>"


def zip_output(*patterns: str) -> str:
    names = "".join(f"<filename>{pattern}</filename>" for pattern in patterns)
    return f"<zip_output><zipfilename>out.zip</zipfilename>{names}</zip_output>"


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (None, 206),
        ("<other></other>", 206),
        ("<job_desc><task><application>app</application></job_desc>", 206),
        ("<!DOCTYPE x>" + tasks(RUNS), 206),
        (tasks(), 206),
        (tasks(RUNS + "<daemon/>"), 206),
        (tasks("<command_line>x</command_line>"), 206),
        (tasks("<application>none</application>"), 206),
        (tasks("<application>job.xml</application>"), 195),
        (tasks(RUNS + "<stdin_filename>none</stdin_filename>"), 206),
        (tasks(RUNS + "<exec_dir>none</exec_dir>"), 195),
        (tasks(RUNS, beside=zip_output("[a")), 206),
        (tasks(RUNS, beside=zip_output("none")), 195),
        (tasks(RUNS, beside=zip_output()), 195),
    ],
)
def test_a_job_that_cannot_be_done(tmp_path: Path, job: str | None, status: int) -> None:
    """There is always the finish file, with one line in it."""
    outcome = run(tmp_path, job)
    assert (outcome.exit_status, outcome.finish) == (status, str(status))
    reason = (tmp_path / "boinc_finish_called").read_text().splitlines()[1]
    assert reason != ""
    assert outcome.errors.splitlines()[-1].endswith(f"failed with {status}: {reason}")


@pytest.mark.parametrize("option", ["--device", "--nthreads", "--trickle"])
@pytest.mark.parametrize("value", [(), ("abc",)])
def test_an_option_without_its_number(tmp_path: Path, option: str, value: tuple[str, ...]) -> None:
    outcome = run(tmp_path, tasks(RUNS), [option, *value])
    assert (outcome.exit_status, outcome.finish, outcome.output) == (210, "", "")
    assert f"{option}: found" in outcome.errors


def test_a_time_limit_below_nothing_is_none(tmp_path: Path) -> None:
    outcome = run(tmp_path, tasks(RUNS + "<time_limit>-5</time_limit>"), app="sleep 0.3; echo end")
    assert (outcome.exit_status, outcome.finish, outcome.output) == (0, "0", "end\n")


def test_a_relative_application_with_an_exec_dir(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    outcome = run(tmp_path, tasks(RUNS + "<exec_dir>sub</exec_dir>"))
    assert (outcome.exit_status, outcome.finish) == (0, "0")
    assert outcome.output.splitlines()[0] == str(tmp_path / "sub")


def test_words(tmp_path: Path) -> None:
    line = '<command_line>\'\' "" boinc_resolve(x d"e</command_line>'
    assert '[][][boinc_resolve(x][d"e]' in run(tmp_path, tasks(RUNS + line)).output


@pytest.mark.parametrize(("count", "length"), [(5000, 1), (1, 10_000)])
def test_a_long_command_line(tmp_path: Path, count: int, length: int) -> None:
    line = f"<command_line>{' '.join(['a' * length] * count)}</command_line>"
    outcome = run(tmp_path, tasks(RUNS + line), app='echo "$# ${#1}"')
    assert outcome.output == f"{count} {length}\n"


def test_blanks_around_a_name_that_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    line = "<command_line>boinc_resolve( data )</command_line>"
    output = run(tmp_path, tasks(RUNS + line), app='cat "$1"').output
    assert output == "x"


def test_the_checkpoint_file_is_there_when_the_first_program_starts(tmp_path: Path) -> None:
    outcome = run(tmp_path, tasks(RUNS), app="cat wrapper_checkpoint.txt")
    assert outcome.output == "0 0.000000 0.000000\n"


@pytest.mark.parametrize(
    ("content", "runs"), [("garbage", True), ("5 1.0 2.0\n", True), ("1 1.0 2.0\n", False)]
)
def test_a_checkpoint_file_that_was_there(tmp_path: Path, content: str, runs: bool) -> None:
    (tmp_path / "wrapper_checkpoint.txt").write_text(content)
    outcome = run(tmp_path, tasks(RUNS), app="echo runs")
    assert (outcome.exit_status, outcome.finish) == (0, "0")
    assert outcome.output == ("runs\n" if runs else "")


def test_an_archive_is_unpacked_at_the_first_start_only(tmp_path: Path) -> None:
    (tmp_path / "in.zip").write_bytes(archive({"a": "1"}))
    outcome = run(tmp_path, tasks(RUNS, beside=UNZIP), app="ls a in.zip")
    assert outcome.output == "a\n"
    (tmp_path / "a").unlink()
    (tmp_path / "boinc_finish_called").unlink()
    (tmp_path / "in.zip").write_bytes(b"no archive")
    (tmp_path / "wrapper_checkpoint.txt").write_text("0 0.000000 0.000000\n")
    outcome = run(tmp_path, tasks(RUNS, beside=UNZIP), app="ls a in.zip; true")
    assert (outcome.exit_status, outcome.output) == (0, "in.zip\n")


def test_an_archive_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    assert run(tmp_path, tasks(RUNS, beside=UNZIP)).exit_status == 0


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        archive({"../out": "x"}),
        archive({"/out": "x"}),
        archive({"link": "/etc"}, 0o120777),
        archive({"init_data.xml": "x"}),
    ],
)
def test_an_archive_that_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.zip").write_bytes(content)
    outcome = run(tmp_path, tasks(RUNS, beside=UNZIP))
    assert (outcome.exit_status, outcome.finish, outcome.output) == (206, "206", "")


def test_what_goes_into_an_output_archive(tmp_path: Path) -> None:
    """It contains new plain files: no directory, no link, none of the wrapper's own."""
    outcome = run(
        tmp_path,
        tasks(RUNS, beside=zip_output(".")),
        app="echo 1 >out; chmod 751 out; mkdir outdir; ln -s out outlink; echo 2 >é",
    )
    assert outcome.exit_status == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as made:
        assert sorted(made.namelist()) == ["out", "é"]
        assert made.getinfo("out").external_attr >> 16 == 0o100751


def test_an_output_archive_without_a_name_or_that_is_there(tmp_path: Path) -> None:
    nameless = "<zip_output><filename>x</filename></zip_output>"
    assert run(tmp_path, tasks(RUNS, beside=nameless)).exit_status == 0
    (tmp_path / "boinc_finish_called").unlink()
    (tmp_path / "wrapper_checkpoint.txt").unlink()
    (tmp_path / "out.zip").write_text("earlier")
    assert run(tmp_path, tasks(RUNS, beside=zip_output("none"))).exit_status == 0
    assert (tmp_path / "out.zip").read_text() == "earlier"


def test_an_unknown_element_takes_all_that_is_in_it_along(tmp_path: Path) -> None:
    outcome = run(tmp_path, tasks(RUNS + "<odd><command_line>x</command_line></odd>"))
    assert "[]" in outcome.output
    assert "the element 'odd' has no effect" in outcome.errors


def test_setenv_adds_to_the_environment(tmp_path: Path) -> None:
    job = tasks(RUNS + "<setenv>A=1</setenv>")
    output = run(tmp_path, job, app='echo "$A $PATH"').output
    assert output == f"1 {os.environ['PATH']}\n"
