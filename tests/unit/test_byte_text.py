"""Bytes that are not UTF-8 become text without loss on any system.

Windows' `os.fsdecode` and `os.fsencode` stand in for this system's.
"""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from boincvm.boinc.init_data import read_init_data
from boincvm.boinc.soft_link import target
from boincvm.boinc.tags import unescape
from boincvm.byte_text import decoded, encoded
from boincvm.guestlink.status_channel import read_message
from boincvm.host.atomic_files import replacement
from boincvm.job.files import input_file, output_of_option
from boincvm.job.model import MachineTask
from boincvm.job.sweep import _lines
from boincvm.lenient_xml import parse
from boincvm.machine.output_patterns import listed_outputs
from boincvm.machine.script_line import interpreter_of

ODD = b"\xe9t\xe9\xff"
TEXT = "\udce9t\udce9\udcff"


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsdecode(name: str | bytes | os.PathLike[str]) -> str:
        path = os.fspath(name)
        return path if isinstance(path, str) else path.decode("utf-8", "surrogatepass")

    def fsencode(name: str | bytes | os.PathLike[str]) -> bytes:
        path = os.fspath(name)
        return path if isinstance(path, bytes) else path.encode("utf-8", "surrogatepass")

    monkeypatch.setattr(os, "fsdecode", fsdecode)
    monkeypatch.setattr(os, "fsencode", fsencode)
    with pytest.raises(UnicodeDecodeError):
        os.fsdecode(ODD)


def test_all_bytes_come_back() -> None:
    every = bytes(range(256)) + "é\U0001f600".encode()
    assert encoded(decoded(every)) == every
    assert encoded("a\ud800") == b"a?"


def _soft_link(directory: Path) -> str | None:
    (directory / "link").write_bytes(b"<soft_link>" + ODD + b"</soft_link>")
    return target(directory / "link")


def _inputs_of_a_sweep(directory: Path) -> str:
    (directory / "inputs").write_bytes(ODD + b"\n")
    (line,) = _lines(str(directory / "inputs"))
    return line


def _interpreter(directory: Path) -> str:
    (directory / "prog").write_bytes(b"#!" + ODD)
    found = interpreter_of(MachineTask(("./prog",)), directory, [input_file("prog", directory)])
    assert found is not None
    return found.name


def _name_in_the_guest(_: Path) -> str:
    pattern = output_of_option("*", replaces=False)
    (found,) = listed_outputs(pattern, 0, ODD + b"\0", ())
    assert listed_outputs(found._replace(is_pattern=True), 0, ODD + b"\0", ())
    return str(found.source)


def _init_data(directory: Path) -> str:
    content = b"<app_init_data>\n<user_name>" + ODD + b"</user_name>\n</app_init_data>\n"
    (directory / "init_data.xml").write_bytes(content)
    found = read_init_data(directory)
    assert found is not None
    return found.user_name


def _xml(_: Path) -> str:
    return parse(b"<a>" + ODD + b"</a>").text


@pytest.mark.parametrize(
    "read",
    [_soft_link, _inputs_of_a_sweep, _name_in_the_guest, _init_data, _xml],
)
def test_what_others_write(read: Callable[[Path], str | None], tmp_path: Path) -> None:
    assert read(tmp_path) == TEXT


def test_what_is_only_shown(tmp_path: Path) -> None:
    assert "udcff" in _interpreter(tmp_path)
    assert read_message(b"heartbeat " + ODD) is None
    assert read_message(ODD) is None
    assert unescape("&#195;\udcff") == "\udcc3\udcff"


def test_a_name_that_is_cut_within_a_character(tmp_path: Path) -> None:
    path = tmp_path / ("a" + "é" * 120)
    with replacement(path, is_synced=False) as part:
        part.touch()
    assert PurePosixPath(path).name in {one.name for one in tmp_path.iterdir()}
