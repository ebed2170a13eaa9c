"""Directories that are locked while their process lives, and found once it has ended."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.host.held_directories import abandoned, make_held, remove_held


@contextmanager
def held(parent: Path, name: str = "") -> Iterator[Path]:
    directory, lock = make_held(parent, name)
    try:
        yield directory
    finally:
        os.close(lock)


def test_it_is_private_and_new(tmp_path: Path) -> None:
    with held(tmp_path / "all") as one, held(tmp_path / "all") as other:
        assert one != other
        assert one.parent == other.parent == tmp_path / "all"
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
        with pytest.raises(FileExistsError):
            make_held(tmp_path / "all", one.name)


def test_only_what_nobody_holds_is_abandoned(tmp_path: Path) -> None:
    """A crash may precede the lock; the parent directory contains other files, too."""
    with held(tmp_path, "living") as living:
        with held(tmp_path, "left"):
            pass
        (tmp_path / "unlocked").mkdir()
        (tmp_path / "file").touch()
        found = set()
        for directory in abandoned(tmp_path):
            assert directory not in abandoned(tmp_path)  # it is held now
            found.add(directory.name)
        assert found == {"left", "unlocked"}
        for directory in abandoned(tmp_path):
            remove_held(directory)
        assert {path for path in tmp_path.iterdir() if path.is_dir()} == {living}


def test_somebody_has_removed_it(tmp_path: Path) -> None:
    with held(tmp_path / "all") as directory:
        shutil.rmtree(directory)
        remove_held(directory)
        shutil.rmtree(tmp_path / "all")
        remove_held(directory)
        assert not directory.exists()


def test_there_may_be_none(tmp_path: Path) -> None:
    assert list(abandoned(tmp_path / "nothing")) == []


def test_what_is_not_meant_is_not_held_meanwhile(tmp_path: Path) -> None:
    for name in ("this", "that"):
        os.close(make_held(tmp_path, name)[1])
    for mine in abandoned(tmp_path, lambda directory: directory.name == "this"):
        assert mine.name == "this"
        assert [path.name for path in abandoned(tmp_path)] == ["that"]


def test_it_is_abandoned_by_a_process_that_was_killed(tmp_path: Path) -> None:
    source = """
import os, signal, sys
from pathlib import Path
from boincvm.host.held_directories import make_held
make_held(Path(sys.argv[1]), "theirs")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False, timeout=60)
    assert [path.name for path in abandoned(tmp_path)] == ["theirs"]
