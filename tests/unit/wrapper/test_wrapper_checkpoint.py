"""wrapper_checkpoint.txt: the same bytes as BOINC's wrapper, and none that ends a job."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm.wrapper.slot.wrapper_checkpoint import (
    CHECKPOINT_FILE,
    LONGEST_TIME,
    Checkpoint,
    Restored,
    read_checkpoint,
    write_checkpoint,
)

TASKS = 5


def restored(slot: Path, content: bytes) -> Restored:
    (slot / CHECKPOINT_FILE).write_bytes(content)
    return read_checkpoint(slot, TASKS)


def test_the_bytes_are_those_of_the_stock_wrapper(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, Checkpoint(2, 12.5, 34.0000004))
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == b"2 12.500000 34.000000\n"
    assert os.listdir(tmp_path) == [CHECKPOINT_FILE]
    assert read_checkpoint(tmp_path, TASKS) == Restored(Checkpoint(2, 12.5, 34.0))


def test_a_job_that_was_not_begun(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path, TASKS) == Restored(is_new=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"5 0.000000 0.000000\n", Checkpoint(5)),
        (b"  3\t1e2   7", Checkpoint(3, 100.0, 7.0)),
        (b"3 1 2 and what a later version may add\n", Checkpoint(3, 1.0, 2.0)),
    ],
)
def test_what_the_stock_wrapper_reads_is_read(
    tmp_path: Path, content: bytes, expected: Checkpoint
) -> None:
    assert restored(tmp_path, content) == Restored(expected)


@pytest.mark.parametrize(
    ("content", "expected", "fault"),
    [
        (b"", Checkpoint(), "is empty"),
        (b"\0" * 4096, Checkpoint(), "is cut short"),
        (b"1 2.5", Checkpoint(), "is cut short"),
        (b"x 1 2\n", Checkpoint(), "number of tasks"),
        (b"-1 1 2\n", Checkpoint(), "number of tasks"),
        (b"2.5 1 2\n", Checkpoint(), "number of tasks"),
        (b"9" * 900 + b" 1 2\n", Checkpoint(), "number of tasks"),
        (b"6 1 2\n", Checkpoint(), "6 tasks are done; the job has 5"),
        (b"3 -1 2\n", Checkpoint(3, 0.0, 2.0), "is invalid"),
        (b"3 1 nan\n", Checkpoint(3, 1.0, 0.0), "is invalid"),
        (b"3 inf 1e300\n", Checkpoint(3), "is invalid"),
        (b"3 1_0 x\n", Checkpoint(3), "is invalid"),
    ],
)
def test_nonsense_is_reported_and_not_believed(
    tmp_path: Path, content: bytes, expected: Checkpoint, fault: str
) -> None:
    found = restored(tmp_path, content)
    assert found.checkpoint == expected
    assert not found.is_new
    assert fault in found.fault


def test_what_is_no_file_is_not_followed_or_waited_for(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT_FILE
    (tmp_path / "elsewhere").write_bytes(b"3 1 2\n")
    path.symlink_to("elsewhere")
    assert read_checkpoint(tmp_path, TASKS).fault
    path.unlink()
    os.mkfifo(path)
    assert read_checkpoint(tmp_path, TASKS).fault
    path.unlink()
    path.mkdir()
    assert read_checkpoint(tmp_path, TASKS).fault


@given(st.binary(max_size=60) | st.from_regex(rb"[-+0-9.e_na]{1,12}( [-+0-9.e_naif]{1,12}){0,3}"))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_gives_a_checkpoint_of_the_job(tmp_path: Path, content: bytes) -> None:
    found = restored(tmp_path, content)
    assert 0 <= found.checkpoint.tasks_done <= TASKS
    for time in (found.checkpoint.cpu_time, found.checkpoint.elapsed):
        assert math.isfinite(time)
        assert 0 <= time <= LONGEST_TIME
    assert found.fault.count("\n") == 0
