"""What the wrapper stores about a job from one run to the next."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.errors import HostDiskFullError, HostError
from boincvm.job.boinc_settings import BoincSettings, CpuTimeSource
from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.slot.progress import JobProgress
from boincvm.wrapper.slot.state import STATE_FILE, JobState, read_state, write_state
from boincvm.wrapper.slot.wrapper_checkpoint import CHECKPOINT_FILE

USED = CpuSeconds(1.5, 2.5, 3.5)
STORED = {"version": 1, "tasks_done": 1, "failures": 2, "guest": 1.5, "host": 2.5, "wall": 3.5}


def progress_in(slot: Path, tasks: int = 3, scale: float = 1.0) -> JobProgress:
    settings = BoincSettings(cpu_time=CpuTimeSource.HOST, cpu_time_scale=scale)
    return JobProgress(slot, tasks, settings)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = JobState(1, 2, USED)
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert json.loads((tmp_path / STATE_FILE).read_text()) == STORED
    assert os.listdir(tmp_path) == [STATE_FILE]


@pytest.mark.parametrize(
    "change",
    [
        {"tasks_done": -1},
        {"tasks_done": 1.0},
        {"tasks_done": True},
        {"tasks_done": "1"},
        {"failures": None},
        {"guest": -0.1},
        {"guest": float("nan")},
        {"guest": float("inf")},
        {"guest": 1e11},
        {"guest": False},
        {"wall": [1]},
    ],
)
def test_one_value_that_makes_no_sense(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / STATE_FILE).write_text(json.dumps(STORED | change))
    assert read_state(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"\xff",
        b"[" * 4096,
        b"1" * 4096,
        json.dumps(STORED).encode()[:-9],
    ],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    assert read_state(tmp_path) is None


@given(st.binary(max_size=200))
def test_any_content_is_borne(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    slot = tmp_path_factory.mktemp("slot")
    (slot / STATE_FILE).write_bytes(content)
    assert read_state(slot) is None


def test_what_is_no_file_is_not_followed_or_waited_for(tmp_path: Path) -> None:
    path = tmp_path / STATE_FILE
    (tmp_path / "elsewhere").write_text(json.dumps(STORED))
    path.symlink_to("elsewhere")
    assert read_state(tmp_path) is None
    path.unlink()
    os.mkfifo(path)
    assert read_state(tmp_path) is None


def test_progress_over_runs(tmp_path: Path) -> None:
    first = progress_in(tmp_path, scale=2)
    assert first.is_first_run
    first.note_first_run()
    assert not progress_in(tmp_path).is_first_run
    first.checkpoint(0, USED)
    assert first.total(USED.plus(USED)) == USED.plus(USED)  # both since its start
    first.task_done(0, USED.plus(USED))
    assert first.checkpointed == USED.plus(USED)
    first.checkpoint(1, USED)
    second = progress_in(tmp_path, scale=2)
    assert (second.tasks_done, second.is_first_run) == (1, False)
    assert second.checkpointed == CpuSeconds(4.5, 7.5, 10.5)
    assert second.total(USED) == CpuSeconds(6, 10, 14)
    assert (tmp_path / CHECKPOINT_FILE).read_text() == "1 15.000000 10.500000\n"


@pytest.mark.parametrize("checkpoint", ["1 5.000000 9.0\n", "0 2.500000 3.5\n"])
def test_the_stock_wrapper_went_on(tmp_path: Path, checkpoint: str) -> None:
    progress_in(tmp_path).task_done(0, USED)
    (tmp_path / CHECKPOINT_FILE).write_text(checkpoint)
    done, cpu, elapsed = map(float, checkpoint.split())
    progress = progress_in(tmp_path)
    assert progress.tasks_done == done
    assert progress.checkpointed == CpuSeconds(cpu, cpu, elapsed)


def test_failures_in_succession(tmp_path: Path) -> None:
    """A completed task resets the count; starting one again does not."""
    for count in (1, 2):
        assert progress_in(tmp_path).count_failure() == count
    progress_in(tmp_path).task_done(0, USED)
    for count in (1, 2, 3):
        progress = progress_in(tmp_path)
        progress.begin_with(0)
        assert progress.tasks_done == 0
        assert progress.count_failure() == count
    assert progress.checkpointed == USED


def test_to_begin_where_it_is_writes_nothing(tmp_path: Path) -> None:
    progress_in(tmp_path).begin_with(0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, HostDiskFullError), (errno.EIO, HostError)]
)
def test_progress_that_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    progress = progress_in(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("boincvm.wrapper.slot.state.write_atomically", refuse)
    with pytest.raises(kind, match="progress could not be saved"):
        progress.task_done(0, USED)
    assert progress.tasks_done == 0
    assert progress.count_failure() == 1  # the failure itself is what is told
