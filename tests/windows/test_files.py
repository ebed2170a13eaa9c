"""Files that another process holds open, long paths, and odd names, on Windows."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.host import patience, renames
from boincvm.host import win32_windows as win32
from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import create_new, open_regular, read_regular

assert sys.platform == "win32"

LIMIT = 60.0
SCANNER = """
import sys, time
with open(sys.argv[1], "rb"):
    print("open", flush=True)
    sys.stdin.readline()
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def scanned(path: Path, seconds: float) -> Iterator[None]:
    """Have another process hold a file open until `seconds` after the block has begun."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SCANNER, str(path), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        process.stdin.write("\n")
        process.stdin.flush()
        try:
            yield
        finally:
            process.kill()
            process.wait(LIMIT)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE", LIMIT)


def test_a_scanned_file_is_replaced_and_removed(tmp_path: Path, patient: None) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    with scanned(path, 0.2):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    with scanned(path, 0.2), create_new(path) as file:
        file.write(b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_stays_open_keeps_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE", 0.1)
    path = tmp_path / "state"
    path.write_bytes(b"old")
    with scanned(path, LIMIT), pytest.raises(PermissionError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_that_stays_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No scanner holds a read-only file, or a directory."""

    class NoPause:
        def wait(self, _seconds: float) -> None:
            raise AssertionError("it waits for somebody")

    def refuse(*_: object) -> None:  # wine, run by root, replaces what is read-only
        raise PermissionError(errno.EACCES, "denied", None, win32.ACCESS_DENIED)

    monkeypatch.setattr(patience, "Event", NoPause)
    directory, path, new = (tmp_path / name for name in ("directory", "state", "new"))
    directory.mkdir()
    path.write_bytes(b"old")
    new.write_bytes(b"new")
    with pytest.raises(PermissionError):
        renames.remove(directory)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        renames.replace(new, directory)
    with pytest.raises(AssertionError):  # somebody may hold it
        renames.replace(new, path)
    path.chmod(stat.S_IREAD)
    with pytest.raises(PermissionError):
        renames.replace(new, path)
    path.chmod(stat.S_IWRITE)


def test_a_path_of_three_hundred_characters(tmp_path: Path) -> None:
    directory = tmp_path / "Jörg Müller"
    while len(str(directory)) < 300:
        directory /= "a long name"
    directory.mkdir(parents=True)
    write_atomically(directory / "state", "ü")
    assert read_regular(directory / "state", 10) == "ü".encode()


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        open_regular(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(Path(os.devnull))
