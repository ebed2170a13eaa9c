"""Where programs are found."""

import sys
from pathlib import Path

import pytest

from boincvm.host.programs import find_program

NAME = "qemu-system-x86_64"


def put_program(directory: Path) -> str:
    directory.mkdir(parents=True)
    path = directory / NAME
    path.touch(0o755)
    return str(path)


def test_a_qemu_of_the_folder_comes_before_the_host_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = put_program(tmp_path / "host")
    monkeypatch.setenv("PATH", str(tmp_path / "host"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "folder/python"))
    assert find_program(NAME) == host
    own = put_program(tmp_path / "folder/qemu")
    assert find_program(NAME) == own
