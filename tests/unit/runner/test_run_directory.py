"""The directory of a run: removed with it, or by the next run if that was not possible."""

import fcntl
import os
import stat
from pathlib import Path

import pytest

from boincvm.errors import HostError
from boincvm.paths import runs_directory
from boincvm.runner.run_directory import run_directory


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_it_is_private_and_gone_afterwards() -> None:
    with run_directory() as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (directory / "file").write_bytes(b"x")
    assert list(runs_directory().iterdir()) == []


def test_it_is_gone_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), run_directory() as directory:
        assert (directory / "file").write_bytes(b"x") / 0
    assert list(runs_directory().iterdir()) == []


def test_what_dead_runs_left_is_removed_and_what_lives_stays() -> None:
    with run_directory() as living:
        for name, content in (("dead", b"x"), ("empty", None)):
            (runs_directory() / name).mkdir()
            if content is not None:
                (runs_directory() / name / "overlay.qcow2").write_bytes(content)
        with run_directory() as directory:
            assert set(runs_directory().iterdir()) == {living, directory}


def test_nobody_sees_a_directory_that_is_not_locked() -> None:
    with run_directory() as directory:
        descriptor = os.open(directory, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


def test_a_place_that_cannot_be_written(home: Path) -> None:
    home.write_text("a file where a directory should be")
    with pytest.raises(HostError, match="no directory for the machine") as failure, run_directory():
        pass
    assert "BOINCVM_HOME" in failure.value.hint


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOINCVM_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda path: path)  # as for an unknown user
    with pytest.raises(HostError, match="no home directory"), run_directory():
        pass
