"""`boincvm snapshot`: checkpoints on request, and jobs that move."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.paths import data_directory
from support.bench import until
from support.counting import RESUMED, check_count, counting, lines
from support.fresh_program import SCRIPT, Report, check_copies

pytestmark = [pytest.mark.timeout(250), pytest.mark.usefixtures("base_image")]
LIMIT = 120.0
JOB = """<job_desc><task><application>app.sh</application><virtualmachine>vm</virtualmachine>
<copy_app_to_VM>1</copy_app_to_VM><stdout_filename>out</stdout_filename>
<memory_mb>256</memory_mb></task></job_desc>"""


def environment(tmp_path: Path) -> dict[str, str]:
    data = {"XDG_DATA_HOME": str(data_directory().parent)}
    return {**os.environ, **data, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def snapshot(tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "boincvm.cli.main", "snapshot", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env=environment(tmp_path),
    )


def wrapper(tmp_path: Path, directory: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "boincvm.cli.boinc_wrapper"],
        cwd=directory,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def job(tmp_path: Path) -> Path:
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "app.sh").write_text(f"#!/bin/sh\n{counting(RESUMED)}\n")
    (directory / "app.sh").chmod(0o755)
    (directory / "job.xml").write_text(JOB)
    return directory


def begin(tmp_path: Path, job: Path) -> "subprocess.Popen[str]":
    """Start a job and wait for its first lines."""
    process = wrapper(tmp_path, job)
    output = job / "out"
    until(lambda: process.poll() is not None or (output.exists() and output.stat().st_size), LIMIT)
    assert process.poll() is None, process.communicate()[1]
    return process


def test_a_job_moves(tmp_path: Path, job: Path) -> None:
    process = begin(tmp_path, job)
    taken = snapshot(tmp_path, "take", job, "--json")
    assert taken.returncode == 0, taken.stderr
    (machine,) = json.loads(taken.stdout)["machines"]
    assert machine["checkpoint"] >= 1  # a copy of a golden snapshot begins with 2
    busy = snapshot(tmp_path, "export", job, tmp_path / "file")
    assert "a job runs in" in busy.stderr
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT)
    listed = json.loads(snapshot(tmp_path, "ls", job, "--json").stdout)
    assert [one["state"] for one in listed] == ["whole", "whole"]

    done = snapshot(tmp_path, "export", job, tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert "read back and verified" in done.stdout
    again = snapshot(tmp_path, "export", job, tmp_path / "file")
    assert "--force replaces it" in again.stderr
    shutil.rmtree(job)
    checked = snapshot(tmp_path, "import", "--check", tmp_path / "file")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "the job continues where it was" in checked.stdout
    there = tmp_path / "elsewhere"
    moved = snapshot(tmp_path, "import", tmp_path / "file", there)
    assert moved.returncode == 0, moved.stderr
    before = (there / "out").read_text()
    assert lines(before.count("\n") + 1).startswith(before)
    _, reported = wrapper(tmp_path, there).communicate(timeout=LIMIT)
    check_count((there / "out").read_text())
    assert (there / "out").read_text().startswith(before), reported


def test_two_hosts_import_the_same_file(tmp_path: Path, job: Path) -> None:
    """Their random numbers differ from then on (test_fresh_copies.py)."""
    (job / "app.sh").write_text(f"#!/usr/bin/python3\n{SCRIPT}")
    process = begin(tmp_path, job)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT)
    assert snapshot(tmp_path, "export", job, tmp_path / "file").returncode == 0
    copies = []
    for name in ("first", "second"):
        there = tmp_path / name
        assert snapshot(tmp_path, "import", tmp_path / "file", there).returncode == 0
        wrapper(tmp_path, there).communicate(timeout=LIMIT)
        copies.append(Report((there / "out").read_text()))
        assert copies[-1].host_name == "vm"
    check_copies(*copies)


def test_a_damaged_file_leaves_nothing(tmp_path: Path, job: Path) -> None:
    process = begin(tmp_path, job)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT)
    assert snapshot(tmp_path, "export", job, tmp_path / "file").returncode == 0
    data = bytearray((tmp_path / "file").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "file").write_bytes(data)
    done = snapshot(tmp_path, "import", tmp_path / "file", tmp_path / "there")
    assert done.returncode != 0
    assert "is damaged" in done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"job", "file", "cache"}


def test_where_no_job_runs(tmp_path: Path, job: Path) -> None:
    assert "no job with a machine runs in" in snapshot(tmp_path, "take", job).stderr
    assert "contains no saved machine" in snapshot(tmp_path, "export", job, tmp_path / "f").stderr
    (tmp_path / "nonsense").write_bytes(b"nonsense")
    done = snapshot(tmp_path, "import", tmp_path / "nonsense", tmp_path / "there")
    assert "is not a usable snapshot" in done.stderr
