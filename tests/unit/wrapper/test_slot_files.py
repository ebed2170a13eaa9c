"""Progress of a task: the fraction in a file, a checkpoint by a file's time."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm.wrapper.slot import files as slot_files
from boincvm.wrapper.slot.files import CheckpointFile, FractionFile
from boincvm.wrapper.tasks.priority import nice_value


@pytest.mark.parametrize(
    ("content", "fraction"),
    [
        (b"0.25", 0.25),
        (b"0.1\n0.2\n0.3\n", 0.3),
        (b"0.1\r\n0.2\r\n", 0.2),
        (b"  .5 of all\n", 0.5),
        (b"0.5\ndone soon\n", 0.5),
        (b"1e-1\n", 0.1),
        (b"-3\n", 0.0),
        (b"17\n", 1.0),
        (b"1e999\n", None),
        (b"nan\n", None),
        (b"", None),
        (b"no number 0.5\n", None),
        (b"0.1\n" * 100_000 + b"0.75\n", 0.75),
        (b"9" * 100_000 + b"\n0.5\n", 0.5),
        (b"9" * 100_000, None),
    ],
)
def test_the_last_number(tmp_path: Path, content: bytes, fraction: float | None) -> None:
    path = tmp_path / "fraction"
    file = FractionFile(path)
    path.write_bytes(content)
    assert file.read() == fraction


@given(st.binary(max_size=6000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_gives_a_fraction_or_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fraction"
    file = FractionFile(path)
    path.write_bytes(content)
    fraction = file.read()
    assert fraction is None or 0 <= fraction <= 1


def test_what_was_there_before_the_task_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "fraction"
    path.write_text("0.9")
    assert FractionFile(path).read() is None
    assert not path.exists()


def test_a_fraction_stays_until_there_is_another(tmp_path: Path) -> None:
    path = tmp_path / "fraction"
    file = FractionFile(path)
    path.write_text("0.5\n")
    assert file.read() == 0.5
    path.write_text("")  # it is being written anew
    assert file.read() == 0.5
    path.unlink()
    assert file.read() == 0.5
    path.write_text("0.6\n")
    assert file.read() == 0.6


def test_what_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fraction"
    file = FractionFile(path)
    path.write_text("0.5\n")
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr(slot_files, "read_at", lambda *args: (reads.append(1), pread(*args))[1])
    assert [file.read() for _ in range(3)] == [0.5] * 3
    assert len(reads) == 1
    path.write_text("0.55\n")
    assert file.read() == 0.55


def test_a_pipe_or_a_link_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0.5")
    path = tmp_path / "fraction"
    file = FractionFile(path)
    os.mkfifo(path)
    assert file.read() is None
    path.unlink()
    path.symlink_to("secret")
    assert file.read() is None


def test_a_new_time_is_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    file = CheckpointFile(path)
    assert not file.has_news()
    os.utime(path, ns=(1, 1))
    assert file.has_news()
    assert not file.has_news()
    path.unlink()  # about to be replaced
    assert not file.has_news()
    path.touch()
    assert file.has_news()


def test_the_first_appearance_is_a_checkpoint(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "state")
    assert not file.has_news()
    (tmp_path / "state").touch()
    assert file.has_news()


@pytest.mark.parametrize(
    ("priority", "nice"),
    [(None, 19), (1, 19), (2, 10), (3, None), (4, -10), (5, -15), (0, None), (6, None), (7, None)],
)
def test_the_nice_value_of_a_priority(priority: int | None, nice: int | None) -> None:
    assert nice_value(priority) == nice


@pytest.mark.parametrize(
    ("process_priority", "nice"), [(0, 19), (1, 10), (2, None), (3, -10), (4, -15), (5, None)]
)
def test_the_volunteer_decides_on_the_priority(process_priority: int, nice: int | None) -> None:
    assert nice_value(5, process_priority=process_priority) == nice
    assert nice_value(1, process_priority=process_priority, no_priority_change=True) is None
